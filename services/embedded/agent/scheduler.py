"""Carries out one evaluation: the lines Nomad writes for it, in Nomad's order.

A blocked evaluation is written before the plan, the plan carries the evaluation in its old status, and the evaluation's
end comes last. Pure but for the ids that the caller supplies. Called by `region.py` for every due evaluation and by
plan for dry runs.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from . import reconcile
from .entities import Alloc, Ask, Job
from .jobspec import Row
from .placement import Choice, Metrics, PortPolicy, select
from .reconcile import Desired, Place
from .rows import DESIRED_UPDATES, evaluation, frozen, rfc3339
from .state import State

Ids = Callable[[], str]
TO_PLACE = "created to place remaining allocations"


@dataclass(slots=True)
class Outcome:
    """What is left to do after an evaluation."""

    blocked: str = ""
    later: list[tuple[int, str]] = field(default_factory=list)
    """Due time and id of follow-up evaluations."""


@dataclass(slots=True)
class Draft:
    """Placements chosen, and what could not be placed, before anything is written."""

    desired: Desired
    placed: list[tuple[Place, Choice, Metrics]] = field(default_factory=list)
    failed: dict[str, Metrics] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)


class Scheduler:
    """Evaluations over one state."""

    def __init__(self, state: State, ids: Ids, ports: tuple[int, int], is_port_free: Callable[[int], bool]) -> None:
        self.state = state
        self.ids = ids
        self.ports = ports
        self.is_port_free = is_port_free
        self._port_turn = itertools.count()

    def draft(self, job: Job | None, allocs: list[Alloc], trigger: str, now: int) -> Draft:
        """Decide and choose nodes; writes nothing but takes the chosen shares, which `release` gives back."""
        draft = Draft(reconcile.reconcile(job, allocs, self.state.nodes, trigger, now))
        if job is None:
            return draft
        draft.queued = {group["Name"]: 0 for group in job.task_groups()}
        for place in draft.desired.places:
            self._choose(job, place, draft)
        return draft

    def _choose(self, job: Job, place: Place, draft: Draft) -> None:
        name = place.group["Name"]
        if name in draft.failed:
            # One failure speaks for its group, as in Nomad.
            draft.failed[name].coalesced += 1
            draft.queued[name] += 1
            return
        policy = PortPolicy(*self.ports, next(self._port_turn) * 7, self.is_port_free)
        choice, metrics = select(job.row, place.group, self.state.nodes.values(), policy)
        if choice is None:
            draft.failed[name] = metrics
            draft.queued[name] += 1
            return
        choice.node.take(choice.ask, 1)
        draft.placed.append((place, choice, metrics))

    def release(self, draft: Draft) -> None:
        """Give back what a draft took; the rows written afterwards take it for good."""
        for _, choice, _ in draft.placed:
            choice.node.take(choice.ask, -1)

    def process(self, eval_id: str, now: int) -> Outcome:
        """Work one evaluation off and write what follows."""
        row = self.state.evals[eval_id]
        job = self.state.job_of(row)
        allocs = self.state.job_allocs((row["Namespace"], row["JobID"]))
        draft = self.draft(job, allocs, row["TriggeredBy"], now)
        self.release(draft)
        outcome = Outcome()
        row = self._write_follow_ups(row, draft, outcome, now)
        blocked = self._write_blocked(row, job, draft, outcome, now)
        self._write_plan(row, job, draft, now)
        if row["Status"] == "blocked" and draft.failed:
            # A blocked evaluation that fails again is put back without a word.
            outcome.blocked = eval_id
            return outcome
        self._write_end(row, job, draft, blocked, now)
        return outcome

    def _write_follow_ups(self, row: Row, draft: Draft, outcome: Outcome, now: int) -> Row:
        """Delayed evaluations, each in a line of its own; the allocation will point to the last one."""
        next_eval = ""
        for later in draft.desired.later:
            made = evaluation(
                self.ids(), row["JobID"], row["Namespace"], kind=row["Type"], trigger=later.trigger,
                priority=row["Priority"],
                now=now, PreviousEval=row["ID"], StatusDescription=later.why, WaitUntil=rfc3339(later.at),
                JobModifyIndex=row.get("JobModifyIndex"),
            )  # fmt: skip
            txn = self.state.begin("EvaluationUpdated", now)
            txn.put_eval(made)
            txn.commit()
            next_eval = made["ID"]
            later.alloc.row = {**later.alloc.row, "FollowupEvalID": next_eval}
            outcome.later.append((later.at, next_eval))
        return {**row, "NextEval": next_eval} if next_eval else row

    def _write_blocked(self, row: Row, job: Job | None, draft: Draft, outcome: Outcome, now: int) -> str:
        if not draft.failed or row["Status"] == "blocked":
            return ""
        made = evaluation(
            self.ids(), row["JobID"], row["Namespace"], kind=row["Type"], trigger="queued-allocs",
            priority=row["Priority"],
            now=now, status="blocked", PreviousEval=row["ID"], StatusDescription=TO_PLACE,
            SnapshotIndex=self.state.index,
            JobModifyIndex=row.get("JobModifyIndex"),
            FailedTGAllocs={name: metrics.row() for name, metrics in draft.failed.items()},
        )  # fmt: skip
        txn = self.state.begin("EvaluationUpdated", now)
        txn.put_eval(made)
        txn.commit()
        outcome.blocked = made["ID"]
        return str(made["ID"])

    def _write_plan(self, row: Row, job: Job | None, draft: Draft, now: int) -> None:
        desired = draft.desired
        deployment = self._deployment(job, draft, now)
        if not (draft.placed or desired.stops or desired.later or desired.reconnected or deployment):
            return
        txn = self.state.begin("PlanResult", now)
        cancelled = deployment is not None and deployment["Status"] == "cancelled"
        if deployment and cancelled:
            txn.put_deployment(deployment)
        txn.put_eval(row)
        if deployment and not cancelled:
            txn.put_deployment(deployment)
        replaced = {}
        for place, choice, metrics in draft.placed:
            made = self._new_alloc(row, job, place, choice, metrics, deployment, now)
            if place.previous:
                replaced[place.previous.row["ID"]] = made.row["ID"]
            txn.put_alloc(made)
        for stop in desired.stops:
            txn.put_alloc(_stopped(stop, replaced.get(stop.alloc.row["ID"], "")))
        for place, _, _ in draft.placed:
            if place.previous and place.previous.row["ID"] not in {s.alloc.row["ID"] for s in desired.stops}:
                old = self.state.allocs[place.previous.row["ID"]]
                txn.put_alloc(Alloc({**old.row, "NextAllocation": replaced[old.row["ID"]]}, old.version, old.ask))
        self._write_unknown(txn_put=txn.put_alloc, draft=draft, now=now)
        txn.commit()

    def _write_unknown(self, txn_put: Callable[[Alloc], Alloc], draft: Draft, now: int) -> None:
        unknown = {a.row["ID"] for a in draft.desired.unknown}
        for alloc in draft.desired.unknown:
            states = [*(alloc.row.get("AllocStates") or []), {"At": now, "Field": "ClientStatus", "Value": "unknown"}]
            row = {
                **alloc.row,
                "ClientStatus": "unknown",
                "ClientDescription": reconcile.UNKNOWN,
                "AllocStates": states,
            }
            txn_put(Alloc(row, alloc.version, alloc.ask))
        for later in draft.desired.later:
            if later.alloc.row["ID"] not in unknown:
                txn_put(later.alloc)
        for alloc in draft.desired.reconnected:
            txn_put(Alloc({k: v for k, v in alloc.row.items() if k != "FollowupEvalID"}, alloc.version, alloc.ask))

    def _write_end(self, row: Row, job: Job | None, draft: Draft, blocked: str, now: int) -> None:
        """The evaluation is complete; a success for the whole job cancels its blocked ones in the same line."""
        done = {
            **row,
            "ModifyTime": now,
            "SnapshotIndex": self.state.index,
            "Status": "complete",
        }
        done.pop("FailedTGAllocs", None)
        if job is not None:
            done["QueuedAllocations"] = draft.queued
            done["PlanAnnotations"] = annotations(draft.desired)
        if draft.failed:
            done["FailedTGAllocs"] = {name: metrics.row() for name, metrics in draft.failed.items()}
            done["BlockedEval"] = blocked
        txn = self.state.begin("EvaluationUpdated", now)
        if not draft.failed:
            self._cancel_blocked(row, txn.put_eval, f'evaluation "{row["ID"]}" successful')
        txn.put_eval(done)
        txn.commit()

    def _cancel_blocked(self, row: Row, put: Callable[[Row], Row], why: str) -> None:
        """Blocked evaluations of the same job; of a purged job too, though nothing counts them any more."""
        job = self.state.job_of(row)
        ids = list(job.evals) if job else [i for i, e in self.state.evals.items() if e["JobID"] == row["JobID"]]
        for eval_id in ids:
            other = self.state.evals[eval_id]
            if other["Status"] == "blocked" and eval_id != row["ID"] and other["Namespace"] == row["Namespace"]:
                put({**other, "Status": "canceled", "StatusDescription": why})

    def _deployment(self, job: Job | None, draft: Draft, now: int) -> Row | None:
        """The deployment as this plan changes it: begun, cancelled, or counting one more placement."""
        if job is None:
            return None
        active = self.state.deployments.get(job.deployment)
        if job.row["Stop"]:
            return (
                {**active, "Status": "cancelled", "StatusDescription": "Cancelled because job is stopped"}
                if active
                else None
            )
        if job.row["Type"] != "service" or not draft.placed:
            return None
        if active and active["JobVersion"] == job.row["Version"]:
            return _with_placed(active, draft)
        before = any(
            d["JobVersion"] == job.row["Version"]
            for d in self.state.deployments.values()
            if self.state.job_of(d) is job
        )
        return None if before else _with_placed(self._new_deployment(job, now), draft)

    def _new_deployment(self, job: Job, now: int) -> Row:
        row = job.row
        groups = {}
        for group in job.task_groups():
            groups[group["Name"]] = {
                "AutoPromote": False, "AutoRevert": group["Update"]["AutoRevert"], "DesiredCanaries": 0,
                "DesiredTotal": group["Count"], "HealthyAllocs": 0, "PlacedAllocs": 0, "PlacedCanaries": None,
                "ProgressDeadline": group["Update"]["ProgressDeadline"], "Promoted": False,
                "RequireProgressBy": rfc3339(now + group["Update"]["ProgressDeadline"]), "UnhealthyAllocs": 0,
            }  # fmt: skip
        return {
            "CreateTime": now, "EvalPriority": row["Priority"], "ID": self.ids(), "IsMultiregion": False,
            "JobCreateIndex": row["CreateIndex"], "JobID": row["ID"], "JobModifyIndex": row["JobModifyIndex"],
            "JobSpecModifyIndex": row["JobModifyIndex"], "JobVersion": row["Version"], "Namespace": row["Namespace"],
            "Status": "running", "StatusDescription": "Deployment is running", "TaskGroups": groups,
        }  # fmt: skip

    def _new_alloc(
        self,
        row: Row,
        job: Job | None,
        place: Place,
        choice: Choice,
        metrics: Metrics,
        deployment: Row | None,
        now: int,
    ) -> Alloc:
        assert job is not None
        made = {
            "AllocatedResources": frozen(_allocated(place.group, choice)),
            "ClientStatus": "pending",
            "CreateTime": now,
            "DesiredStatus": "run",
            "EvalID": row["ID"],
            "ID": self.ids(),
            "JobID": job.row["ID"],
            "Metrics": frozen(metrics.row()),
            "Name": place.name,
            "Namespace": job.row["Namespace"],
            "NodeID": choice.node.row["ID"],
            "NodeName": choice.node.row["Name"],
            "TaskGroup": place.group["Name"],
            **_old_resources(place.group, choice.ask),
        }
        if deployment is not None:
            made["DeploymentID"] = deployment["ID"]
        if place.previous:
            made["PreviousAllocation"] = place.previous.row["ID"]
            if place.rescheduled:
                made["RescheduleTracker"] = _tracker(place.previous.row, place.group, now)
        return Alloc(made, job.row["Version"], choice.ask)


def annotations(desired: Desired) -> Row:
    """PlanAnnotations."""
    return {
        "DesiredTGUpdates": {name: {**DESIRED_UPDATES, **counts} for name, counts in desired.updates.items()},
        "PreemptedAllocs": None,
    }


def _with_placed(deployment: Row, draft: Draft) -> Row:
    groups = {name: dict(group) for name, group in deployment["TaskGroups"].items()}
    for place, _, _ in draft.placed:
        if place.group["Name"] in groups:
            groups[place.group["Name"]]["PlacedAllocs"] += 1
    return {**deployment, "TaskGroups": groups}


def _stopped(stop: reconcile.Stop, next_alloc: str) -> Alloc:
    row = {**stop.alloc.row, "DesiredStatus": "stop"}
    if stop.why:
        row["DesiredDescription"] = stop.why
    if stop.client_status:
        row["ClientStatus"] = stop.client_status
    if next_alloc:
        row["NextAllocation"] = next_alloc
    return Alloc(row, stop.alloc.version, stop.alloc.ask)


def _tracker(previous: Row, group: Row, now: int) -> Row:
    events = [*((previous.get("RescheduleTracker") or {}).get("Events") or [])]
    delay = reconcile.reschedule_delay(group["ReschedulePolicy"], len(events))
    events.append(
        {"Delay": delay, "PrevAllocID": previous["ID"], "PrevNodeID": previous["NodeID"], "RescheduleTime": now}
    )
    return {"Events": events, "LastReschedule": "ok"}


def _allocated(group: Row, choice: Choice) -> Row:
    """AllocatedResources: what each task got, and the group's ports."""
    tasks = {}
    for task in group["Tasks"]:
        wanted = task["Resources"]
        tasks[task["Name"]] = {
            "Cpu": {"CpuShares": wanted["CPU"], "ReservedCores": None},
            "Devices": _device_rows(wanted["Devices"], choice),
            "Memory": {"MemoryMB": wanted["MemoryMB"], "MemoryMaxMB": wanted["MemoryMaxMB"]},
            "Networks": None,
        }
    lifecycles = {task["Name"]: task["Lifecycle"] for task in group["Tasks"]}
    shared = {"DiskMB": choice.ask.disk, "Networks": _network_rows(group, choice), "Ports": _port_rows(choice)}
    return {"Shared": shared, "TaskLifecycles": lifecycles, "Tasks": tasks}


