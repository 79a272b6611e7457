"""Statements on what is owed of ended attempts and what was kept of them. The tables are in `store.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, bindparam, delete, select, update

from services.monitor.keeping import Owed
from services.monitor.store import kept_logs, kept_outputs, owed
from shared.ids import AttemptId
from shared.runtime.clock import micros, moment
from shared.runtime.sql import insert_missing, upsert

_OWED: Final = select(owed).order_by(owed.c.due_at).limit(bindparam("most"))
_SETTLED: Final = delete(owed).where(owed.c.job_id == bindparam("of_job"), owed.c.attempt == bindparam("of_attempt"))


def owe(connection: Connection, keeping: Owed) -> None:
    """Note that logs and outputs of an attempt are to be fetched, at once. Noted before changes nothing."""
    row = {
        "job_id": keeping.job_id, "attempt": keeping.attempt, "cluster": keeping.cluster,
        "allocation": keeping.allocation, "task": keeping.task, "outputs": orjson.dumps(keeping.outputs).decode(),
        "since": micros(keeping.since), "tries": 0, "due_at": micros(keeping.since),
    }  # fmt: skip
    insert_missing(connection, owed, row)


def due(connection: Connection, now: datetime, limit: int) -> tuple[list[Owed], datetime | None]:
    """What is owed and due, the longest due first, and when the next one is, if that was among the first `limit`."""
    rows = connection.execute(_OWED, {"most": limit}).mappings().all()
    found = [_owed_from(row) for row in rows if row["due_at"] <= micros(now)]
    return found, moment(rows[len(found)]["due_at"]) if len(found) < len(rows) else None


def _owed_from(row: Mapping[Any, Any]) -> Owed:
    outputs = tuple((name, path) for name, path in orjson.loads(row["outputs"]))
    return Owed(
        row["job_id"], row["attempt"], row["cluster"], row["allocation"], row["task"], outputs, moment(row["since"]),
        row["tries"],
    )  # fmt: skip


def is_owed(connection: Connection, job_id: UUID) -> bool:
    """Whether something of a job is still to be fetched."""
    return connection.execute(select(owed.c.attempt).where(owed.c.job_id == str(job_id)).limit(1)).first() is not None


def put_off(connection: Connection, keeping: Owed, until: datetime) -> None:
    """Try again then."""
    mine = (owed.c.job_id == keeping.job_id) & (owed.c.attempt == keeping.attempt)
    connection.execute(update(owed).where(mine).values(tries=keeping.tries + 1, due_at=micros(until)))


@dataclass(frozen=True, slots=True)
class KeptLog:
    """The tail of a log: `start` is the offset of its first byte in the whole."""

    stream: str
    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A declared output as kept; without `data`, `problem` says why."""

    name: str
    size: int = 0
    problem: str | None = None
    data: bytes | None = None
    attempt: int = 0


def settle(connection: Connection, keeping: Owed, log_tails: Sequence[KeptLog], files: Sequence[KeptFile]) -> None:
    """Store what was fetched and owe it no more, in one."""
    key = {"job_id": keeping.job_id, "attempt": keeping.attempt}
    rows = [key | {"stream": one.stream, "start": one.start, "data": one.data} for one in log_tails]
    upsert(connection, kept_logs, rows, ["job_id", "attempt", "stream"])
    fields = [key | {"name": one.name, "size": one.size, "problem": one.problem, "data": one.data} for one in files]
    upsert(connection, kept_outputs, fields, ["job_id", "attempt", "name"])
    connection.execute(_SETTLED, {"of_job": keeping.job_id, "of_attempt": keeping.attempt})


def kept_log(connection: Connection, attempt: AttemptId, stream: str) -> KeptLog | None:
    query = select(kept_logs).where(
        kept_logs.c.job_id == str(attempt.job_id), kept_logs.c.attempt == attempt.number, kept_logs.c.stream == stream
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else KeptLog(stream, row["start"], bytes(row["data"]))


def outputs_of(connection: Connection, job_id: UUID) -> list[KeptFile]:
    """The kept outputs of all attempts without their bytes, the latest attempt first."""
    o = kept_outputs.c
    query = select(o.name, o.size, o.problem, o.attempt).where(o.job_id == str(job_id))
    rows = connection.execute(query.order_by(o.attempt.desc(), o.name))
    return [KeptFile(name, size, problem, None, attempt) for name, size, problem, attempt in rows]


def output(connection: Connection, job_id: UUID, name: str, attempt: int | None) -> KeptFile | None:
    """One kept output with its bytes: of the named attempt, or of the latest one that has it."""
    o = kept_outputs.c
    query = select(kept_outputs).where(o.job_id == str(job_id), o.name == name)
    if attempt is not None:
        query = query.where(o.attempt == attempt)
    row = connection.execute(query.order_by(o.problem.isnot(None), o.attempt.desc()).limit(1)).mappings().first()
    if row is None:
        return None
    data = None if row["data"] is None else bytes(row["data"])
    return KeptFile(row["name"], row["size"], row["problem"], data, row["attempt"])
