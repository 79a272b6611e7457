"""The statements on the queue and on the sites: what a round of placing, a sweep and the questions read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, or_, select, tuple_, update

from services.scheduler import rows
from services.scheduler.ceilings import Amounts, InUse, Share
from services.scheduler.queueing import QueueKey, turn_of
from services.scheduler.records import Job, Standing
from services.scheduler.rounds import OwnShape
from services.scheduler.snapshots import Facts, SiteRecord, Usage
from services.scheduler.store import WITH_ATTEMPT
from services.scheduler.suspending import Suspensions
from services.scheduler.tables import attempts, cancels_waiting, cordons, jobs, owed, runtime, sites
from shared.contracts.commands import Principal
from shared.contracts.reasons import ReasonCode
from shared.ids import JobId
from shared.job import JobState
from shared.runtime.clock import micros
from shared.runtime.sql import asked, in_places, places, size_for
from shared.site import SiteCapacity

QUEUED: Final = JobState.QUEUED.value
WAITING_CODES: Final = frozenset(
    {ReasonCode.WAITING_FOR_ROOM, ReasonCode.NO_SITE_FITS, ReasonCode.WAITING_FOR_SITE,
     ReasonCode.WAITING_FOR_AUTHORISATION, ReasonCode.CEILING_REACHED, ReasonCode.SUSPENDED}
)  # fmt: skip
"""Reasons that say why a job is not placed; under any other one a queued job has not been told why yet."""

_UNTOLD: Final = [code.value for code in ReasonCode if code not in WAITING_CODES]
_HOLDS_ROOM: Final = [standing.value for standing in Standing if standing is not Standing.ENDED]
_CURRENT: Final = [Standing.OPEN.value, Standing.CLOSING.value]
_KEY: Final = (jobs.c.precedence, jobs.c.turn, jobs.c.id)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job with its place and shape."""

    job: Job
    key: QueueKey
    shape: str


# -- the queue ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a submission meets: whether its job is known, the turn of a new one, whether a cancel came before it."""

    known: bool
    turn: int
    cancelled: bool


def arrival(connection: Connection, job_id: JobId, precedence: int, owner: Principal) -> Arrival:
    """In one statement: whatever else is asked is another wait for the database, for each job that comes."""
    given = {
        "job_id": str(job_id), "of_precedence": precedence, "of_issuer": owner.issuer, "of_subject": owner.subject,
    }  # fmt: skip
    known, first, last, cancelled = connection.execute(ARRIVAL, given).one()
    return Arrival(known, turn_of(first, last), cancelled)


_FIRST_TURN: Final = (
    select(jobs.c.turn)
    .where(jobs.c.state == QUEUED, jobs.c.precedence == bindparam("of_precedence"))
    .order_by(jobs.c.turn)
    .limit(1)
)
_LAST_OWN: Final = (
    select(jobs.c.turn)
    .where(
        jobs.c.state == QUEUED,
        jobs.c.precedence == bindparam("of_precedence"),
        jobs.c.owner_subject.between(bindparam("of_subject"), bindparam("of_subject")),
        jobs.c.owner_issuer.between(bindparam("of_issuer"), bindparam("of_issuer")),
    )
    .order_by(jobs.c.owner_subject.desc(), jobs.c.owner_issuer.desc(), jobs.c.turn.desc())
    .limit(1)
)
"""Least and greatest, by an order that one index alone has (`jobs_queue`, `jobs_turn`; hence `between` where `=` would
do): PostgreSQL plans them once, maybe over an empty table, and took an index that finds all queued jobs.
"""
_KNOWN: Final = exists().where(jobs.c.id == bindparam("job_id"))
_CANCELLED: Final = exists().where(cancels_waiting.c.job_id == bindparam("job_id"))
ARRIVAL: Final = select(
    _KNOWN.label("known"), _FIRST_TURN.scalar_subquery().label("first"), _LAST_OWN.scalar_subquery().label("last_own"),
    _CANCELLED.label("cancelled"),
)  # fmt: skip


def page(
    connection: Connection, now: datetime, *, after: QueueKey | None, without: Iterable[str], most: int,
    held: Iterable[OwnShape] = (),
) -> list[Waiting]:  # fmt: skip
    """The queue in order, behind `after`, leaving out back-offs, the shapes in `without` and of one owner in `held`."""
    shapes, owners = list(without), list(held)
    query = _queue(size_for(len(shapes)), behind=after is not None)
    if owners:
        query = query.where(tuple_(jobs.c.owner_issuer, jobs.c.owner_subject, jobs.c.shape).not_in(owners))
    given = {"now": micros(now), "most": most, **in_places("shape", shapes)}
    if after is not None:
        given |= {"of_precedence": after.precedence, "of_turn": after.turn, "of_id": after.job_id}
    return [_waiting(row) for row in connection.execute(query, given).mappings()]


