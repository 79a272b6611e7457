"""The monitor's tables and every statement on them. Ids String(36), times Unix microseconds, documents JSON text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
    tuple_,
    update,
)

from services.monitor import evidence
from services.monitor.attempts import AttemptRecord, Identity
from services.monitor.site_health import Health, Standing
from shared.ids import AttemptId
from shared.job import AttemptStatus
from shared.runtime.clock import micros, moment
from shared.runtime.sql import asked, upsert
from shared.runtime.tables import RuntimeTables
from shared.site import SiteCapacity

metadata = MetaData()
runtime = RuntimeTables(metadata)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("vo", String(255), nullable=False),
    Column("site", String(63), nullable=False),
    Column("cluster", String(255), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("status", String(16)),
    Column("live", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("says", String(64), nullable=False),
    Column("late", String(16)),
    Column("outputs", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("phase_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("attempts_live", "cluster", "live"),
    Index("attempts_ended", "ended_at"),
)
"""One row an attempt. `phase_at` is when it got its status, `ended_at` when it got its outcome."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("cluster", String(255), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
owed = Table(
    "owed_keeping",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("cluster", String(255), nullable=False),
    Column("allocation", String(36), nullable=False),
    Column("task", String(255), nullable=False),
    Column("outputs", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Index("owed_keeping_due", "due_at"),
)
kept_logs = Table(
    "kept_logs",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("stream", String(6), primary_key=True),
    Column("start", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
kept_outputs = Table(
    "kept_outputs",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("size", Integer, nullable=False),
    Column("problem", String(16)),
    Column("data", LargeBinary),
)
sites = Table(
    "sites",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("occurrence", BigInteger, nullable=False),
    Column("standing", String(16), nullable=False),
    Column("since", BigInteger),
    Column("error", Text, nullable=False),
    Column("capacity", Text),
    Column("observed_at", BigInteger),
)
TABLES: Final = (attempts, checkpoints, owed, kept_logs, kept_outputs, sites)

# -- attempts -----------------------------------------------------------------------------------------------------


def row_of(record: AttemptRecord) -> dict[str, Any]:
    """The columns that a record fills."""
    identity = record.identity
    return {
        "job_id": str(identity.attempt.job_id), "attempt": identity.attempt.number, "vo": identity.vo,
        "site": identity.site, "cluster": identity.cluster, "namespace": identity.namespace,
        "status": record.status, "live": int(record.live), "sequence": record.sequence, "says": record.says,
        "late": record.late, "outputs": orjson.dumps(identity.outputs).decode(),
        "evidence": orjson.dumps(record.evidence, default=_plain).decode(),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)


def record_from(row: Mapping[Any, Any]) -> AttemptRecord:
    """The inverse of `row_of`."""
    outputs = tuple((name, path) for name, path in orjson.loads(row["outputs"]))
    attempt = AttemptId(UUID(row["job_id"]), row["attempt"])
    return AttemptRecord(
        Identity(attempt, row["vo"], row["site"], row["cluster"], row["namespace"], outputs),
        AttemptStatus(row["status"]) if row["status"] else None,
        row["sequence"],
        row["says"],
        AttemptStatus(row["late"]) if row["late"] else None,
        evidence.from_json(orjson.loads(row["evidence"])),
    )


_BY_KEYS = select(attempts).where(tuple_(attempts.c.job_id, attempts.c.attempt).in_(bindparam("keys", expanding=True)))
_BY_KEY = select(attempts).where(attempts.c.job_id == bindparam("job_id"), attempts.c.attempt == bindparam("number"))
_FEW = 16
_KNOWN = select(attempts.c.job_id, attempts.c.attempt).where(
    tuple_(attempts.c.job_id, attempts.c.attempt).in_(bindparam("keys", expanding=True))
)
_LIVE = select(attempts).where(attempts.c.cluster == bindparam("cluster"), attempts.c.live == 1)
_OF_JOB = select(attempts).where(attempts.c.job_id == bindparam("job_id")).order_by(attempts.c.attempt.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as stored, and since when it has its status."""

    record: AttemptRecord
    phase_at: datetime


def records(connection: Connection, wanted: Iterable[AttemptId]) -> dict[AttemptId, Kept]:
    """Records by attempt; unknown ones are left out."""
    keys = [(str(attempt.job_id), attempt.number) for attempt in wanted]
    rows = (row._mapping for row in _rows(connection, keys))
    found = (Kept(record_from(row), moment(row["phase_at"])) for row in rows)
    return {kept.record.identity.attempt: kept for kept in found}


def _rows(connection: Connection, keys: Sequence[tuple[str, int]]) -> list[Row[Any]]:
    """Of few by key, which is prepared; of many with a list of values, which is not."""
    if len(keys) > _FEW:
        return list(connection.execute(_BY_KEYS, {"keys": keys}))
    answers = [asked(connection, _BY_KEY, {"job_id": job_id, "number": number}) for job_id, number in keys]
    return [row for answer in answers for row in answer()]


def known(connection: Connection, wanted: Iterable[AttemptId]) -> set[AttemptId]:
    """Which of these attempts have a record."""
    keys = [(str(attempt.job_id), attempt.number) for attempt in wanted]
    rows = connection.execute(_KNOWN, {"keys": keys}) if keys else ()
    return {AttemptId(UUID(job_id), attempt) for job_id, attempt in rows}


def live_records(connection: Connection, cluster: str) -> list[AttemptRecord]:
    """Every attempt of a cluster that has no outcome."""
    return [record_from(dict(row)) for row in connection.execute(_LIVE, {"cluster": cluster}).mappings()]


def record_of(connection: Connection, job_id: UUID, attempt: int | None = None) -> AttemptRecord | None:
    """The record of an attempt, of the latest one when none is named."""
    if attempt is not None:
        kept = records(connection, [AttemptId(job_id, attempt)]).get(AttemptId(job_id, attempt))
        return None if kept is None else kept.record
    row = connection.execute(_OF_JOB, {"job_id": str(job_id)}).mappings().first()
    return None if row is None else record_from(dict(row))


@dataclass(frozen=True, slots=True)
class Saved:
    """A record to store; `moved` = its status is another than before, `ended` = it got its outcome just now."""

    record: AttemptRecord
    moved: bool
    ended: bool


def save(connection: Connection, changed: Sequence[Saved], now: datetime) -> None:
    """Write records; times of phase and end only where they changed."""
    at = micros(now)
    groups: dict[tuple[bool, bool], list[dict[str, Any]]] = {}
    for one in changed:
        times = ({"phase_at": at} if one.moved else {}) | ({"ended_at": at} if one.ended else {})
        groups.setdefault((one.moved, one.ended), []).append(row_of(one.record) | times)
    for (moved, _), rows in groups.items():
        if moved:
            upsert(connection, attempts, rows, ["job_id", "attempt"])
        else:
            _update(connection, rows)


_UPDATE = (
    update(attempts)
    .where(attempts.c.job_id == bindparam("key_job"), attempts.c.attempt == bindparam("key_attempt"))
    .values(evidence=bindparam("new_evidence"), sequence=bindparam("new_sequence"), says=bindparam("new_says"),
            late=bindparam("new_late"))
)  # fmt: skip


def _update(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """A record whose status is as before changes in these only (and one that is new always has moved)."""
    values = [
        {"key_job": row["job_id"], "key_attempt": row["attempt"]}
        | {f"new_{name}": row[name] for name in ("evidence", "sequence", "says", "late")}
        for row in rows
    ]
    connection.execute(_UPDATE, values if len(values) > 1 else values[0])


def living_by_site(connection: Connection, cluster: str) -> dict[str, int]:
    """How many attempts without an outcome each site of a cluster has."""
    query = select(attempts.c.site, func.count()).where(attempts.c.cluster == cluster, attempts.c.live == 1)
    return {row[0]: row[1] for row in connection.execute(query.group_by(attempts.c.site))}


def vos_at(connection: Connection, cluster: str, site: str) -> list[str]:
    """The VOs that have live attempts at a site."""
    query = select(attempts.c.vo).where(attempts.c.cluster == cluster, attempts.c.live == 1, attempts.c.site == site)
    return sorted(connection.execute(query.distinct()).scalars())


# -- checkpoints --------------------------------------------------------------------------------------------------


def checkpoint(connection: Connection, cluster: str) -> int:
    """Index of the last line whose effects are stored; 0 before the first."""
    query = select(checkpoints.c.position).where(checkpoints.c.cluster == cluster)
    return connection.execute(query).scalar() or 0


def set_checkpoint(connection: Connection, cluster: str, position: int) -> None:
    upsert(connection, checkpoints, {"cluster": cluster, "position": position}, ["cluster"])


# -- sites --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site as the monitor last told of it. `occurrence` is the number of its last event."""

    name: str
    occurrence: int = 0
    health: Health = field(default_factory=Health)
    capacity: SiteCapacity | None = None
    observed_at: datetime | None = None


_SITE = select(sites).where(sites.c.name == bindparam("of_name"))


def site(connection: Connection, name: str) -> SiteRow:
    """A site's row, an empty one for a new site. The row of hysteresis is not kept: it begins anew."""
    row = connection.execute(_SITE, {"of_name": name}).mappings().first()
    if row is None:
        return SiteRow(name)
    since = None if row["since"] is None else moment(row["since"])
    capacity = None if row["capacity"] is None else SiteCapacity.model_validate_json(row["capacity"])
    observed_at = None if row["observed_at"] is None else moment(row["observed_at"])
    return SiteRow(
        name, row["occurrence"], Health(Standing(row["standing"]), since, row["error"]), capacity, observed_at
    )


def save_site(connection: Connection, row: SiteRow) -> None:
    values = {
        "name": row.name, "occurrence": row.occurrence, "standing": row.health.standing.value,
        "since": None if row.health.since is None else micros(row.health.since), "error": row.health.error,
        "capacity": None if row.capacity is None else row.capacity.model_dump_json(),
        "observed_at": None if row.observed_at is None else micros(row.observed_at),
    }  # fmt: skip
    upsert(connection, sites, values, ["name"])


# -- retention ----------------------------------------------------------------------------------------------------


def forget_ended(connection: Connection, before: datetime, limit: int) -> int:
    """Delete attempts that ended before then, with their events, logs and outputs; how many."""
    query = select(attempts.c.job_id, attempts.c.attempt).where(attempts.c.ended_at < micros(before)).limit(limit)
    keys = [tuple(row) for row in connection.execute(query)]
    if not keys:
        return 0
    outbox = runtime.outbox
    for table in (kept_logs, kept_outputs, owed, outbox, attempts):
        connection.execute(delete(table).where(tuple_(table.c.job_id, table.c.attempt).in_(keys)))
    return len(keys)


def forget_site_messages(connection: Connection, before: datetime) -> None:
    """Delete published messages that belong to no series (site events and copies for the scheduler)."""
    outbox, cursor = runtime.outbox, runtime.relay_cursor
    published = select(func.coalesce(func.max(cursor.c.position), 0)).scalar_subquery()
    old = (outbox.c.job_id.is_(None), outbox.c.created_at < micros(before), outbox.c.position <= published)
    connection.execute(delete(outbox).where(*old))
