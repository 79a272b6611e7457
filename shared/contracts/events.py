"""Events: past tense, facts, any number of readers. Unknown fields are ignored, so old readers outlive new writers.

`job.*` is written by the scheduler alone, `attempt.*` and `site.*` by the monitor alone.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared.contracts.commands import Principal
from shared.contracts.reasons import Reason, Verdict
from shared.job import AttemptStatus, FailureClass, JobState
from shared.site import SiteCapacity


class Event(BaseModel):
    """Base: `kind` names the event on the wire, `version` grows when its meaning does."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: ClassVar[str]
    version: ClassVar[int] = 1


# -- jobs ---------------------------------------------------------------------------------------------------------


class JobEvent(Event):
    """One step of a job's life. `sequence` counts the job's own events from 1 without holes."""

    state: ClassVar[JobState]

    job_id: UUID
    vo: str
    owner: Principal
    name: str
    sequence: int
    attempt: int = 0
    site: str | None = None
    reason: Reason | None = None


class JobQueued(JobEvent):
    """The job waits; told again when the reason for waiting becomes another, and before each further attempt."""

    kind: ClassVar[str] = "job.queued"
    state: ClassVar[JobState] = JobState.QUEUED


class JobPlaced(JobEvent):
    """Attempt `attempt` goes to `site`; `receipt` holds every site's verdict at that moment."""

    kind: ClassVar[str] = "job.placed"
    state: ClassVar[JobState] = JobState.PLACED

    receipt: tuple[Verdict, ...] = ()


class JobStarting(JobEvent):
    kind: ClassVar[str] = "job.starting"
    state: ClassVar[JobState] = JobState.STARTING


class JobRunning(JobEvent):
    kind: ClassVar[str] = "job.running"
    state: ClassVar[JobState] = JobState.RUNNING


class JobProgress(JobEvent):
    """What the task of attempt `attempt` tells of itself, in its own words and figures; it moves no state."""

    kind: ClassVar[str] = "job.progress"
    state: ClassVar[JobState] = JobState.RUNNING

    fraction: float | None = None
    message: str = ""
    results: dict[str, float | int | bool | str] = {}


class JobCancelling(JobEvent):
    kind: ClassVar[str] = "job.cancelling"
    state: ClassVar[JobState] = JobState.CANCELLING


class JobEnded(JobEvent):
    """A final state. `exit_code` is the last attempt's, where there was one."""

    exit_code: int | None = None


class JobSucceeded(JobEnded):
    kind: ClassVar[str] = "job.succeeded"
    state: ClassVar[JobState] = JobState.SUCCEEDED


class JobFailed(JobEnded):
    kind: ClassVar[str] = "job.failed"
    state: ClassVar[JobState] = JobState.FAILED

    verdicts: tuple[Verdict, ...] = ()


class JobCancelled(JobEnded):
    """`confirmed: false` = the site did not confirm the stop within cancel_grace; the stop stays owed."""

    kind: ClassVar[str] = "job.cancelled"
    state: ClassVar[JobState] = JobState.CANCELLED

    confirmed: bool = True


class JobRejected(JobEnded):
    kind: ClassVar[str] = "job.rejected"
    state: ClassVar[JobState] = JobState.REJECTED


# -- attempts -----------------------------------------------------------------------------------------------------


class EndpointAddress(BaseModel):
    """Where an endpoint of a service answers, `host:port`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    address: str


class AttemptEvent(Event):
    """One step in the life of an attempt. `sequence` counts the attempt's events from 1 without holes."""

    status: ClassVar[AttemptStatus]

    job_id: UUID
    attempt: int
    vo: str
    site: str
    sequence: int
    node: str | None = None
    allocation: str | None = None
    reason: Reason | None = None


class AttemptPending(AttemptEvent):
    """Nomad has the attempt; no allocation yet. `reason` carries Nomad's placement failure when it is blocked."""

    kind: ClassVar[str] = "attempt.pending"
    status: ClassVar[AttemptStatus] = AttemptStatus.PENDING


class AttemptStarting(AttemptEvent):
    kind: ClassVar[str] = "attempt.starting"
    status: ClassVar[AttemptStatus] = AttemptStatus.STARTING


