"""The state of one region: tables, the raft index, and the transactions that change them.

Pure: time, ids and decisions come from outside (`scheduler.py`, `region.py`). Every change goes through a `Txn`; its
`commit` gives the stream line and the journal record of exactly that change. `load` replays a record after a restart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from .jobspec import Row
from .rows import EVAL_TERMINAL, Event, Line, frozen, is_client_terminal, is_terminal, thawed

JobKey = tuple[str, str]
"""Namespace and id."""
KEPT_VERSIONS = 6
SNAPSHOT = "Snapshot"
TABLES = {
    "job": "jobs", "drop-job": "jobs", "eval": "evals", "drop-eval": "evals", "alloc": "allocs", "node": "nodes",
    "deployment": "deployment", "variable": "variables", "drop-variable": "variables",
}  # fmt: skip
"""The table that a journal operation changes."""


@dataclass(slots=True)
class Ask:
    """What an allocation takes from its node."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0
    ports: tuple[int, ...] = ()
    devices: dict[str, int] = field(default_factory=dict)

    def packed(self) -> list[Any]:
        """As kept in the journal."""
        return [self.cpu, self.memory, self.disk, list(self.ports), self.devices]

    @classmethod
    def unpacked(cls, raw: list[Any]) -> "Ask":
        """The opposite of `packed`."""
        return cls(raw[0], raw[1], raw[2], tuple(raw[3]), dict(raw[4]))


@dataclass(slots=True)
class Job:
    """A job row and what is counted about it, so that its status never needs a scan."""

    row: Row
    groups: list[Row] | None = None
    allocs: dict[str, None] = field(default_factory=dict)
    evals: dict[str, None] = field(default_factory=dict)
    live: int = 0
    open: int = 0
    versions: list[Row] = field(default_factory=list)
    deployment: str = ""
    """The active deployment's id."""
    finished_at: int = 0

    def task_groups(self) -> list[Row]:
        """The parsed groups; dropped when the job is dead and read again on demand."""
        if self.groups is None:
            self.groups = thawed(self.row["TaskGroups"]) or []
        return self.groups

    def group(self, name: str) -> Row | None:
        """One group by name."""
        return next((group for group in self.task_groups() if group["Name"] == name), None)

    def status(self) -> str:
        """Nomad's rule: running while anything is wanted and alive, pending while an evaluation is open, else dead."""
        if self.live or self.deployment:
            return "running"
        if self.open:
            return "pending"
        return "dead" if self.evals or self.allocs or self.row["Stop"] else "pending"


@dataclass(slots=True)
class Alloc:
    """An allocation row, the job version it belongs to and what it takes."""

    row: Row
    version: int
    ask: Ask


@dataclass(slots=True)
class Node:
    """A node row and what is taken on it by allocations that are not client-terminal."""

    row: Row
    cpu: int = 0
    memory: int = 0
    disk: int = 0
    ports: set[int] = field(default_factory=set)
    devices: dict[str, int] = field(default_factory=dict)
    allocs: dict[str, None] = field(default_factory=dict)

    def take(self, ask: Ask, sign: int) -> None:
        """Add (1) or give back (-1) an allocation's share."""
        self.cpu += sign * ask.cpu
        self.memory += sign * ask.memory
        self.disk += sign * ask.disk
        for name, count in ask.devices.items():
            self.devices[name] = self.devices.get(name, 0) + sign * count
        if sign > 0:
            self.ports.update(ask.ports)
        else:
            self.ports.difference_update(ask.ports)


@dataclass(slots=True)
class Commit:
    """One transaction done: its line (if any reader could care), its journal record, and whom it concerns."""

    index: int
    line: Line | None
    record: bytes
    tables: tuple[str, ...]
    allocs: tuple[str, ...]
    """Allocations the server changed or removed: clients must hear of them."""


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

    def begin(self, kind: str, now: int, index: int = 0) -> "Txn":
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


def job_event(row: Row, kind: str, index: int, *, deleted: bool = False) -> Event:
    """Topic Job. `Deleted` is there only when true."""
    payload = {"Job": row, "Deleted": True} if deleted else {"Job": row}
    return Event("Job", kind, row["ID"], row["Namespace"], None, payload, index)


def eval_event(row: Row, kind: str, index: int) -> Event:
    """Topic Evaluation."""
    keys = (row["JobID"], row.get("DeploymentID", ""))
    return Event("Evaluation", kind, row["ID"], row["Namespace"], keys, {"Evaluation": row}, index)


def alloc_event(row: Row, kind: str, index: int, more: Row | None = None) -> Event:
    """Topic Allocation; `more` are the keys beside the allocation (Timeout)."""
    keys = (row["JobID"], row.get("DeploymentID", ""))
    return Event("Allocation", kind, row["ID"], row["Namespace"], keys, {"Allocation": row, **(more or {})}, index)


def node_event(row: Row, kind: str, index: int) -> Event:
    """Topic Node."""
    return Event("Node", kind, row["ID"], "", None, {"Node": row}, index)


def deployment_event(row: Row, kind: str, index: int) -> Event:
    """Topic Deployment."""
    return Event("Deployment", kind, row["ID"], row["Namespace"], (row["JobID"],), {"Deployment": row}, index)


