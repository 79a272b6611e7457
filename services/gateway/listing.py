"""Lists of jobs: which index ranges hold the answer, and one page from them, newest first.

A list is the merge of ranges, each an equality prefix of one index ordered by (created_at, id); so a page costs the
same however many jobs are stored. `plan` is pure and says which ranges; the rest runs them.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, or_, select

from services.gateway.cursors import Place
from services.gateway.permissions import Sight
from services.gateway.store import jobs, labels
from shared.job import FINAL_JOB_STATES, JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What was asked for; empty = no restriction. `created_*` are microseconds, both exclusive."""

    whole_vo: bool = False
    vo: str | None = None
    states: tuple[JobState, ...] = ()
    sites: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    created_after: int | None = None
    created_before: int | None = None

    def name(self, sight: Sight) -> str:
        """A text that is the same for the same list of the same reader only; cursors are bound to it."""
        return repr((sight.issuer, sight.subject, self))


@dataclass(frozen=True, slots=True)
class Range:
    """One equality prefix: of the reader's own jobs (`vo` None) or of a VO, with one state or none.

    `by_label`: walk the label's index instead of the jobs'.
    """

    vo: str | None
    state: JobState | None
    by_label: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`summaries` are JSON objects; `last` is set when there may be more."""

    summaries: list[bytes] = field(default_factory=list)
    last: Place | None = None


_LIVE: Final = frozenset(JobState) - FINAL_JOB_STATES


def plan(wanted: JobFilter, sight: Sight) -> list[Range]:
    """The ranges that hold the list. Empty = there is nothing that this reader may see."""
    vos: list[str | None] = [None]
    if wanted.whole_vo:
        vos = [*sorted(sight.whole_vos)] if wanted.vo is None else [wanted.vo] * sight.sees_all_of(wanted.vo)
    live_only = bool(wanted.states) and set(wanted.states) <= _LIVE
    if wanted.labels and not live_only:
        return [Range(vo, None, wanted.labels[0]) for vo in vos]
    states: Sequence[JobState | None] = wanted.states or (None,)
    return [Range(vo, state) for vo in vos for state in states]


def page(connection: Connection, wanted: JobFilter, sight: Sight, place: Place | None, limit: int) -> Page:
    """The page behind `place`, newest first."""
    found: Iterable[Any] = heapq.merge(
        *(connection.execute(_statement(each, wanted, sight, place, limit + 1)) for each in plan(wanted, sight)),
        key=lambda row: (row.created_at, row.id),
        reverse=True,
    )
    rows = [row for row, _ in zip(found, range(limit + 1), strict=False)]
    shown = rows[:limit]
    last = Place(shown[-1].created_at, shown[-1].id) if len(rows) > limit else None
    return Page([bytes(row.summary) for row in shown], last)


def _statement(
    each: Range, wanted: JobFilter, sight: Sight, place: Place | None, limit: int
) -> Select[tuple[int, str, bytes]]:
    if each.by_label is not None:
        return _walk_label(each, wanted, sight, place, limit)
    conditions = [*_reader(jobs, each.vo, sight), *_window(jobs.c.created_at, jobs.c.id, wanted, place)]
    if each.state is not None:
        conditions.append(jobs.c.state == each.state.value)
    conditions += _further(wanted, sight, each.vo, wanted.labels)
    return (
        select(jobs.c.created_at, jobs.c.id, jobs.c.summary)
        .where(*conditions)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(limit)
    )


def _walk_label(
    each: Range, wanted: JobFilter, sight: Sight, place: Place | None, limit: int
) -> Select[tuple[int, str, bytes]]:
    assert each.by_label is not None
    name, value = each.by_label
    conditions = [
        *_reader(labels, each.vo, sight), labels.c.name == name, labels.c.value == value,
        *_window(labels.c.created_at, labels.c.job_id, wanted, place),
        *_further(wanted, sight, each.vo, wanted.labels[1:]),
    ]  # fmt: skip
    if wanted.states:
        conditions.append(jobs.c.state.in_([state.value for state in wanted.states]))
    return (
        select(labels.c.created_at, jobs.c.id, jobs.c.summary)
        .select_from(labels.join(jobs, jobs.c.id == labels.c.job_id))
        .where(*conditions)
        .order_by(labels.c.created_at.desc(), labels.c.job_id.desc())
        .limit(limit)
    )


def _reader(table: Any, vo: str | None, sight: Sight) -> list[ColumnElement[bool]]:
    if vo is not None:
        return [table.c.vo == vo]
    return [table.c.owner_issuer == sight.issuer, table.c.owner_subject == sight.subject]


def _window(created_at: Any, id: Any, wanted: JobFilter, place: Place | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.created_after is not None:
        conditions.append(created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(created_at < wanted.created_before)
    if place is not None:
        earlier = and_(created_at == place.created_at, id < place.id)
        conditions += [created_at <= place.created_at, or_(created_at < place.created_at, earlier)]
    return conditions


def _further(
    wanted: JobFilter, sight: Sight, vo: str | None, rest: Sequence[tuple[str, str]]
) -> list[ColumnElement[bool]]:
    """What is left to check row by row."""
    conditions: list[ColumnElement[bool]] = []
    if vo is None:
        allowed = sight.own_vos if wanted.vo is None else sight.own_vos & {wanted.vo}
        conditions.append(jobs.c.vo.in_(sorted(allowed)))
    if wanted.sites:
        conditions.append(jobs.c.site.in_(wanted.sites))
    for name, value in rest:
        other = labels.alias()
        conditions.append(exists().where(other.c.job_id == jobs.c.id, other.c.name == name, other.c.value == value))
    return conditions
