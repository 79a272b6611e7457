"""Nodes: their registration, loss and return, drains and eligibility, as lines of the region.

Acts on a `Region`. The node clients and the API call it; drains and TTLs run on the region's timers.
"""

from typing import TYPE_CHECKING

from .entities import Alloc, JobKey, Node
from .jobspec import Row, lost_after
from .rows import NO_TRANSITION, evaluation, is_client_terminal, is_terminal, rfc3339, unix_ns

if TYPE_CHECKING:
    from .region import Region

KEPT_EVENTS = 10
MISSED = "Node heartbeat missed"
REREGISTERED = "Node reregistered by heartbeat"
SECOND = 1_000_000_000


def register(region: "Region", row: Row, now: int) -> None:
    """A client presents itself: new, or known from before."""
    known = region.state.nodes.get(row["ID"])
    if known is None:
        txn = region.state.begin("NodeRegistration", now)
        txn.put_node({**row, "Status": "ready", "CreateIndex": txn.index, "StatusUpdatedAt": now // SECOND})
        txn.commit()
        region.unblock_all()
        region.work(now)
        return
    kept = ("CreateIndex", "Events", "DrainStrategy", "Drain", "LastDrain", "SchedulingEligibility", "Status",
            "StatusUpdatedAt", "LastMissedHeartbeatIndex", "LastAllocUpdateIndex", "StatusDescription")  # fmt: skip
    txn = region.state.begin("NodeRegistration", now)
    txn.put_node({**row, **{name: known.row[name] for name in kept}})
    txn.commit()
    region.evaluate_jobs(_live_jobs(region, known), "node-update", "EvaluationUpdated", now)
    region.work(now)


def _live_jobs(region: "Region", node: Node) -> list[JobKey]:
    """Jobs with anything on the node that is neither unwanted nor done."""
    keys: dict[JobKey, None] = {}
    for alloc_id in node.allocs:
        row = region.state.allocs[alloc_id].row
        if not is_terminal(row):
            keys[row["Namespace"], row["JobID"]] = None
    return list(keys)


def missed(region: "Region", node_id: str, now: int) -> None:
    """The TTL has run out: the node is disconnected when some allocation may wait, else down."""
    if node_id not in region.away:
        return
    node = region.state.nodes[node_id]
    waits = any(_may_wait(region, region.state.allocs[i], now) for i in node.allocs)
    status = "disconnected" if waits else "down"
    before = node.row["Status"]
    if before == "down":
        return
    _set_status(region, node, status, MISSED, now)
    if before != status and not (before == "disconnected" and status == "down"):
        region.evaluate_jobs(_live_jobs(region, node), "node-update", "EvaluationUpdated", now)
    if status == "disconnected":
        region.at(now + int(region.settings.heartbeat_ttl_s * SECOND), lambda at: missed(region, node_id, at))
    region.work(now)


def _may_wait(region: "Region", alloc: Alloc, now: int) -> bool:
    if is_client_terminal(alloc.row) or alloc.row["DesiredStatus"] != "run":
        return False
    job = region.state.job_of(alloc.row)
    group = job.group(alloc.row["TaskGroup"]) if job else None
    return group is not None and lost_after(group) > 0


def _set_status(region: "Region", node: Node, status: str, message: str | None, now: int) -> None:
    txn = region.state.begin("NodeStreamEvent", now)
    row = {**node.row, "Status": status, "StatusUpdatedAt": now // SECOND}
    if message:
        row["Events"] = _with_event(node.row["Events"], "Cluster", message, txn.index, now)
    if message == MISSED:
        row["LastMissedHeartbeatIndex"] = txn.index
    txn.put_node(row)
    txn.commit()


def _with_event(
    events: list[Row], subsystem: str, message: str, index: int, now: int, details: Row | None = None
) -> list[Row]:
    made = {
        "CreateIndex": index,
        "Details": details,
        "Message": message,
        "Subsystem": subsystem,
        "Timestamp": rfc3339(now),
    }
    return [*events, made][-KEPT_EVENTS:]


def returned(region: "Region", node_id: str, row: Row, now: int) -> None:
    """The client is heard again. From down it is ready at once; from disconnected it first tells its allocations."""
    region.away.discard(node_id)
    node = region.state.nodes[node_id]
    before = node.row["Status"]
    register(region, row, now)
    if before == "down":
        _set_status(region, node, "ready", REREGISTERED, now)
        region.evaluate_jobs(_live_jobs(region, node), "node-update", "EvaluationUpdated", now)
        region.unblock_all()
    elif before == "disconnected":
        _set_status(region, node, "initializing", None, now)
        region.evaluate_jobs(_live_jobs(region, node), "node-update", "EvaluationUpdated", now)
    region.work(now)


def synced(region: "Region", node_id: str, now: int) -> None:
    """The client has told all it had: an initializing node is ready."""
    node = region.state.nodes[node_id]
    if node.row["Status"] != "initializing":
        return
    _set_status(region, node, "ready", None, now)
    region.evaluate_jobs(_live_jobs(region, node), "node-update", "EvaluationUpdated", now)
    region.unblock_all()
    region.work(now)


def set_eligibility(region: "Region", node_id: str, eligibility: str, now: int) -> Row:
    """Whether the node takes new work."""
    node = region.state.nodes[node_id]
    if node.row["SchedulingEligibility"] == eligibility:
        return {"EvalCreateIndex": 0, "EvalIDs": None, "Index": 0, "NodeModifyIndex": 0}
    txn = region.state.begin("NodeEligibility", now)
    events = _with_event(node.row["Events"], "Cluster", f"Node marked as {eligibility} for scheduling", txn.index, now)
    txn.put_node({**node.row, "SchedulingEligibility": eligibility, "Events": events})
    txn.commit()
    if eligibility == "eligible":
        region.unblock_all()
        region.work(now)
    return {"EvalCreateIndex": 0, "EvalIDs": None, "Index": txn.index, "NodeModifyIndex": 0}


def drain(region: "Region", node_id: str, deadline: int | None, mark_eligible: bool, now: int) -> Row:
    """Begin a drain with a deadline (ns; 0: none, negative: at once), or end it (`None`)."""
    node = region.state.nodes[node_id]
    txn = region.state.begin("NodeDrain", now)
    if deadline is None:
        eligibility = "eligible" if mark_eligible else node.row["SchedulingEligibility"]
        row = {**node.row, "Drain": False, "DrainStrategy": None, "SchedulingEligibility": eligibility}
        if node.row["DrainStrategy"]:
            row["LastDrain"] = {**node.row["LastDrain"], "Status": "canceled", "UpdatedAt": rfc3339(now)}
    else:
        row = _draining(node.row, deadline, txn.index, now)
    txn.put_node({**row, "StatusUpdatedAt": now // SECOND})
    txn.commit()
    if deadline is None:
        region.unblock_all()
    else:
        _schedule_drain(region, node_id, deadline, now)
    region.work(now)
    return {"EvalCreateIndex": 0, "EvalIDs": None, "Index": txn.index, "NodeModifyIndex": txn.index}


def _draining(row: Row, deadline: int, index: int, now: int) -> Row:
    force = rfc3339(now + deadline) if deadline > 0 else "0001-01-01T00:00:00Z"
    strategy = {"Deadline": deadline, "ForceDeadline": force, "IgnoreSystemJobs": False, "StartedAt": rfc3339(now)}
    began = rfc3339(now - now % SECOND)
    return {
        **row,
        "Drain": True,
        "DrainStrategy": strategy,
        "LastDrain": {
            "AccessorID": "token:acls-disabled", "Meta": None, "StartedAt": began, "Status": "draining",
            "UpdatedAt": began,
        },
        "SchedulingEligibility": "ineligible",
        "Events": _with_event(row["Events"], "Drain", "Node drain strategy set", index, now),
    }  # fmt: skip


def _schedule_drain(region: "Region", node_id: str, deadline: int, now: int) -> None:
    if deadline < 0:
        _migrate(region, node_id, now, force=True)
    elif deadline > 0:
        region.at(now + deadline, lambda at: _migrate(region, node_id, at, force=True))
    if deadline >= 0:
        _migrate(region, node_id, now, force=False)


def progress(region: "Region", node_id: str, now: int) -> None:
    """A draining node's allocations changed: perhaps all are gone, perhaps services have become healthy."""
    node = region.state.nodes[node_id]
    if node.row["DrainStrategy"]:
        _migrate(region, node_id, now, force=False)


def _migrate(region: "Region", node_id: str, now: int, *, force: bool) -> None:
    """Move what may be moved; at the deadline (`force`) everything, and the drain is over."""
    node = region.state.nodes[node_id]
    if not node.row["DrainStrategy"]:
        return
    left = [a for i in node.allocs if not is_terminal((a := region.state.allocs[i]).row)]
    moving = [
        a
        for a in left
        if not (a.row.get("DesiredTransition") or {}).get("Migrate") and (force or _moves_early(region, a))
    ]
    if moving:
        _mark_migrating(region, moving, now)
    if force or not left:
        _drain_done(region, node, now, at_deadline=force and bool(left))
    region.work(now)


def _moves_early(region: "Region", alloc: Alloc) -> bool:
    """Batch work may finish until the deadline; a service moves once it is healthy, so that others can take over."""
    job = region.state.job_of(alloc.row)
    if job is None or job.row["Type"] != "service":
        return False
    return not alloc.row.get("DeploymentID") or bool((alloc.row.get("DeploymentStatus") or {}).get("Healthy"))


def _mark_migrating(region: "Region", allocs: list[Alloc], now: int) -> None:
    txn = region.state.begin("AllocationUpdateDesiredStatus", now)
    jobs: dict[JobKey, Row] = {}
    for alloc in allocs:
        job = region.state.job_of(alloc.row)
        batch = job is not None and job.row["Type"] == "batch"
        transition = {**NO_TRANSITION, "Migrate": True, "MigrateDisablePlacement": True if batch else None}
        txn.put_alloc(Alloc({**alloc.row, "DesiredTransition": transition}, alloc.version, alloc.ask))
        if job is not None:
            jobs[job.row["Namespace"], job.row["ID"]] = job.row
    for row in jobs.values():
        made = evaluation(
            region.ids(), row["ID"], row["Namespace"], kind=row["Type"], trigger="node-drain",
            priority=row["Priority"], now=now,
            JobModifyIndex=row["JobModifyIndex"],
        )  # fmt: skip
        txn.put_eval(made)
        region.queue.append(made["ID"])
    txn.commit()


def _drain_done(region: "Region", node: Node, now: int, *, at_deadline: bool) -> None:
    txn = region.state.begin("NodeDrain", now)
    details = {"deadline_reached": "true"} if at_deadline else None
    events = _with_event(node.row["Events"], "Drain", "Node drain complete", txn.index, now, details)
    last = {**node.row["LastDrain"], "Status": "complete", "UpdatedAt": rfc3339(now - now % SECOND)}
    txn.put_node({**node.row, "Drain": False, "DrainStrategy": None, "LastDrain": last, "Events": events})
    txn.commit()


def resume(region: "Region", now: int) -> None:
    """Take up drains again after a restart."""
    for node_id, node in region.state.nodes.items():
        if (strategy := node.row["DrainStrategy"]) and strategy["Deadline"] > 0:
            due = unix_ns(strategy["ForceDeadline"])
            region.at(max(due, now), lambda at, node_id=node_id: _migrate(region, node_id, at, force=True))  # type: ignore[misc]
