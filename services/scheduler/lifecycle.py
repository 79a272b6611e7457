"""The life of a job as a table (architecture, section 3): which step leads from which state to which.

Pure. `jobs.py` decides which step happened and asks here where it leads; the diagram in the docs is drawn from
`TABLE`, and the tests walk every (state, step) pair. Attempts have their own life, kept by the monitor.
"""

from enum import StrEnum
from typing import Final

from shared.errors import SeraiError
from shared.job import FINAL_JOB_STATES, JobState


class JobStep(StrEnum):
    """What can happen to a job, in the scheduler's eyes. Attempt steps mean the current attempt, never an older one."""

    SUBMITTED = "submitted"
    TOLD_AGAIN = "told_again"
    """It still waits, but for another reason."""
    PLACED = "placed"
    ATTEMPT_STARTING = "attempt_starting"
    ATTEMPT_RUNNING = "attempt_running"
    ATTEMPT_SUCCEEDED = "attempt_succeeded"
    REQUEUED = "requeued"
    """The attempt was given up and the policy says: another one."""
    GAVE_UP = "gave_up"
    """The policy says: no further attempt."""
    CANCEL_REQUESTED = "cancel_requested"
    CANCEL_CONFIRMED = "cancel_confirmed"
    CANCEL_UNCONFIRMED = "cancel_unconfirmed"
    REJECTED = "rejected"


class IllegalStep(SeraiError):
    """A pair that neither moves nor is ignored: a fault in our own code."""


_S, _T = JobState, JobStep

TABLE: Final[dict[tuple[JobState, JobStep], JobState]] = {
    (_S.ACCEPTED, _T.SUBMITTED): _S.QUEUED,
    (_S.ACCEPTED, _T.REJECTED): _S.REJECTED,
    (_S.QUEUED, _T.TOLD_AGAIN): _S.QUEUED,
    (_S.QUEUED, _T.PLACED): _S.PLACED,
    (_S.QUEUED, _T.GAVE_UP): _S.FAILED,
    (_S.QUEUED, _T.CANCEL_REQUESTED): _S.CANCELLED,
    (_S.QUEUED, _T.REJECTED): _S.REJECTED,
    (_S.PLACED, _T.ATTEMPT_STARTING): _S.STARTING,
    (_S.PLACED, _T.ATTEMPT_RUNNING): _S.RUNNING,
    (_S.PLACED, _T.ATTEMPT_SUCCEEDED): _S.SUCCEEDED,
    (_S.PLACED, _T.REQUEUED): _S.QUEUED,
    (_S.PLACED, _T.GAVE_UP): _S.FAILED,
    (_S.PLACED, _T.CANCEL_REQUESTED): _S.CANCELLING,
    (_S.STARTING, _T.ATTEMPT_RUNNING): _S.RUNNING,
    (_S.STARTING, _T.ATTEMPT_SUCCEEDED): _S.SUCCEEDED,
    (_S.STARTING, _T.REQUEUED): _S.QUEUED,
    (_S.STARTING, _T.GAVE_UP): _S.FAILED,
    (_S.STARTING, _T.CANCEL_REQUESTED): _S.CANCELLING,
    (_S.RUNNING, _T.ATTEMPT_SUCCEEDED): _S.SUCCEEDED,
    (_S.RUNNING, _T.REQUEUED): _S.QUEUED,
    (_S.RUNNING, _T.GAVE_UP): _S.FAILED,
    (_S.RUNNING, _T.CANCEL_REQUESTED): _S.CANCELLING,
    (_S.CANCELLING, _T.ATTEMPT_SUCCEEDED): _S.SUCCEEDED,
    (_S.CANCELLING, _T.CANCEL_CONFIRMED): _S.CANCELLED,
    (_S.CANCELLING, _T.CANCEL_UNCONFIRMED): _S.CANCELLED,
}
"""(state, step) -> state."""

_LATE_ATTEMPT = (_T.ATTEMPT_STARTING, _T.ATTEMPT_RUNNING, _T.ATTEMPT_SUCCEEDED)
_IN_FLIGHT = (_S.PLACED, _S.STARTING, _S.RUNNING, _S.CANCELLING)

IGNORED: Final[dict[tuple[JobState, JobStep], str]] = {
    **{(state, step): "final states never change" for state in sorted(FINAL_JOB_STATES) for step in JobStep},
    **{(state, _T.SUBMITTED): "the same command came twice" for state in (_S.QUEUED, *_IN_FLIGHT)},
    **{(_S.QUEUED, step): "late: that attempt has been given up" for step in _LATE_ATTEMPT},
    **{(state, _T.TOLD_AGAIN): "late: it has been placed meanwhile" for state in _IN_FLIGHT},
    **{(state, _T.ATTEMPT_STARTING): "late: it got further already" for state in (_S.STARTING, _S.RUNNING)},
    (_S.RUNNING, _T.ATTEMPT_RUNNING): "late: known already",
    (_S.CANCELLING, _T.ATTEMPT_STARTING): "it is being stopped; only its end matters",
    (_S.CANCELLING, _T.ATTEMPT_RUNNING): "it is being stopped; only its end matters",
    (_S.CANCELLING, _T.CANCEL_REQUESTED): "asked before",
}
"""(state, step) -> why it changes nothing."""


def step(state: JobState, what: JobStep) -> JobState | None:
    """The state that `what` leads to, or None when it is to be ignored. Raises IllegalStep for any other pair."""
    target = TABLE.get((state, what))
    if target is None and (state, what) not in IGNORED:
        raise IllegalStep(f"a job that is {state} cannot take the step {what!s}", code="illegal_step")
    return target
