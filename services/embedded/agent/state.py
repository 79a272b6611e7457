"""The state of one region: tables, the raft index, and the writing of rows, in transactions and in replay alike.

Pure: time, ids and decisions come from outside (`scheduler.py`, `region.py`). Every change goes through a `Txn`; its
`commit` gives the stream line and the journal record of exactly that change. `load` replays a record after a restart.
"""

from collections.abc import Iterable
from typing import Any

from .entities import Alloc, Ask, Job, JobKey, Node
from .jobspec import Row
from .rows import EVAL_TERMINAL, Event, Line, frozen, is_client_terminal, is_terminal
from .telling import alloc_event, deployment_event, eval_event, job_event, node_event
from .transaction import Commit, Txn

KEPT_VERSIONS = 6
SNAPSHOT = "Snapshot"
TABLES = {
    "job": "jobs", "drop-job": "jobs", "eval": "evals", "drop-eval": "evals", "alloc": "allocs", "node": "nodes",
    "deployment": "deployment", "variable": "variables", "drop-variable": "variables",
}  # fmt: skip
"""The table that a journal operation changes."""


class State:
    """All tables of the region. `commits` collects what was done until somebody takes it (`take_commits`)."""

    def __init__(self, *, tells_deletions: bool = True) -> None:
        self.tells_deletions = tells_deletions
        self.index = 0
        self.table_index: dict[str, int] = {}
        self.jobs: dict[JobKey, Job] = {}
        self.evals: dict[str, Row] = {}
        self.allocs: dict[str, Alloc] = {}
        self.nodes: dict[str, Node] = {}
        self.deployments: dict[str, Row] = {}
        self.variables: dict[tuple[str, str], Row] = {}
        """By namespace and path; `Data` is sealed."""
        self.finished: dict[JobKey, None] = {}
        """Dead jobs, the longest dead first."""
        self.capacity_freed = False
        self.commits: list[Commit] = []

    def begin(self, kind: str, now: int, index: int = 0) -> Txn:
        """A transaction of Nomad's message type `kind`; `index` joins it to the raft entry before (register)."""
        if not index:
            self.index += 1
        return Txn(self, kind, now, index or self.index)

    def take_commits(self) -> list[Commit]:
        """What was committed since last asked."""
        done, self.commits = self.commits, []
        return done

    def job_of(self, row: Row) -> Job | None:
        """The job an evaluation, allocation or deployment row belongs to."""
        return self.jobs.get((row["Namespace"], row["JobID"]))

    def job_allocs(self, key: JobKey) -> list[Alloc]:
        """Allocations of a job, oldest first."""
        job = self.jobs.get(key)
        return [self.allocs[i] for i in job.allocs] if job else []

    # -- writing rows: used by transactions and by replay alike --------------------------------------------------

    def set_job(self, row: Row) -> None:
        """Write a job row; a new version keeps the one before."""
        key = (row["Namespace"], row["ID"])
        job = self.jobs.get(key)
        if job is None:
            job = self.jobs[key] = Job(row)
        elif job.row["Version"] != row["Version"]:
            job.versions = [job.row, *job.versions][: KEPT_VERSIONS - 1]
            job.groups = None
        job.row = row
        if row["Status"] == "dead":
            job.groups = None
            self.finished.setdefault(key)
        else:
            self.finished.pop(key, None)

    def set_eval(self, row: Row) -> None:
        """Write an evaluation row and keep its job's count of open ones."""
        old = self.evals.get(row["ID"])
        self.evals[row["ID"]] = row
        if job := self.job_of(row):
            job.evals[row["ID"]] = None
            job.open += (row["Status"] not in EVAL_TERMINAL) - (old is not None and old["Status"] not in EVAL_TERMINAL)

    def set_alloc(self, alloc: Alloc) -> None:
        """Write an allocation, keep its job's count of live ones and its node's totals."""
        row = alloc.row
        old = self.allocs.get(row["ID"])
        self.allocs[row["ID"]] = alloc
        if job := self.job_of(row):
            job.allocs[row["ID"]] = None
            job.live += (not is_terminal(row)) - (old is not None and not is_terminal(old.row))
        held = old is not None and not is_client_terminal(old.row)
        holds = not is_client_terminal(row)
        node = self.nodes.get(row["NodeID"])
        if node is None:
            return
        node.allocs[row["ID"]] = None
        if held != holds:
            node.take(alloc.ask, 1 if holds else -1)
            self.capacity_freed = self.capacity_freed or held

    def set_node(self, row: Row) -> None:
        """Write a node row."""
        node = self.nodes.get(row["ID"])
        if node is None:
            self.nodes[row["ID"]] = Node(row)
        else:
            node.row = row

    def set_deployment(self, row: Row) -> None:
        """Write a deployment; while active it keeps its job running."""
        self.deployments[row["ID"]] = row
        if job := self.job_of(row):
            active = row["Status"] in ("running", "paused", "pending", "blocked")
            if active:
                job.deployment = row["ID"]
            elif job.deployment == row["ID"]:
                job.deployment = ""

    def drop_job(self, key: JobKey, *, evals: bool) -> list[str]:
        """Remove a job and its allocations (and evaluations, when collected); the ids of the allocations."""
        job = self.jobs.pop(key)
        self.finished.pop(key, None)
        for alloc_id in job.allocs:
            self._drop_alloc(alloc_id)
        if evals:
            for eval_id in job.evals:
                self.evals.pop(eval_id, None)
        for deployment_id in [i for i, d in self.deployments.items() if (d["Namespace"], d["JobID"]) == key]:
            del self.deployments[deployment_id]
        return list(job.allocs)

    def _drop_alloc(self, alloc_id: str) -> None:
        alloc = self.allocs.pop(alloc_id)
        if node := self.nodes.get(alloc.row["NodeID"]):
            node.allocs.pop(alloc_id, None)
            if not is_client_terminal(alloc.row):
                node.take(alloc.ask, -1)
                self.capacity_freed = True

    def drop_eval(self, eval_id: str) -> None:
        """Remove a terminal evaluation that outlived its job."""
        row = self.evals.pop(eval_id, None)
        if row and (job := self.job_of(row)):
            job.evals.pop(eval_id, None)

    # -- replay ---------------------------------------------------------------------------------------------------

    def load(self, record: Row) -> Line | None:
        """Apply a journal record as it was committed; the line it made then (told again with the old payloads)."""
        index, kind = record["i"], record["t"]
        self.index = max(self.index, index)
        events = []
        for op, row, extra in record["o"]:
            if op in TABLES and kind != SNAPSHOT:
                self.table_index[TABLES[op]] = index
            if (event := self._load_one(op, row, extra, kind, index)) and kind != SNAPSHOT:
                events.append(event)
        return Line(index, events) if events else None

    def _load_one(self, op: str, row: Any, extra: Any, kind: str, index: int) -> Event | None:
        if op == "job":
            self.set_job({**row, "TaskGroups": frozen(row["TaskGroups"])})
            return job_event(self.jobs[row["Namespace"], row["ID"]].row, kind, index)
        if op == "eval":
            self.set_eval(row)
            return eval_event(row, kind, index)
        if op == "alloc":
            self.set_alloc(Alloc(row, extra[0], Ask.unpacked(extra[1])))
            return alloc_event(row, kind, index)
        if op == "node":
            self.set_node(row)
            return node_event(row, kind, index)
        if op == "deployment":
            self.set_deployment(row)
            return deployment_event(row, kind, index)
        if op == "drop-job":
            dropped = self.jobs.get((row[0], row[1]))
            if dropped:
                self.drop_job((row[0], row[1]), evals=extra)
                return job_event(dropped.row, kind, index, deleted=True) if self.tells_deletions else None
        if op == "drop-eval":
            self.drop_eval(row)
        if op == "variable":
            self.variables[row["Namespace"], row["Path"]] = row
        if op == "drop-variable":
            self.variables.pop((row[0], row[1]), None)
        if op == "table":
            self.table_index.update(row)
        return None

    def snapshot_ops(self) -> Iterable[list[Any]]:
        """The whole state as the operations that rebuild it; in an order that keeps the counts right."""
        yield ["table", self.table_index, None]
        for node in self.nodes.values():
            yield ["node", node.row, None]
        for job in self.jobs.values():
            for version in reversed(job.versions):
                yield ["job", version, None]
            yield ["job", job.row, None]
        for row in self.evals.values():
            yield ["eval", row, None]
        for alloc in self.allocs.values():
            yield ["alloc", alloc.row, [alloc.version, alloc.ask.packed()]]
        for row in self.deployments.values():
            yield ["deployment", row, None]
        for row in self.variables.values():
            yield ["variable", row, None]
