"""The statements on jobs, their attempts and the owed calls. On the queue and the sites: `queue_store.py`.

Bodies of `Store.transact` and `Store.read` call these; a save is a compare-and-set on the job's revision, so that a
sequence number is never given twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, Table, bindparam, delete, insert, select, update

from services.scheduler import rows, tables
from services.scheduler.deadlines import Graces
from services.scheduler.decisions import Call
from services.scheduler.records import Attempt, Job, Standing
from services.scheduler.tables import TABLES, attempts, cancels_waiting, cordons, jobs, metadata, owed, runtime, sites
from shared.contracts.commands import CancelJob, Principal
from shared.errors import Unavailable
from shared.ids import JobId
from shared.runtime.clock import micros, moment
from shared.runtime.sql import in_places, insert_missing, places, size_for, upsert

__all__ = ["TABLES", "metadata", "runtime", "tables"]

WITH_ATTEMPT: Final = select(jobs, *(column.label(f"a_{column.name}") for column in attempts.columns)).select_from(
    jobs.outerjoin(attempts, (attempts.c.job_id == jobs.c.id) & (attempts.c.number == jobs.c.attempt))
)
"""A job and its latest attempt in one row, as `rows.job_of` reads it."""

_BY_ID: Final = WITH_ATTEMPT.where(jobs.c.id == bindparam("job_id"))
_INSERT: Final = insert(jobs)
_INSERT_ATTEMPT: Final = insert(attempts)
_CANCEL_OF: Final = select(cancels_waiting).where(cancels_waiting.c.job_id == bindparam("job_id"))
_KNOWN: Final = select(jobs.c.id).where(jobs.c.id == bindparam("job_id"))
_ONE_ATTEMPT: Final = select(attempts).where(
    attempts.c.job_id == bindparam("job_id"), attempts.c.number == bindparam("attempt_number")
)
_NOT_OWED: Final = delete(owed).where(
    owed.c.job_id == bindparam("of_job"), owed.c.number == bindparam("of_number"), owed.c.call == bindparam("of_call")
)
_OWED_AGAIN: Final = (
    update(owed)
    .where(
        owed.c.job_id == bindparam("of_job"),
        owed.c.number == bindparam("of_number"),
        owed.c.call == bindparam("of_call"),
    )
    .values(due_at=bindparam("again_at"), tries=bindparam("made"), last_error=bindparam("error"))
)


FIRST_REVISION: Final = 1


class Raced(Unavailable):
    """Somebody else saved the job meanwhile: read it again and decide again."""


def _assignments(table: Table, names: Sequence[str]) -> dict[str, Any]:
    return {name: bindparam(f"new_{name}") for name in names}


_FIXED = ("id", "vo", "owner_issuer", "owner_subject", "owner_name", "spec", "precedence", "submitted_at",
          "client", "token_id", "millicores")  # fmt: skip
_MOVING = [column.name for column in jobs.columns if column.name not in _FIXED]
_SAVE: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("of_job"), jobs.c.revision == bindparam("was"))
    .values(_assignments(jobs, _MOVING))
)
_NEVER_CHANGES = {"job_id", "number", "site", "cluster", "namespace", "nonce", "fence", "placed_at"}
_ATTEMPT_MOVES = [column.name for column in attempts.columns if column.name not in _NEVER_CHANGES]
_SAVE_ATTEMPT: Final = (
    update(attempts)
    .where(attempts.c.job_id == bindparam("of_job"), attempts.c.number == bindparam("of_number"))
    .values(_assignments(attempts, _ATTEMPT_MOVES))
)


# -- jobs and attempts --------------------------------------------------------------------------------------------


def known(connection: Connection, job_id: JobId) -> bool:
    return connection.execute(_KNOWN, {"job_id": str(job_id)}).first() is not None


def load(connection: Connection, job_id: JobId) -> Job | None:
    """The job with its latest attempt."""
    row = connection.execute(_BY_ID, {"job_id": str(job_id)}).mappings().first()
    return None if row is None else rows.job_of(row)


def insert_job(connection: Connection, job: Job, graces: Graces) -> None:
    """A job that was not there before."""
    values = rows.fixed_columns(job) | rows.moving_columns(job, graces)
    connection.execute(_INSERT, values | {"revision": FIRST_REVISION})


def save(connection: Connection, before: Job, after: Job, graces: Graces) -> Callable[[], None]:
    """Write what changed. What is given back is called before the transaction ends: it raises Raced when the job was
    not as in `before`. Later, because on PostgreSQL the outcome of a write comes with the next answer.
    """
    moved = rows.moving_columns(after, graces) | {"revision": before.revision + 1}
    values = {f"new_{name}": value for name, value in moved.items()}
    saved = connection.execute(_SAVE, {"of_job": str(before.id), "was": before.revision, **values})
    if after.attempt is not None and after.attempt != before.attempt:
        _save_attempt(connection, before, after.id, after.attempt)

    def check() -> None:
        if saved.rowcount != 1:
            raise Raced(f"job {before.id} was changed by another copy of the service", code="raced")

    return check


def unchanged(connection: Connection, read: Sequence[Job]) -> frozenset[JobId]:
    """Which of these jobs, read before this transaction, are still as they were."""
    if not read:
        return frozenset()
    found = connection.execute(_revisions(size_for(len(read))), in_places("id", [str(job.id) for job in read]))
    revisions = {row.id: row.revision for row in found}
    return frozenset(job.id for job in read if revisions.get(str(job.id)) == job.revision)


@lru_cache(maxsize=16)
def _revisions(size: int) -> Select[Any]:
    return select(jobs.c.id, jobs.c.revision).where(jobs.c.id.in_(places("id", size)))


def _save_attempt(connection: Connection, before: Job, job_id: JobId, attempt: Attempt) -> None:
    values = rows.attempt_columns(job_id, attempt)
    if before.number != attempt.number:
        connection.execute(_INSERT_ATTEMPT, values)
        return
    moved = {f"new_{name}": values[name] for name in _ATTEMPT_MOVES}
    connection.execute(_SAVE_ATTEMPT, {"of_job": str(job_id), "of_number": attempt.number, **moved})


def attempt(connection: Connection, job_id: JobId, number: int) -> Attempt | None:
    """Any attempt of a job, not only the latest."""
    found = connection.execute(_ONE_ATTEMPT, {"job_id": str(job_id), "attempt_number": number}).mappings().first()
    return None if found is None else rows.attempt_of(found)


def set_standing(connection: Connection, job_id: JobId, number: int, standing: Standing, now: datetime) -> None:
    """Put an older attempt where it belongs; the latest one is saved with its job."""
    values: dict[str, Any] = {"standing": standing.value}
    if standing is Standing.ENDED:
        values["ended_at"] = micros(now)
    where = (attempts.c.job_id == str(job_id), attempts.c.number == number)
    connection.execute(update(attempts).where(*where).values(values))


# -- owed calls ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwedCall:
    """One call that is owed, and how often it was tried."""

    job_id: JobId
    number: int
    call: Call
    cluster: str
    namespace: str
    tries: int
    owed_since: datetime

    @property
    def key(self) -> tuple[JobId, int, Call]:
        return self.job_id, self.number, self.call


def owe(
    connection: Connection, job_id: JobId, number: int, call: Call, *, cluster: str, namespace: str, now: datetime
) -> None:
    """Remember a call; nothing happens when it is owed already."""
    row = {
        "job_id": str(job_id), "number": number, "call": call.value, "cluster": cluster, "namespace": namespace,
        "due_at": micros(now), "owed_since": micros(now), "tries": 0, "last_error": None,
    }  # fmt: skip
    insert_missing(connection, owed, row)


def drop_owed(connection: Connection, job_id: JobId, number: int, call: Call) -> None:
    connection.execute(_NOT_OWED, {"of_job": str(job_id), "of_number": number, "of_call": call.value})


def owe_later(connection: Connection, what: OwedCall, at: datetime, error: str) -> None:
    """It was tried and is to be tried again at `at`."""
    connection.execute(
        _OWED_AGAIN,
        {
            "of_job": str(what.job_id), "of_number": what.number, "of_call": what.call.value,
            "again_at": micros(at), "made": what.tries + 1, "error": error[:500],
        },
    )  # fmt: skip


def still_owed(connection: Connection, what: OwedCall) -> bool:
    where = (owed.c.job_id == str(what.job_id), owed.c.number == what.number, owed.c.call == what.call.value)
    return connection.execute(select(owed.c.call).where(*where)).first() is not None


_DUE: Final = (
    select(owed)
    .where(owed.c.cluster == bindparam("of_cluster"), owed.c.due_at <= bindparam("now"))
    .order_by(owed.c.due_at)
    .limit(bindparam("most"))
)


def due_calls(connection: Connection, cluster: str, now: datetime, most: int) -> list[OwedCall]:
    """What is to be called at a cluster, longest due first."""
    found = connection.execute(_DUE, {"of_cluster": cluster, "now": micros(now), "most": most})
    return [
        OwedCall(UUID(row.job_id), row.number, Call(row.call), row.cluster, row.namespace, row.tries,
                 moment(row.owed_since))
        for row in found
    ]  # fmt: skip


def due_again(connection: Connection, cluster: str, now: datetime) -> None:
    """The cluster is back: everything owed to it is due."""
    connection.execute(update(owed).where(owed.c.cluster == cluster).values(due_at=micros(now)))


# -- sites, cordons, early cancels --------------------------------------------------------------------------------


def save_site(connection: Connection, name: str, at_column: str, at: datetime, values: Mapping[str, Any]) -> bool:
    """Write what was observed at `at`, unless something newer of the same kind is there. True when written."""
    column = sites.c[at_column]
    known_at = connection.execute(select(column).where(sites.c.name == name)).scalar()
    if known_at is not None and known_at > micros(at):
        return False
    upsert(connection, sites, {"name": name, at_column: micros(at), **values}, ["name"])
    return True


def save_critical(connection: Connection, name: str, since: datetime | None) -> None:
    """Since when the registry calls the site critical or unreachable; None = it does not."""
    upsert(connection, sites, {"name": name, "critical_since": rows.maybe_micros(since)}, ["name"])


def cordon(connection: Connection, site: str, reason: str, by: Principal, at: datetime) -> None:
    row = {"site": site, "reason": reason, "cordoned_by": by.model_dump_json(), "cordoned_at": micros(at)}
    upsert(connection, cordons, row, ["site"])


def uncordon(connection: Connection, site: str) -> None:
    connection.execute(delete(cordons).where(cordons.c.site == site))


def keep_cancel(connection: Connection, command: CancelJob, own: Principal | None, now: datetime) -> None:
    """A cancel whose job is not known yet."""
    row = {
        "job_id": str(command.job_id), "vo": command.vo, "own_issuer": own.issuer if own else None,
        "own_subject": own.subject if own else None, "requested_at": micros(command.requested_at),
        "kept_at": micros(now),
    }  # fmt: skip
    insert_missing(connection, cancels_waiting, row)


def take_cancel(connection: Connection, job: Job) -> datetime | None:
    """When the job's cancel was asked for, if one came before it; it is kept no longer."""
    found = connection.execute(_CANCEL_OF, {"job_id": str(job.id)}).first()
    if found is None:
        return None
    connection.execute(delete(cancels_waiting).where(cancels_waiting.c.job_id == str(job.id)))
    own = found.own_subject is None or (found.own_issuer, found.own_subject) == (job.owner.issuer, job.owner.subject)
    return moment(found.requested_at) if found.vo == job.spec.vo and own else None
