"""One region's server side: registers, stops and evaluates jobs, and knows what is due when.

Pure: the caller gives the time and takes the commits (`state.take_commits`). The server half of Nomad that the
platform meets; nodes, client updates, deployments and collection live in modules of their own that act on a `Region`.
Called by the HTTP API, the node clients and `server.py`'s clock.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from . import collect, deployments, nodes
from .entities import Job, JobKey
from .jobspec import Row, same_spec
from .placement import group_ask
from .rows import EVAL_TERMINAL, evaluation, frozen, unix_ns
from .scheduler import Draft, Ids, Scheduler, annotations
from .settings import AgentSettings
from .state import State


class Refused(Exception):
    """The server says no; the text is Nomad's, the status what its HTTP API makes of it."""

    def __init__(self, text: str, status: int = 500) -> None:
        super().__init__(text)
        self.text, self.status = text, status


@dataclass(frozen=True, slots=True)
class Registered:
    """Answer to register and deregister."""

    index: int
    eval_id: str
    eval_index: int
    job_modify_index: int


@dataclass(slots=True)
class Blocked:
    """A job's blocked evaluation and the least that it would need of a node."""

    eval_id: str
    cpu: int
    memory: int
    sequence: int
    only_constraints: bool


@dataclass(order=True, slots=True)
class Timer:
    """Something due at a time (unix ns)."""

    at: int
    sequence: int
    action: Callable[[int], None] = field(compare=False)


