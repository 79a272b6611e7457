"""The gateway's tables and the statements of its hot paths. Larger ones: `listing.py`, `event_log.py`.

Ids are String(36), times Unix microseconds, documents ready-made JSON bytes: a read renders nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from services.gateway import job_view
from services.gateway.job_view import JobView
from shared.job import FINAL_JOB_STATES
from shared.runtime.clock import micros
from shared.runtime.sql import asked, insert_or_ignore, upsert
from shared.runtime.tables import RuntimeTables

metadata = MetaData()
runtime = RuntimeTables(metadata)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("vo", String(255), nullable=False),
    Column("owner_issuer", String(512), nullable=False),
    Column("owner_subject", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("site", String(63)),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("version", Integer, nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("summary", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Index("jobs_own", "owner_issuer", "owner_subject", "created_at", "id"),
    Index("jobs_own_state", "owner_issuer", "owner_subject", "state", "created_at", "id"),
    Index("jobs_vo", "vo", "created_at", "id"),
    Index("jobs_vo_state", "vo", "state", "created_at", "id"),
    Index("jobs_finished", "finished_at"),
)
labels = Table(
    "labels",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("value", String(255), nullable=False),
    Column("vo", String(255), nullable=False),
    Column("owner_issuer", String(512), nullable=False),
    Column("owner_subject", String(255), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("labels_own", "owner_issuer", "owner_subject", "name", "value", "created_at", "job_id"),
    Index("labels_vo", "vo", "name", "value", "created_at", "job_id"),
)
idempotency = Table(
    "idempotency",
    metadata,
    Column("owner_issuer", String(512), primary_key=True),
    Column("owner_subject", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("idempotency_age", "created_at"),
)
log = Table(
    "event_log",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("job_id", String(36)),
    Column("vo", String(255)),
    Column("owner_issuer", String(512)),
    Column("owner_subject", String(255)),
    Column("state", String(16), nullable=False),
    Column("labels", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("event_log_job", "job_id", "position"),
    Index("event_log_age", "at"),
)
log_state = Table(
    "event_log_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", String(16), nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    Column("stream_offset", BigInteger),
)
holes = Table(
    "holes",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("noticed_at", BigInteger, nullable=False),
)
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner_issuer", String(512), nullable=False),
    Column("owner_subject", String(255), nullable=False),
    Column("client", String(512), nullable=False),
    Column("token_id", String(512), nullable=False),
    Column("vo", String(255), nullable=False),
    Column("states", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("own", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(1024), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("credentials_until", BigInteger, nullable=False),
    Column("active_at", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("previous", String(40), nullable=False),
    Column("gap_reason", String(16), nullable=False),
    Column("gap_behind", String(64), nullable=False),
    Column("admitted", Boolean, nullable=False),
    Column("ended_at", BigInteger),
    Column("cleared", Boolean, nullable=False),
    Index("subscriptions_own", "owner_issuer", "owner_subject", "created_at"),
    Index("subscriptions_state", "state", "vo"),
)
TABLES: Final = (jobs, labels, idempotency, log, log_state, holes)

_HOT: Final = select(jobs.c.version, jobs.c.vo, jobs.c.owner_issuer, jobs.c.owner_subject, jobs.c.body).where(
    jobs.c.id == bindparam("job")
)
_VIEW: Final = select(jobs.c.id, jobs.c.version, jobs.c.body).where(jobs.c.id == bindparam("job"))
_VIEWS: Final = select(jobs.c.id, jobs.c.version, jobs.c.body).where(jobs.c.id.in_(bindparam("ids", expanding=True)))
_FEW: Final = 8
"""So many point reads cost less than one statement with a list, which is made anew for each length."""
_SPEC: Final = select(jobs.c.spec, jobs.c.spec_digest).where(jobs.c.id == bindparam("job"))
_ADD: Final = insert(jobs)
_ADD_LABELS: Final = insert(labels)
_MOVED: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values({name: bindparam(name) for name in ("state", "site", "version", "finished_at", "summary", "body")})
)
_KEY: Final = select(idempotency.c.request_hash, idempotency.c.answer).where(
    idempotency.c.owner_issuer == bindparam("issuer"),
    idempotency.c.owner_subject == bindparam("subject"),
    idempotency.c.key == bindparam("key"),
)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What an Idempotency-Key was used for, and what was answered."""

    request_hash: str
    answer: bytes


class HotRow(NamedTuple):
    """What is needed to answer for one job."""

    version: int
    vo: str
    owner_issuer: str
    owner_subject: str
    body: bytes


def hot_row(connection: Connection, job_id: str) -> HotRow | None:
    """A job by its primary key."""
    row = connection.execute(_HOT, {"job": job_id}).first()
    return None if row is None else HotRow._make(row)


def spec_of(connection: Connection, job_id: str) -> tuple[bytes, str] | None:
    """The full spec (JSON) of a job, and its digest."""
    row = connection.execute(_SPEC, {"job": job_id}).first()
    return None if row is None else (bytes(row[0]), str(row[1]))


