"""What a client reports about its allocations, written as Nomad writes it: one line for a batch of them.

Acts on a `Region`. Order in the line: deployment and allocation, evaluations, jobs, the node.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import collect, deployments, nodes
from .entities import Alloc
from .jobspec import Row
from .reconcile import reschedule_at
from .rows import evaluation, is_terminal
from .transaction import Txn

if TYPE_CHECKING:
    from .region import Region

NETWORK_STATUS: Row = {"Address": "", "AddressIPv6": "", "DNS": None, "InterfaceName": ""}
TIMED_OUT = "allocation exceeded max_run_duration"


@dataclass(frozen=True, slots=True)
class Update:
    """A client's view of one allocation."""

    alloc_id: str
    status: str
    description: str
    task_states: Any
    """TaskStates, plain or frozen."""
    healthy: bool | None = None
    health_at: str = ""
    timed_out: bool = False


def apply(region: "Region", node_id: str, updates: list[Update], now: int) -> None:
    """Write a batch of updates. Allocations that are gone are skipped; the node's line comes anyway."""
    txn = region.state.begin("AllocationUpdated", now)
    follow: list[str] = []
    for update in updates:
        alloc = region.state.allocs.get(update.alloc_id)
        if alloc is not None:
            _apply_one(region, txn, alloc, update, follow, now)
    txn.settle()
    node = region.state.nodes[node_id]
    txn.put_node({**node.row, "LastAllocUpdateIndex": txn.index}, keep_index=True)
    txn.commit()
    region.queue.extend(follow)
    nodes.progress(region, node_id, now)
    region.work(now)
    collect.trim(region, now)


def _apply_one(region: "Region", txn: Txn, alloc: Alloc, update: Update, follow: list[str], now: int) -> None:
    row = {
        **alloc.row,
        "ClientDescription": update.description,
        "ClientStatus": update.status,
        "ModifyTime": now,
        "NetworkStatus": NETWORK_STATUS,
    }
    if update.task_states is not None:
        row["TaskStates"] = update.task_states
    reconnects = alloc.row["ClientStatus"] == "unknown" and update.status in ("running", "complete", "failed")
    if reconnects:
        row["AllocStates"] = [
            *(row.get("AllocStates") or []),
            {"At": now, "Field": "ClientStatus", "Value": update.status},
        ]
        _cancel_follow_up(region, txn, alloc)
    _note_health(region, txn, alloc, row, update, now)
    more = {"Timeout": True, "TimeoutReason": TIMED_OUT} if update.timed_out else None
    txn.put_alloc(Alloc(row, alloc.version, alloc.ask), by_server=False, more=more)
    if trigger := _trigger(region, alloc, row, reconnects, now):
        follow.append(_evaluate(region, txn, row, trigger, now))


def _note_health(region: "Region", txn: Txn, alloc: Alloc, row: Row, update: Update, now: int) -> None:
    """DeploymentStatus of the allocation, and the deployment's count when it is news."""
    if update.healthy is None or not alloc.row.get("DeploymentID"):
        return
    before = (alloc.row.get("DeploymentStatus") or {}).get("Healthy")
    row["DeploymentStatus"] = {
        "Canary": False,
        "Healthy": update.healthy,
        "ModifyIndex": txn.index,
        "Timestamp": update.health_at,
    }
    deployment = region.state.deployments.get(alloc.row["DeploymentID"])
    if before is None and deployment is not None:
        deployments.count_health(txn, deployment, alloc.row["TaskGroup"], update.healthy, now)
        deployments.watch(region, deployment["ID"], now)


def _cancel_follow_up(region: "Region", txn: Txn, alloc: Alloc) -> None:
    """Nomad cancels the one that the allocation points to, even when it is complete, and no other."""
    if found := region.state.evals.get(alloc.row.get("FollowupEvalID", "")):
        txn.put_eval({**found, "Status": "canceled", "StatusDescription": "allocs reconnected"})


def _trigger(region: "Region", alloc: Alloc, row: Row, reconnects: bool, now: int) -> str:
    """Why this update needs the scheduler, if it does."""
    if reconnects:
        return "reconnect"
    job = region.state.job_of(row)
    if job is None or row["ClientStatus"] != "failed" or is_terminal(alloc.row) or row.get("FollowupEvalID"):
        return ""
    group = job.group(row["TaskGroup"])
    return "alloc-failure" if group is not None and reschedule_at(row, group, now) is not None else ""


def _evaluate(region: "Region", txn: Txn, row: Row, trigger: str, now: int) -> str:
    job = region.state.job_of(row)
    assert job is not None
    made = evaluation(
        region.ids(), row["JobID"], row["Namespace"], kind=job.row["Type"], trigger=trigger,
        priority=job.row["Priority"], now=now,
        JobModifyIndex=job.row["JobModifyIndex"],
    )  # fmt: skip
    txn.put_eval(made)
    return str(made["ID"])