class Txn:
    """One transaction: rows in the order written, then the jobs whose status follows from them."""

    __slots__ = ("_allocs", "_events", "_ops", "_tables", "_touched", "index", "kind", "now", "state")

    def __init__(self, state: State, kind: str, now: int, index: int) -> None:
        self.state, self.kind, self.now, self.index = state, kind, now, index
        self._events: list[Event] = []
        self._ops: list[list[Any]] = []
        self._touched: dict[JobKey, None] = {}
        self._tables: set[str] = set()
        self._allocs: list[str] = []

    def put_job(self, row: Row) -> Row:
        """Write a job row at this index."""
        row = {**row, "ModifyIndex": self.index}
        self.state.set_job(row)
        self._note("jobs", ["job", row, None], job_event(row, self.kind, self.index))
        return row

    def put_eval(self, row: Row) -> Row:
        """Write an evaluation at this index and let its job's status follow."""
        row = {**row, "ModifyIndex": self.index}
        row.setdefault("CreateIndex", self.index)
        self.state.set_eval(row)
        self._touched[row["Namespace"], row["JobID"]] = None
        self._note("evals", ["eval", row, None], eval_event(row, self.kind, self.index))
        return row

    def put_alloc(self, alloc: Alloc, *, by_server: bool = True, more: Row | None = None) -> Alloc:
        """Write an allocation at this index; only the server's own changes move AllocModifyIndex."""
        row = {**alloc.row, "ModifyIndex": self.index, "ModifyTime": alloc.row.get("ModifyTime", self.now)}
        row.setdefault("CreateIndex", self.index)
        if by_server:
            row["AllocModifyIndex"] = self.index
            row["ModifyTime"] = self.now
            self._allocs.append(row["ID"])
        written = Alloc(row, alloc.version, alloc.ask)
        self.state.set_alloc(written)
        self._touched[row["Namespace"], row["JobID"]] = None
        op = ["alloc", row, [alloc.version, alloc.ask.packed()]]
        self._note("allocs", op, alloc_event(row, self.kind, self.index, more))
        return written

    def put_node(self, row: Row, *, keep_index: bool = False) -> Row:
        """Write a node row; a mere note of alloc updates (`keep_index`) leaves its ModifyIndex and needs no journal."""
        row = {**row} if keep_index else {**row, "ModifyIndex": self.index}
        self.state.set_node(row)
        event = node_event(row, self.kind, self.index)
        if keep_index:
            self._tables.add("nodes")
            self._events.append(event)
        else:
            self._note("nodes", ["node", row, None], event)
        return row

    def put_deployment(self, row: Row) -> Row:
        """Write a deployment at this index."""
        row = {**row, "ModifyIndex": self.index, "ModifyTime": self.now}
        row.setdefault("CreateIndex", self.index)
        self.state.set_deployment(row)
        self._touched[row["Namespace"], row["JobID"]] = None
        self._note("deployment", ["deployment", row, None], deployment_event(row, self.kind, self.index))
        return row

    def drop_job(self, key: JobKey, *, evals: bool = False, silent: bool = False) -> None:
        """Remove a job and its allocations; told only by servers that tell deletions."""
        row = self.state.jobs[key].row
        self._allocs += self.state.drop_job(key, evals=evals)
        told = self.state.tells_deletions and not silent
        event = job_event(row, self.kind, self.index, deleted=True) if told else None
        self._note("jobs", ["drop-job", list(key), evals], event)
        self._tables.add("allocs")

    def drop_eval(self, eval_id: str) -> None:
        """Remove an evaluation, in silence."""
        self.state.drop_eval(eval_id)
        self._note("evals", ["drop-eval", eval_id, None], None)

    def put_variable(self, key: tuple[str, str], told: Row) -> Row:
        """Write a variable at this index. No event tells of variables."""
        before = self.state.variables.get(key) or {"CreateIndex": self.index, "CreateTime": self.now}
        row = {
            "Namespace": key[0], "Path": key[1], "CreateIndex": before["CreateIndex"],
            "CreateTime": before["CreateTime"], "ModifyIndex": self.index, "ModifyTime": self.now, **told,
        }  # fmt: skip
        self.state.variables[key] = row
        self._note("variables", ["variable", row, None], None)
        return row

    def drop_variable(self, key: tuple[str, str]) -> None:
        """Remove a variable."""
        del self.state.variables[key]
        self._note("variables", ["drop-variable", list(key), None], None)

    def settle(self) -> None:
        """Give the touched jobs the status that follows from the rows written so far."""
        for key in self._touched:
            job = self.state.jobs.get(key)
            if job is None or job.status() == job.row["Status"]:
                continue
            if job.status() == "dead":
                job.finished_at = self.now
            self.put_job({**job.row, "Status": job.status()})
        self._touched.clear()

    def commit(self) -> Commit:
        """Close the transaction."""
        self.settle()
        for table in self._tables:
            self.state.table_index[table] = self.index
        record = orjson.dumps({"i": self.index, "t": self.kind, "o": self._ops}) if self._ops or self._events else b""
        line = Line(self.index, self._events) if self._events else None
        done = Commit(self.index, line, record, tuple(self._tables), tuple(self._allocs))
        self.state.commits.append(done)
        return done

    def _note(self, table: str, op: list[Any], event: Event | None) -> None:
        self._tables.add(table)
        self._ops.append(op)
        if event is not None:
            self._events.append(event)
