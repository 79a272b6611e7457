"""What the scheduler knows of a job and of its latest attempt, as frozen values. Pure; `store.py` keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared.contracts.commands import Principal
from shared.contracts.reasons import Reason, VerdictCode
from shared.job import AttemptStatus, FailureClass, JobSpec, JobState


@dataclass(frozen=True, slots=True)
class Need:
    """The room that one attempt takes at a site, in MHz and MiB."""

    cpu_mhz: int
    memory_mib: int
    disk_mib: int
    gpus: int = 0
    gpu_model: str | None = None


class Standing(StrEnum):
    """How the scheduler stands to an attempt. Everything but `ended` still takes room at its site."""

    OPEN = "open"
    CLOSING = "closing"
    """Its id is being closed; what follows for the job is decided when it is."""
    ABANDONED = "abandoned"
    """The job went on without it; its stop is still owed."""
    ENDED = "ended"


class GivingUp(StrEnum):
    """Why an attempt is being closed."""

    CANCEL = "cancel"
    MAX_RUNTIME = "max_runtime"
    START_DEADLINE = "start_deadline"
    NODE_LOST = "node_lost"
    SUSPENDED = "suspended"
    TAKEN = "taken"
    """Something unknown runs under its id, and is ended before the job is placed anew."""
    OUTCOME = "outcome"
    """It has ended by itself and may be tried again once nothing can start under its id."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, in the monitor's words."""

    status: AttemptStatus
    failure: FailureClass | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    vanished: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. `nonce` and `fence` belong to its placement; `registered` = the site has accepted or shown it."""

    number: int
    site: str
    cluster: str
    namespace: str
    nonce: str
    fence: int
    need: Need
    placed_at: datetime
    standing: Standing = Standing.OPEN
    registered: bool = False
    closed: bool = False
    """Nothing can start under its id any more; what was there may still be stopping."""
    giving_up: GivingUp | None = None
    node: str | None = None
    starting_at: datetime | None = None
    running_at: datetime | None = None
    disconnected_at: datetime | None = None
    closing_at: datetime | None = None
    nothing_left_at: datetime | None = None
    """When the site first said that there is nothing left to stop; the outcome itself comes from the monitor."""
    seen: int = 0
    """Sequence number of the newest attempt event."""
    ended_at: datetime | None = None
    outcome: Outcome | None = None

    @property
    def current(self) -> bool:
        """Whether the job's fate hangs on it."""
        return self.standing in (Standing.OPEN, Standing.CLOSING)


@dataclass(frozen=True, slots=True)
class Avoid:
    """A site that this job does not go to until then (None = never again), and what happened there."""

    code: VerdictCode
    message: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the scheduler's records. `sequence` is the number of its last event."""

    id: UUID
    owner: Principal
    spec: JobSpec
    state: JobState
    submitted_at: datetime
    waiting_since: datetime
    """From here max_wait counts: hand-in, or the requeue after an attempt that had started."""
    phase_since: datetime
    """When the present state began."""
    sequence: int = 0
    revision: int = 0
    """Grows with every save: the compare-and-set of the store."""
    turn: int = 0
    """Place in the queue among jobs of the same priority; see queueing.py."""
    retries_used: int = 0
    not_before: datetime | None = None
    reason: Reason | None = None
    told_at: datetime | None = None
    avoid: Mapping[str, Avoid] = field(default_factory=dict)
    attempt: Attempt | None = None
    """The latest attempt, whether current or not."""
    cancel_requested_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    client: str = ""
    """The application and the access token (its `jti`) that it was handed in with: suspensions can name them."""
    token_id: str = ""

    @property
    def number(self) -> int:
        """The latest attempt's number; 0 before the first."""
        return self.attempt.number if self.attempt else 0

    def avoided(self, now: datetime) -> dict[str, Avoid]:
        """The sites to keep away from now."""
        return {site: why for site, why in self.avoid.items() if why.until is None or why.until > now}
