"""What is due for a job at a moment, as a pure function of its record. `sweeping.py` asks and carries it out.

The scheduler's own clock keeps these limits; nothing here waits, and a site's clock is never read.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.scheduler.records import Attempt, GivingUp, Job, Standing
from shared.job import JobKind, JobState, OnLost

IN_FLIGHT = frozenset({JobState.PLACED, JobState.STARTING, JobState.RUNNING, JobState.CANCELLING})


class Deadline(StrEnum):
    MAX_WAIT = "max_wait"
    START = "start_deadline"
    """No allocation in time, or the register has been in doubt for too long to be sent again."""
    MAX_RUNTIME = "max_runtime"
    NODE_GRACE = "node_grace"
    CLOSE_GRACE = "close_grace"
    """Closing was not confirmed in time (cancel_grace)."""
    SITE_GRACE = "site_grace"
    """Told by the sweep for all jobs of a lost site; not a deadline of the job's own."""


NEED_NEWS = frozenset({Deadline.START, Deadline.NODE_GRACE})
"""Deadlines that only hold while the monitor is heard of the site: its silence is not the attempt's."""


@dataclass(frozen=True, slots=True)
class Graces:
    """Seconds. `register_s`: a register is never sent again after it. `wait_limit_s`: below Nomad's lost_after."""

    node_s: float = 120.0
    cancel_s: float = 900.0
    register_s: float = 3600.0
    wait_limit_s: float = 29 * 86_400.0


def due(job: Job, now: datetime, graces: Graces, *, heard: bool = True) -> list[Deadline]:
    """Every deadline of the job that has passed; `heard` = the monitor has spoken of its site lately."""
    return [what for what, at in _all(job, graces) if at <= now and (heard or what not in NEED_NEWS)]


def next_due(job: Job, graces: Graces) -> datetime | None:
    """When the job wants to be looked at next, None when never."""
    return min((at for _, at in _all(job, graces)), default=None)


def _all(job: Job, graces: Graces) -> list[tuple[Deadline, datetime]]:
    if job.state is JobState.QUEUED:
        return [(Deadline.MAX_WAIT, job.waiting_since + timedelta(seconds=job.spec.max_wait_s))]
    if job.state not in IN_FLIGHT or job.attempt is None:
        return []
    if job.attempt.standing is Standing.CLOSING:
        return _of_closing(job.attempt, graces)
    return [*_start(job, job.attempt, graces), *_runtime(job, job.attempt), *_node(job, job.attempt, graces)]


def _of_closing(attempt: Attempt, graces: Graces) -> list[tuple[Deadline, datetime]]:
    since = attempt.closing_at or attempt.placed_at
    if attempt.giving_up is GivingUp.OUTCOME:
        return []
    return [(Deadline.CLOSE_GRACE, since + timedelta(seconds=graces.cancel_s))]


def _start(job: Job, attempt: Attempt, graces: Graces) -> list[tuple[Deadline, datetime]]:
    if attempt.starting_at is not None or attempt.running_at is not None:
        return []
    limit = job.spec.start_deadline_s if attempt.registered else min(job.spec.start_deadline_s, graces.register_s)
    return [(Deadline.START, attempt.placed_at + timedelta(seconds=limit))]


def _runtime(job: Job, attempt: Attempt) -> list[tuple[Deadline, datetime]]:
    begun = attempt.running_at or attempt.starting_at
    return [] if begun is None else [(Deadline.MAX_RUNTIME, begun + timedelta(seconds=job.spec.max_runtime_s))]


def _node(job: Job, attempt: Attempt, graces: Graces) -> list[tuple[Deadline, datetime]]:
    """A service is left to Nomad; who waits is given up only before Nomad itself would run the work again."""
    if attempt.disconnected_at is None or job.spec.kind is JobKind.SERVICE:
        return []
    grace = graces.wait_limit_s if job.spec.on_lost is OnLost.WAIT else graces.node_s
    return [(Deadline.NODE_GRACE, attempt.disconnected_at + timedelta(seconds=grace))]