class Region:
    """The state, the scheduler and everything that waits."""

    def __init__(
        self, settings: AgentSettings, state: State, ids: Ids, is_port_free: Callable[[int], bool] = lambda port: True
    ) -> None:
        self.settings = settings
        self.state = state
        self.ids = ids
        self.namespaces = set(settings.namespaces)
        self.pools = {"default", "all", *(node.node_pool for node in settings.of_each_node())}
        ports = (settings.min_dynamic_port, settings.max_dynamic_port)
        self.scheduler = Scheduler(state, ids, ports, is_port_free)
        self.queue: deque[str] = deque()
        self.blocked: dict[JobKey, Blocked] = {}
        self.away: set[str] = set()
        """Nodes whose client is not heard (their TTL may still run)."""
        self._timers: list[Timer] = []
        self._sequence = itertools.count()
        self._working = False

    # -- time ---------------------------------------------------------------------------------------------------------

    def at(self, due: int, action: Callable[[int], None]) -> None:
        """Have `action(now)` called when `due` (unix ns) has come."""
        heapq.heappush(self._timers, Timer(due, next(self._sequence), action))

    def next_due(self) -> int | None:
        """When the next timer is due."""
        return self._timers[0].at if self._timers else None

    def tick(self, now: int) -> None:
        """Do what is due."""
        while self._timers and self._timers[0].at <= now:
            heapq.heappop(self._timers).action(now)
        self.work(now)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def register(self, spec: Row, enforce_index: bool, job_modify_index: int, now: int) -> Registered:
        """Register a canonical, valid job. Refused: EnforceIndex conflicts and changes of type."""
        key = (spec["Namespace"], spec["ID"])
        job = self.state.jobs.get(key)
        self._check_index(job, enforce_index, job_modify_index)
        if job is not None and job.row["Type"] != spec["Type"]:
            raise Refused(f'cannot update job from type "{job.row["Type"]}" to "{spec["Type"]}"')
        if job is not None and not self._changes(job, spec):
            # The answer's JobModifyIndex is then the job's ModifyIndex: Nomad's own quirk.
            made = self._evaluate(job.row, "job-register", "EvaluationUpdated", now, 0)
            self.work(now)
            return Registered(made["CreateIndex"], made["ID"], made["CreateIndex"], job.row["ModifyIndex"])
        row = self._write_job(job, spec, "JobRegistered", now)
        made = self._evaluate(row, "job-register", "JobRegistered", now, row["ModifyIndex"])
        self.work(now)
        return Registered(row["ModifyIndex"], made["ID"], row["ModifyIndex"], row["ModifyIndex"])

    def _check_index(self, job: Job | None, enforce: bool, wanted: int) -> None:
        if not enforce:
            return
        head = f"Enforcing job modify index {wanted}: "
        if wanted == 0 and job is not None:
            raise Refused(head + "job already exists")
        if wanted and job is None:
            raise Refused(head + "job does not exist")
        if job is not None and wanted != job.row["JobModifyIndex"]:
            raise Refused(head + f"job exists with conflicting job modify index: {job.row['JobModifyIndex']}")

    def _changes(self, job: Job, spec: Row) -> bool:
        old = {**job.row, "TaskGroups": job.task_groups()}
        return bool(job.row["Stop"]) != bool(spec["Stop"]) or not same_spec(old, spec)

    def _write_job(self, job: Job | None, spec: Row, kind: str, now: int) -> Row:
        """Write a new job or a new version."""
        txn = self.state.begin(kind, now)
        row = {
            **spec,
            "CreateIndex": job.row["CreateIndex"] if job else txn.index,
            "JobModifyIndex": txn.index,
            "Stable": False,
            "Status": job.status() if job else ("dead" if spec["Stop"] else "pending"),
            "SubmitTime": now,
            "Version": job.row["Version"] + 1 if job else 0,
            "TaskGroups": frozen(spec["TaskGroups"]),
        }
        row = txn.put_job(row)
        self.state.jobs[row["Namespace"], row["ID"]].groups = spec["TaskGroups"]
        txn.commit()
        return row

    def deregister(self, key: JobKey, purge: bool, now: int) -> Registered:
        """Stop a job, or remove it with all its allocations. An unknown job is no error and nothing happens."""
        job = self.state.jobs.get(key)
        if job is None:
            return Registered(0, "", 0, 0)
        if not purge:
            spec = {**job.row, "Stop": True, "TaskGroups": job.task_groups()}
            row = self._write_job(job, spec, "JobDeregistered", now)
        else:
            txn = self.state.begin("JobDeregistered", now)
            txn.drop_job(key)
            txn.commit()
            # Nomad makes this evaluation from the absent job: type and indexes are those of no job at all.
            row = {**job.row, "Type": "service", "ModifyIndex": txn.index, "JobModifyIndex": txn.index}
        index = row["ModifyIndex"]
        made = self._evaluate(row, "job-deregister", "JobDeregistered", now, index)
        self.work(now)
        return Registered(index, made["ID"], index, index)

    def _evaluate(self, job: Row, trigger: str, kind: str, now: int, index: int) -> Row:
        """Make an evaluation of a job, in the raft entry `index` or one of its own, and queue it."""
        made = evaluation(
            self.ids(),
            job["ID"],
            job["Namespace"],
            kind=job["Type"],
            trigger=trigger,
            priority=job["Priority"],
            now=now,
        )
        txn = self.state.begin(kind, now, index)
        made["JobModifyIndex"] = index or txn.index
        made = txn.put_eval(made)
        txn.commit()
        self.queue.append(made["ID"])
        return made

    def evaluate_jobs(self, keys: list[JobKey], trigger: str, kind: str, now: int) -> None:
        """One line with an evaluation for each job (node changes)."""
        found = [self.state.jobs[key].row for key in keys if key in self.state.jobs]
        if not found:
            return
        txn = self.state.begin(kind, now)
        for job in found:
            made = evaluation(
                self.ids(), job["ID"], job["Namespace"], kind=job["Type"], trigger=trigger, priority=job["Priority"],
                now=now, JobModifyIndex=job["JobModifyIndex"],
            )  # fmt: skip
            txn.put_eval(made)
            self.queue.append(made["ID"])
        txn.commit()

    # -- evaluations --------------------------------------------------------------------------------------------------

    def work(self, now: int) -> None:
        """Work off the queue, then give room that has become free to blocked evaluations."""
        if self._working:
            return
        self._working = True
        try:
            while self.queue:
                self._process(self.queue.popleft(), now)
                if not self.queue:
                    self._unblock()
            self._unblock()
            while self.queue:
                self._process(self.queue.popleft(), now)
        finally:
            self._working = False

    def _process(self, eval_id: str, now: int) -> None:
        row = self.state.evals.get(eval_id)
        if row is None or row["Status"] in EVAL_TERMINAL:
            return
        key = (row["Namespace"], row["JobID"])
        waiting = self.blocked.pop(key, None)
        outcome = self.scheduler.process(eval_id, now)
        for due, later_id in outcome.later:
            self.enqueue_at(due, later_id)
        if outcome.blocked:
            self._block(key, outcome.blocked)
            if waiting and waiting.eval_id not in (outcome.blocked, eval_id):
                self._cancel(waiting.eval_id, f'existing blocked evaluation exists for job "{key[1]}"', now)
        elif waiting and self.state.evals.get(waiting.eval_id, {}).get("Status") == "blocked":
            self.blocked[key] = waiting

    def enqueue_at(self, due: int, eval_id: str) -> None:
        """Queue a delayed evaluation when its time has come, unless it was cancelled meanwhile."""
        self.at(due, lambda now: self.queue.append(eval_id))

    def _cancel(self, eval_id: str, why: str, now: int) -> None:
        row = self.state.evals.get(eval_id)
        if row is None or row["Status"] in EVAL_TERMINAL:
            return
        txn = self.state.begin("EvaluationUpdated", now)
        txn.put_eval({**row, "Status": "canceled", "StatusDescription": why})
        txn.commit()

    def _block(self, key: JobKey, eval_id: str) -> None:
        job = self.state.jobs.get(key)
        asks = [group_ask(group) for group in job.task_groups()] if job else []
        metrics = self.state.evals[eval_id].get("FailedTGAllocs") or {}
        only = bool(metrics) and all(not m["NodesExhausted"] for m in metrics.values())
        cpu, memory = min((a.cpu for a in asks), default=0), min((a.memory for a in asks), default=0)
        self.blocked[key] = Blocked(eval_id, cpu, memory, next(self._sequence), only)

    def _unblock(self) -> None:
        """Queue blocked evaluations that the freed room could serve, oldest first within their priority."""
        if not self.state.capacity_freed:
            return
        self.state.capacity_freed = False
        free = self._free()
        if not free:
            return
        ready = [
            b
            for b in self.blocked.values()
            if not b.only_constraints and any(b.cpu <= c and b.memory <= m for c, m in free)
        ]
        ready.sort(key=lambda b: (-self.state.evals[b.eval_id]["Priority"], b.sequence))
        room = sum(c for c, _ in free)
        for waiting in ready:
            # Whoever comes after the room is promised away would only fail again.
            if room < waiting.cpu:
                break
            room -= waiting.cpu
            self.queue.append(waiting.eval_id)

    def _free(self) -> list[tuple[int, int]]:
        return [
            (
                n.row["NodeResources"]["Cpu"]["CpuShares"] - n.cpu,
                n.row["NodeResources"]["Memory"]["MemoryMB"] - n.memory,
            )
            for n in self.state.nodes.values()
            if n.row["Status"] == "ready" and n.row["SchedulingEligibility"] == "eligible"
        ]

    def unblock_all(self) -> None:
        """A node came or changed: every blocked evaluation is tried again."""
        ordered = sorted(self.blocked.values(), key=lambda b: (-self.state.evals[b.eval_id]["Priority"], b.sequence))
        self.queue.extend(b.eval_id for b in ordered)

    # -- plan ---------------------------------------------------------------------------------------------------------

    def plan(self, spec: Row, now: int, *, diff: bool = False) -> Row:
        """What a register would do now; nothing is written. `diff` asks whether the job changes, not for its fields."""
        current = self.state.jobs.get((spec["Namespace"], spec["ID"]))
        if current is not None and current.row["Type"] != spec["Type"]:
            raise Refused(f'cannot update job from type "{current.row["Type"]}" to "{spec["Type"]}"')
        job = Job({**spec, "Version": 0, "JobModifyIndex": 0, "CreateIndex": 0}, groups=spec["TaskGroups"])
        changed = current is not None and self._changes(current, spec)
        if current is not None:
            job.row["Version"] = current.row["Version"] + (1 if changed else 0)
            job.versions = [{**current.row, "TaskGroups": current.task_groups()}, *current.versions]
        allocs = self.state.job_allocs((spec["Namespace"], spec["ID"]))
        draft = self.scheduler.draft(job, allocs, "job-register", now)
        self.scheduler.release(draft)
        answer = self._plan_answer(spec, current, draft, now)
        if diff:
            kind = "Added" if current is None else "Edited" if changed else "None"
            answer["Diff"] = {"Type": kind, "ID": spec["ID"], "Fields": None, "Objects": None, "TaskGroups": None}
        return answer

    def _plan_answer(self, spec: Row, current: Job | None, draft: Draft, now: int) -> Row:
        failed = {name: metrics.row() for name, metrics in draft.failed.items()} or None
        blocked = evaluation(
            self.ids(), spec["ID"], spec["Namespace"], kind=spec["Type"], trigger="queued-allocs",
            priority=spec["Priority"],
            now=now, status="blocked", PreviousEval=self.ids(), FailedTGAllocs=failed,
            StatusDescription="created to place remaining allocations",
        )  # fmt: skip
        index = current.row["JobModifyIndex"] if current else 0
        return {
            "Annotations": annotations(draft.desired),
            "CreatedEvals": [blocked] if failed else None,
            "Diff": None,
            "FailedTGAllocs": failed,
            "Index": index,
            "JobModifyIndex": index,
            "NextPeriodicLaunch": None,
            "Warnings": "",
        }

    # -- after a restart ----------------------------------------------------------------------------------------------

    def resume(self, now: int) -> None:
        """Take up what the state says was going on: open evaluations, deployments, drains."""
        for row in list(self.state.evals.values()):
            if row["Status"] in EVAL_TERMINAL:
                continue
            if row["Status"] == "blocked":
                self._block((row["Namespace"], row["JobID"]), row["ID"])
            elif row.get("WaitUntil"):
                self.enqueue_at(max(now, unix_ns(row["WaitUntil"])), row["ID"])
            else:
                self.queue.append(row["ID"])
        for job in self.state.jobs.values():
            if job.row["Status"] == "dead":
                job.finished_at = max(
                    [self.state.allocs[i].row["ModifyTime"] for i in job.allocs], default=job.row["SubmitTime"]
                )
        deployments.resume(self, now)
        nodes.resume(self, now)
        collect.schedule(self, now)