class AttemptRunning(AttemptEvent):
    kind: ClassVar[str] = "attempt.running"
    status: ClassVar[AttemptStatus] = AttemptStatus.RUNNING

    endpoints: tuple[EndpointAddress, ...] = ()


class AttemptDisconnected(AttemptEvent):
    """Its node is away since `since`; the work may go on there."""

    kind: ClassVar[str] = "attempt.disconnected"
    status: ClassVar[AttemptStatus] = AttemptStatus.DISCONNECTED

    since: datetime | None = None


class KeptOutput(BaseModel):
    """A declared output that was kept at the end, or why it was not (`missing`, `too_large`, `unreadable`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    size: int = 0
    problem: str | None = None


class AttemptEnded(AttemptEvent):
    """An outcome. `started_at`/`finished_at` are the node's own clock; do not order by them."""

    exit_code: int | None = None
    signal: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    nomad_says: str = ""


class AttemptSucceeded(AttemptEnded):
    kind: ClassVar[str] = "attempt.succeeded"
    status: ClassVar[AttemptStatus] = AttemptStatus.SUCCEEDED


class AttemptFailed(AttemptEnded):
    kind: ClassVar[str] = "attempt.failed"
    status: ClassVar[AttemptStatus] = AttemptStatus.FAILED

    failure: FailureClass = FailureClass.UNKNOWN


class AttemptStopped(AttemptEnded):
    kind: ClassVar[str] = "attempt.stopped"
    status: ClassVar[AttemptStatus] = AttemptStatus.STOPPED


class AttemptLost(AttemptEnded):
    """Nomad's word, or `vanished` (proven 404). A late outcome after it still enters timeline and usage."""

    kind: ClassVar[str] = "attempt.lost"
    status: ClassVar[AttemptStatus] = AttemptStatus.LOST

    vanished: bool = False


# -- sites --------------------------------------------------------------------------------------------------------


class SiteEvent(Event):
    """Something true of a site. `occurrence` counts the site's events; `vo` is set on copies told to a VO."""

    what: ClassVar[str]

    site: str
    occurrence: int
    vo: str | None = None


class SiteObserved(SiteEvent):
    """The site's usable nodes, told when they change and again on a timer."""

    kind: ClassVar[str] = "site.observed"
    what: ClassVar[str] = "observed"

    capacity: SiteCapacity


class SiteReachable(SiteEvent):
    kind: ClassVar[str] = "site.reachable"
    what: ClassVar[str] = "reachable"


class SiteUnreachable(SiteEvent):
    """Nobody answers at the site's Nomad since `since`; `error` is what was tried and what came back."""

    kind: ClassVar[str] = "site.unreachable"
    what: ClassVar[str] = "unreachable"

    since: datetime
    error: str = ""


class SiteSuspect(SiteEvent):
    """The site answers, but what it shows cannot be believed (many attempts vanished together, a narrowed token)."""

    kind: ClassVar[str] = "site.suspect"
    what: ClassVar[str] = "suspect"

    error: str = ""


class SiteStray(SiteEvent):
    """One of ours was seen there and may not belong; the scheduler, which knows, stops it if so.

    The monitor reports every live attempt it meets on a re-listing; told apart by the scheduler's own records.
    """

    kind: ClassVar[str] = "site.stray"
    what: ClassVar[str] = "stray"

    job_id: UUID
    attempt: int
    namespace: str = "default"
    """Nomad namespace in which it was seen: there it is to be stopped."""


JOB_EVENTS: tuple[type[JobEvent], ...] = (
    JobQueued, JobPlaced, JobStarting, JobRunning, JobProgress, JobCancelling, JobSucceeded, JobFailed, JobCancelled,
    JobRejected,
)  # fmt: skip
ATTEMPT_EVENTS: tuple[type[AttemptEvent], ...] = (
    AttemptPending, AttemptStarting, AttemptRunning, AttemptDisconnected,
    AttemptSucceeded, AttemptFailed, AttemptStopped, AttemptLost,
)  # fmt: skip
SITE_EVENTS: tuple[type[SiteEvent], ...] = (SiteObserved, SiteReachable, SiteUnreachable, SiteSuspect, SiteStray)
EVENTS: tuple[type[Event], ...] = (*JOB_EVENTS, *ATTEMPT_EVENTS, *SITE_EVENTS)