def views(
    connection: Connection, job_ids: Sequence[str], known: Mapping[str, JobView] | None = None
) -> dict[str, JobView]:  # fmt: skip
    """The views of those of the jobs that there are, by id. `known` are committed ones, taken if still the newest."""
    if len(job_ids) <= _FEW:
        answers = [asked(connection, _VIEW, {"job": job_id}) for job_id in job_ids]
        found = [row for answer in answers for row in answer()]
    else:
        found = list(connection.execute(_VIEWS, {"ids": list(job_ids)}))
    return {row.id: _view(row, (known or {}).get(row.id)) for row in found}


def _view(row: Any, known: JobView | None) -> JobView:
    if known is not None and known.version == row.version:
        return known
    return JobView.model_validate_json(row.body)


class NewJob(NamedTuple):
    """The rows of a new job, made before the transaction that writes them: rendering takes longer than writing."""

    job: dict[str, object]
    labels: list[dict[str, object]]
    body: bytes
    """What is shown of it, as it is stored."""


def new_job(view: JobView, spec: bytes) -> NewJob:
    """The rows of a job with its full spec, as `job_view.spec_document` writes it."""
    body = _document(view)
    labels = [_label_row(view, name, value) for name, value in view.labels.items()]
    return NewJob(_job_row(view, body, spec), labels, body)


def add_jobs(connection: Connection, added: Sequence[NewJob]) -> None:
    """Insert new jobs. Raises IntegrityError when an id is taken."""
    connection.execute(_ADD, [new.job for new in added])
    rows = [row for new in added for row in new.labels]
    if rows:
        connection.execute(_ADD_LABELS, rows)


def save_views(connection: Connection, changed: Sequence[JobView]) -> None:
    """Overwrite what is shown of these jobs."""
    if changed:
        connection.execute(_MOVED, [{"job": str(view.id), **_shown(view, _document(view))} for view in changed])


def stored_answer(connection: Connection, issuer: str, subject: str, key: str) -> StoredAnswer | None:
    """What this user's key was used for before."""
    row = connection.execute(_KEY, {"issuer": issuer, "subject": subject, "key": key}).first()
    return None if row is None else StoredAnswer(row[0], bytes(row[1]))


def keep_answer(
    connection: Connection, issuer: str, subject: str, key: str, request_hash: str, answer: bytes, at: int
) -> bool:
    """Store a key with its answer; False when it is there already."""
    row = {
        "owner_issuer": issuer, "owner_subject": subject, "key": key, "request_hash": request_hash, "answer": answer,
        "created_at": at,
    }  # fmt: skip
    return insert_or_ignore(connection, idempotency, row)


def _job_row(view: JobView, body: bytes, spec: bytes) -> dict[str, object]:
    return {
        "id": str(view.id), "vo": view.vo, "owner_issuer": view.owner.issuer, "owner_subject": view.owner.subject,
        "created_at": micros(view.created_at), "spec_digest": job_view.digest_of(spec), "spec": spec,
        **_shown(view, body),
    }  # fmt: skip


def _document(view: JobView) -> bytes:
    return view.model_dump_json().encode()


def _shown(view: JobView, body: bytes) -> dict[str, object]:
    final = view.state in FINAL_JOB_STATES and view.finished_at is not None
    return {
        "state": view.state.value, "site": view.site, "version": view.version,
        "finished_at": micros(view.finished_at) if final and view.finished_at else None,
        "summary": view.model_dump_json(exclude={"spec", "attempts"}).encode(),
        "body": body,
    }  # fmt: skip


def _label_row(view: JobView, name: str, value: str) -> dict[str, object]:
    return {
        "job_id": str(view.id), "name": name, "value": value, "vo": view.vo, "owner_issuer": view.owner.issuer,
        "owner_subject": view.owner.subject, "created_at": micros(view.created_at),
    }  # fmt: skip


class Hole(NamedTuple):
    """Events of a series are missing; `noticed_at` moves whenever that is noticed again."""

    job_id: str
    series: int
    noticed_at: int


def note_holes(connection: Connection, noticed: Sequence[tuple[str, int]], at: int) -> None:
    """Remember series with a hole."""
    rows = [{"job_id": job_id, "attempt": series, "noticed_at": at} for job_id, series in noticed]
    upsert(connection, holes, rows, ["job_id", "attempt"])


def open_holes(connection: Connection) -> list[Hole]:
    """Every series with a hole, oldest first."""
    found = connection.execute(select(holes.c.job_id, holes.c.attempt, holes.c.noticed_at).order_by(holes.c.noticed_at))
    return [Hole._make(row) for row in found]


def forget_hole(connection: Connection, hole: Hole) -> None:
    """It is filled; kept when it was noticed again meanwhile."""
    connection.execute(
        delete(holes).where(
            holes.c.job_id == hole.job_id, holes.c.attempt == hole.series, holes.c.noticed_at == hole.noticed_at
        )
    )


def forget_keys(connection: Connection, before: int) -> int:
    """Delete idempotency keys older than `before` (microseconds); how many."""
    return connection.execute(delete(idempotency).where(idempotency.c.created_at < before)).rowcount


def forget_jobs(connection: Connection, before: int, limit: int) -> int:
    """Delete up to `limit` jobs that ended before `before` (microseconds), with their labels; how many."""
    old = select(jobs.c.id).where(jobs.c.finished_at < before).order_by(jobs.c.finished_at).limit(limit)
    ids = list(connection.execute(old).scalars())
    connection.execute(delete(labels).where(labels.c.job_id.in_(ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
    return len(ids)