@lru_cache(maxsize=32)
def _queue(shapes: int, *, behind: bool) -> Select[Any]:
    """Without so many shapes; `behind` a place in the queue. Built once: a round is taken for each new job."""
    query = WITH_ATTEMPT.where(jobs.c.state == QUEUED, jobs.c.not_before <= bindparam("now"))
    if shapes:
        query = query.where(jobs.c.shape.not_in(places("shape", shapes)))
    if behind:
        query = query.where(tuple_(*_KEY) > tuple_(*map(bindparam, ("of_precedence", "of_turn", "of_id"))))
    return query.order_by(*_KEY).limit(bindparam("most"))


def untold(connection: Connection, now: datetime, before: datetime, most: int) -> list[Waiting]:
    """Queued jobs whose last event is older than `before` and does not say why they are not placed now."""
    where = (
        jobs.c.state == QUEUED, jobs.c.reason_code.in_(_UNTOLD), jobs.c.told_at <= micros(before),
        jobs.c.not_before <= micros(now),
    )  # fmt: skip
    found = connection.execute(WITH_ATTEMPT.where(*where).limit(most)).mappings()
    return [_waiting(row) for row in found]


def told_otherwise(
    connection: Connection,
    shape: str,
    code: ReasonCode,
    before: datetime,
    most: int,
    owner: tuple[str, str] | None = None,
) -> list[Waiting]:
    """Queued jobs of a shape (and owner) that were told before `before` that they wait for something else."""
    others = [other.value for other in WAITING_CODES if other is not code]
    where = [
        jobs.c.state == QUEUED, jobs.c.shape == shape, jobs.c.reason_code.in_(others),
        jobs.c.told_at <= micros(before),
    ]  # fmt: skip
    if owner is not None:
        where += [jobs.c.owner_issuer == owner[0], jobs.c.owner_subject == owner[1]]
    found = connection.execute(WITH_ATTEMPT.where(*where).limit(most)).mappings()
    return [_waiting(row) for row in found]


def position(connection: Connection, key: QueueKey) -> int:
    """How many queued jobs are served before this one."""
    where = (jobs.c.state == QUEUED, tuple_(*_KEY) < tuple_(*key))
    return connection.execute(select(func.count()).select_from(jobs).where(*where)).scalar() or 0


def _waiting(row: rows.Row) -> Waiting:
    return Waiting(rows.job_of(row), QueueKey(row["precedence"], row["turn"], row["id"]), row["shape"])


# -- ceilings and suspensions -------------------------------------------------------------------------------------

_SHARE: Final = (jobs.c.vo, jobs.c.owner_issuer, jobs.c.owner_subject, attempts.c.site)
_AMOUNTS: Final = (jobs.c.millicores, attempts.c.memory_mib, attempts.c.disk_mib, attempts.c.gpus)
_IN_USE: Final = (
    select(*_SHARE, *(func.sum(column) for column in _AMOUNTS), func.count())
    .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    .where(attempts.c.standing.in_(_CURRENT))
    .group_by(*_SHARE)
)


def read_in_use(connection: Connection) -> InUse:
    """What current attempts take, by VO, owner and site."""
    found = connection.execute(_IN_USE)
    return InUse(Share(*row[:4], Amounts(*(int(amount) for amount in row[4:]))) for row in found)


def may_stop(connection: Connection, named: Suspensions, after: str, most: int) -> list[Job]:
    """Jobs behind the id `after`, by id, that are at a site and have something in common with a suspension."""
    owner = tuple_(jobs.c.owner_issuer, jobs.c.owner_subject)
    hit = or_(
        jobs.c.vo.in_(sorted(named.vos)), owner.in_(sorted(named.subjects)),
        jobs.c.client.in_(sorted(named.clients)), jobs.c.token_id.in_(sorted(named.tokens)),
    )  # fmt: skip
    query = WITH_ATTEMPT.where(attempts.c.standing == Standing.OPEN.value, jobs.c.id > after, hit)
    return [rows.job_of(row) for row in connection.execute(query.order_by(jobs.c.id).limit(most)).mappings()]


def look_again_at_suspended(connection: Connection) -> None:
    """Who was held for a suspension is looked at now: suspensions have changed."""
    where = (jobs.c.state == QUEUED, jobs.c.reason_code == ReasonCode.SUSPENDED.value)
    connection.execute(update(jobs).where(*where).values(not_before=0))


# -- what is due --------------------------------------------------------------------------------------------------