def _device_rows(wanted: list[Row] | None, choice: Choice) -> list[Row] | None:
    if not wanted:
        return None
    rows = []
    for full, count in choice.ask.devices.items():
        vendor, kind, name = full.split("/", 2)
        rows.append({"DeviceIDs": [f"{name}-{i}" for i in range(count)], "Name": name, "Type": kind, "Vendor": vendor})
    return rows


def _port_rows(choice: Choice) -> list[Row] | None:
    rows = [{"HostIP": "127.0.0.1", "Label": p["Label"], "To": p["To"], "Value": p["Value"]} for p in choice.ports]
    return [{k: v for k, v in row.items() if v} for row in rows] or None


def _network_rows(group: Row, choice: Choice) -> list[Row] | None:
    if not group["Networks"]:
        return None
    values = {port["Label"]: port["Value"] for port in choice.ports}
    rows = []
    for network in group["Networks"]:
        row = {**network, "IP": "127.0.0.1"}
        for kind in ("DynamicPorts", "ReservedPorts"):
            if network.get(kind):
                row[kind] = [{**port, "Value": values[port["Label"]]} for port in network[kind]]
        rows.append(row)
    return rows


def _old_resources(group: Row, ask: Ask) -> Row:
    """The older forms of the same numbers, which Nomad still sends."""
    empty = {"CPU": 0, "Cores": 0, "Devices": None, "DiskMB": ask.disk, "IOPS": 0, "MemoryMB": 0, "MemoryMaxMB": 0,
             "NUMA": None, "Networks": None, "SecretsMB": 0}  # fmt: skip
    total = {**empty, "CPU": ask.cpu, "MemoryMB": ask.memory, "MemoryMaxMB": ask.memory}
    return {
        "Resources": frozen(total),
        "SharedResources": frozen(empty),
        "TaskResources": frozen({task["Name"]: task["Resources"] for task in group["Tasks"]}),
    }
