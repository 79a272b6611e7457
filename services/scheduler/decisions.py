"""What `jobs.decide` is told and what it answers with: plain values. The shell (`handlers.py` and the leader's loops)
turns messages and answers of sites into inputs, and carries every effect out in the transaction that saves the job.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.scheduler.deadlines import Deadline
from services.scheduler.records import Job, Need, Outcome
from shared.contracts.commands import ReportProgress
from shared.contracts.events import JobEvent
from shared.contracts.reasons import Reason, Verdict
from shared.engine import Closing
from shared.job import AttemptStatus

# -- inputs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """The placer chose a site for the next attempt."""

    site: str
    cluster: str
    namespace: str
    nonce: str
    fence: int
    need: Need
    receipt: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """The job was looked at and cannot be placed now, for this reason. `until`: not looked at again before."""

    reason: Reason
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No site will ever take the job."""

    reason: Reason
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """An attempt event of the monitor; `outcome` is set when it ended."""

    number: int
    sequence: int
    status: AttemptStatus
    node: str | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class CancelAsked:
    at: datetime


@dataclass(frozen=True, slots=True)
class Registered:
    """The site has taken the attempt."""

    number: int


@dataclass(frozen=True, slots=True)
class RegisterVoid:
    """The attempt's id was closed before: nothing ran under it, or will."""

    number: int


@dataclass(frozen=True, slots=True)
class RegisterTaken:
    """Something that we have no record of has the attempt's id: ours, of before our database was restored, or put there
    by others.
    """

    number: int


@dataclass(frozen=True, slots=True)
class RegisterRefused:
    """The site refuses the job as it is written; `text` has its words."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """The attempt is not registered (again): its owner's secrets are not to be had, for this reason."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class IdClosed:
    """What came of closing an attempt's id."""

    number: int
    closing: Closing


@dataclass(frozen=True, slots=True)
class Passed:
    """A deadline has passed; `verdicts` are today's where the job waits to be placed."""

    deadline: Deadline
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Reported:
    """The task of the current attempt tells how far it has come."""

    report: ReportProgress


@dataclass(frozen=True, slots=True)
class Refusal:
    """The job may not run, or its request cannot be handled."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Suspended:
    """The owner, the VO, the client or the token is suspended, and what runs for it is to be stopped."""

    reason: Reason


AboutAttempt = AttemptSeen | Registered | RegisterVoid | RegisterTaken | RegisterRefused | Withheld | IdClosed
Input = AboutAttempt | Placed | Waits | GaveUp | CancelAsked | Passed | Refusal | Suspended | Reported

# -- effects ------------------------------------------------------------------------------------------------------


class Call(StrEnum):
    """A call to a site's Nomad that is owed until it is done."""

    SUBMIT = "submit"
    CLOSE = "close"
    FORGET = "forget"
    """Delete the attempt's secrets there."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Publish this event."""

    event: JobEvent


@dataclass(frozen=True, slots=True)
class Owe:
    """Remember to make this call, now."""

    call: Call
    number: int


@dataclass(frozen=True, slots=True)
class Drop:
    """This call is not owed any more."""

    call: Call
    number: int


@dataclass(frozen=True, slots=True)
class StopStray:
    """An attempt that is not current showed a sign of life: stop it, unless its end is known and came later."""

    number: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StrayEnded:
    """An older attempt is gone for good: its room is free and nothing is owed."""

    number: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the job has ended: a span."""

    name: str
    start: datetime
    end: datetime
    attempt: int
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The job has ended: its root span."""

    start: datetime
    end: datetime


Effect = Tell | Owe | Drop | StopStray | StrayEnded | Phase | Finished


@dataclass(frozen=True, slots=True)
class Decision:
    """The job as it is from now on, and what is to be done about it, in order."""

    job: Job
    effects: tuple[Effect, ...] = ()