def due_jobs(connection: Connection, now: datetime, most: int) -> list[Job]:
    """Jobs that want to be looked at, longest due first."""
    return [rows.job_of(row) for row in connection.execute(_DUE, {"now": micros(now), "most": most}).mappings()]


_DUE: Final = WITH_ATTEMPT.where(jobs.c.due_at <= bindparam("now")).order_by(jobs.c.due_at).limit(bindparam("most"))


def look_again(connection: Connection, job_id: JobId, at: datetime) -> None:
    """Look at the job again then; its deadline has passed, but cannot be believed yet."""
    connection.execute(update(jobs).where(jobs.c.id == str(job_id)).values(due_at=micros(at)))


def current_at(connection: Connection, site: str, after: str, most: int) -> list[Job]:
    """Jobs behind the id `after`, by id, whose current attempt is at a site."""
    query = WITH_ATTEMPT.where(
        attempts.c.standing.in_(_CURRENT), attempts.c.site == site, jobs.c.id > after,
        jobs.c.state != JobState.CANCELLING.value,
    )  # fmt: skip
    return [rows.job_of(row) for row in connection.execute(query.order_by(jobs.c.id).limit(most)).mappings()]


# -- the sites ----------------------------------------------------------------------------------------------------


def read_facts(connection: Connection) -> Facts:
    """Everything that our records say of the sites now, with one wait for it."""
    records, cordoned, used = (asked(connection, query) for query in (_SITES, _CORDONS, _USAGE))
    return Facts(
        records={row.name: _record(row) for row in records()},
        cordons={row.site: row.reason for row in cordoned()},
        usage=tuple(_usage(row) for row in used()),
    )


_SITES: Final = select(sites)
_CORDONS: Final = select(cordons)


def read_sites(connection: Connection) -> list[SiteRecord]:
    return [_record(row) for row in connection.execute(_SITES)]


def _record(row: Any) -> SiteRecord:
    return SiteRecord(
        name=row.name, capacity=_capacity(row.capacity) if row.capacity else None,
        observed_at=rows.maybe_moment(row.observed_at),
        unreachable_since=rows.maybe_moment(row.unreachable_since), suspect=bool(row.suspect),
        critical_since=rows.maybe_moment(row.critical_since),
    )  # fmt: skip


def read_cordons(connection: Connection) -> dict[str, str]:
    return {row.site: row.reason for row in connection.execute(_CORDONS)}


_USED = (attempts.c.site, attempts.c.node, attempts.c.cpu_mhz, attempts.c.memory_mib, attempts.c.disk_mib,
         attempts.c.gpus, attempts.c.gpu_model)  # fmt: skip
_USAGE: Final = select(*_USED, func.count().label("count")).where(attempts.c.standing.in_(_HOLDS_ROOM)).group_by(*_USED)


def _usage(row: Any) -> Usage:
    """The room that attempts of ours take, alike ones together."""
    found = row._mapping
    return Usage(found["site"], found["node"], rows.need_of(found), found["count"])


@lru_cache(maxsize=256)
def _capacity(text: str) -> SiteCapacity:
    return SiteCapacity.model_validate_json(text)


def not_current(connection: Connection, named: Sequence[tuple[JobId, int]]) -> list[tuple[JobId, int]]:
    """Which of these attempts are not the current one of a live job."""
    ids = list({str(job_id) for job_id, _ in named})
    query = select(jobs.c.id, attempts.c.number).join(
        attempts, (attempts.c.job_id == jobs.c.id) & (attempts.c.number == jobs.c.attempt)
    )
    found = connection.execute(query.where(jobs.c.id.in_(ids), attempts.c.standing.in_(_CURRENT)))
    current = {(UUID(row.id), row.number) for row in found}
    return [name for name in named if name not in current]


# -- house-keeping ------------------------------------------------------------------------------------------------


def forget_jobs(connection: Connection, ended_before: datetime, most: int) -> int:
    """Delete jobs that ended before then, with their attempts, events and owed calls; how many."""
    query = select(jobs.c.id).where(jobs.c.ended_at < micros(ended_before)).limit(most)
    gone = list(connection.execute(query).scalars())
    if gone:
        outbox = runtime.outbox
        for column in (attempts.c.job_id, owed.c.job_id, outbox.c.job_id, jobs.c.id):
            connection.execute(delete(column.table).where(column.in_(gone)))
    return len(gone)


def forget_seen(connection: Connection, before: datetime) -> None:
    """Delete inbox ids, and cancels whose job never came, from before then."""
    connection.execute(delete(runtime.inbox).where(runtime.inbox.c.received_at < micros(before)))
    connection.execute(delete(cancels_waiting).where(cancels_waiting.c.kept_at < micros(before)))
