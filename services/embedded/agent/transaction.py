"""One transaction on a region's state: rows written in order, the line and the journal record that tell of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from .entities import Alloc, JobKey
from .jobspec import Row
from .rows import Event, Line
from .telling import alloc_event, deployment_event, eval_event, job_event, node_event

if TYPE_CHECKING:
    from .state import State


@dataclass(slots=True)
class Commit:
    """One transaction done: its line (if any reader could care), its journal record, and whom it concerns."""

    index: int
    line: Line | None
    record: bytes
    tables: tuple[str, ...]
    allocs: tuple[str, ...]
    """Allocations the server changed or removed: clients must hear of them."""


class Txn:
    """One transaction: rows in the order written, then the jobs whose status follows from them."""

    __slots__ = ("_allocs", "_events", "_ops", "_tables", "_touched", "index", "kind", "now", "state")

    def __init__(self, state: "State", kind: str, now: int, index: int) -> None:
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
