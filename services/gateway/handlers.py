"""What each event does here: the table from event to effect, and the fold of a batch into views and log.

Synchronous, inside one transaction; called by the projection only. Events come from the bus's stream at least once and
mostly in order: what was seen is ignored, a hole is noted and filled from the event's owner.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from services.gateway import event_log, job_view, store
from services.gateway.event_log import Entry
from services.gateway.job_view import JobView, Standing
from services.gateway.permissions import Told
from services.gateway.store import Hole
from shared.contracts import events
from shared.contracts.codec import Decoded
from shared.contracts.events import AttemptEvent, Event, JobEvent, JobProgress, SiteEvent
from shared.job import AttemptStatus, JobState
from shared.runtime.clock import micros


@dataclass(frozen=True, slots=True)
class Fact:
    """One event with its bytes. `offset` is its place in the stream, None when it came from its owner."""

    event: Event
    at: datetime
    body: bytes
    offset: int | None = None


@dataclass(slots=True)
class Folding:
    """What one transaction is about to change."""

    views: dict[str, JobView]
    head: int
    insist: bool = False
    """Take an early event as the next one: its owner has no older ones any more."""
    entries: list[Entry] = field(default_factory=list)
    changed: dict[str, JobView] = field(default_factory=dict)
    holes: set[tuple[str, int]] = field(default_factory=set)

    def tell(self, fact: Fact, told: Told) -> None:
        """Append to the event log."""
        self.head += 1
        self.entries.append(Entry(self.head, fact.event.kind, told, fact.body))


@dataclass(frozen=True, slots=True)
class Folded:
    """What a transaction has changed: the log's head, its new entries, jobs that may look different, noticed holes.

    Jobs that another copy of the gateway changed are among them: who waits for them waits here too.
    """

    head: int
    entries: Sequence[Entry] = ()
    job_ids: frozenset[str] = frozenset()
    holes: frozenset[tuple[str, int]] = frozenset()
    views: Mapping[str, JobView] = field(default_factory=dict)
    """What the changed jobs look like, once this is committed."""


def of_job(folding: Folding, fact: Fact) -> None:
    """A fact of a job's or attempt's life: moves the view and is told, if it is the next one."""
    event = fact.event
    assert isinstance(event, JobEvent | AttemptEvent)
    key = str(event.job_id)
    view = folding.views.get(key)
    if view is None:
        return
    match job_view.standing(view, event):
        case Standing.SEEN:
            return
        case Standing.EARLY if not folding.insist:
            folding.holes.add((key, job_view.series_of(event)))
            return
    moved = job_view.apply(view, event, fact.at)
    folding.views[key] = folding.changed[key] = moved
    state = _state_of(event, moved)
    folding.tell(fact, Told(view.vo, view.owner.issuer, view.owner.subject, key, state.value, view.labels))


def _state_of(event: JobEvent | AttemptEvent, moved: JobView) -> JobState | AttemptStatus:
    """What the entry is found by: what a task tells of itself moves no state."""
    if isinstance(event, AttemptEvent):
        return event.status
    return moved.state if isinstance(event, JobProgress) else event.state


def of_site(folding: Folding, fact: Fact) -> None:
    """A site's condition, told to its VOs (copies that name a VO) and to operators."""
    event = fact.event
    assert isinstance(event, SiteEvent)
    folding.tell(fact, Told(event.vo, None, None, None, event.what, {}))


def of_nobody(folding: Folding, fact: Fact) -> None:
    """Told between services only: figures that `GET /v1/sites` shows better."""


HANDLERS: Final[Mapping[type[Event], Callable[[Folding, Fact], None]]] = {
    **dict.fromkeys(events.JOB_EVENTS, of_job),
    **dict.fromkeys(events.ATTEMPT_EVENTS, of_job),
    **dict.fromkeys(events.SITE_EVENTS, of_site),
    events.SiteObserved: of_nobody,
    events.SiteStray: of_nobody,
}


def fact_of(decoded: Decoded, body: bytes, offset: int | None = None) -> Fact:
    """A decoded event as a fact. Raises TypeError for a command: those are never in an event stream."""
    if not isinstance(decoded.content, Event):
        raise TypeError(f"{decoded.envelope.type} is not an event")
    return Fact(decoded.content, decoded.envelope.time, body, offset)


def fold_stream(
    connection: Connection, facts: Sequence[Fact], offset: int, now: datetime,
    known: Mapping[str, JobView] | None = None,
) -> Folded:  # fmt: skip
    """Fold what the stream gave up to `offset`. What another copy of the gateway folded already is left out.

    `known` are views as committed earlier, which spares reading those that nobody has changed since.
    """
    look, job_ids = event_log.ask_state(connection, lock=True), _jobs_of(facts)
    views = store.views(connection, sorted(job_ids), known)
    state = look()
    done = state.stream_offset
    fresh = [fact for fact in facts if done is None or (fact.offset is not None and fact.offset > done)]
    folded = _folded(connection, Folding(views, state.head), fresh, now)
    event_log.move(connection, folded.head, offset if done is None else max(offset, done))
    return replace(folded, job_ids=frozenset(job_ids))


def fill_hole(connection: Connection, hole: Hole, facts: Sequence[Fact], now: datetime) -> Folded:
    """Fold what the owner of a series gave for a hole, and forget the hole."""
    state = event_log.state(connection, lock=True)
    folding = Folding(store.views(connection, [hole.job_id]), state.head, insist=True)
    folded = _folded(connection, folding, facts, now)
    event_log.set_head(connection, folded.head)
    store.forget_hole(connection, hole)
    return folded


def _jobs_of(facts: Sequence[Fact]) -> set[str]:
    return {str(fact.event.job_id) for fact in facts if isinstance(fact.event, JobEvent | AttemptEvent)}


def _folded(connection: Connection, folding: Folding, facts: Sequence[Fact], now: datetime) -> Folded:
    for fact in facts:
        HANDLERS[type(fact.event)](folding, fact)
    event_log.append(connection, folding.entries, micros(now))
    store.save_views(connection, list(folding.changed.values()))
    store.note_holes(connection, sorted(folding.holes), micros(now))
    return Folded(
        folding.head, folding.entries, frozenset(folding.changed), frozenset(folding.holes), dict(folding.changed)
    )
