"""After an attempt: again, or the end? Pure policy, one rule per function; `jobs.py` asks, nobody here waits.

What is the user's fault or the program's costs a retry of `retries`; what the platform or a site did (drain, eviction,
loss, a full or refusing site) costs none, and only `Limits.most_attempts` bounds it.
"""

from dataclasses import dataclass
from typing import Final

from services.scheduler.records import Outcome
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import AttemptStatus, FailureClass, JobSpec, OnLost


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of trying again. Seconds; the wait doubles from `first_s` to `most_s` with every counted retry."""

    first_s: float = 1.0
    most_s: float = 300.0
    most_attempts: int = 50


@dataclass(frozen=True, slots=True)
class Again:
    """One more attempt after `delay_s`; `counted` = it uses up one of the job's retries."""

    reason: Reason
    counted: bool = False
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """No further attempt: the job has failed for this reason."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave the attempt where it is; it may come back."""

    reason: Reason


REASONS: Final[dict[FailureClass, ReasonCode]] = {
    FailureClass.TASK_ERROR: ReasonCode.TASK_ERROR,
    FailureClass.OUT_OF_MEMORY: ReasonCode.OUT_OF_MEMORY,
    FailureClass.START_FAILURE: ReasonCode.START_FAILURE,
    FailureClass.IMAGE_OR_ARTIFACT: ReasonCode.IMAGE_OR_ARTIFACT,
    FailureClass.TIMEOUT: ReasonCode.MAX_RUNTIME_EXCEEDED,
    FailureClass.DRAINED: ReasonCode.DRAINED,
    FailureClass.EVICTED: ReasonCode.EVICTED,
    FailureClass.UNKNOWN: ReasonCode.UNKNOWN,
}

_NOT_ITS_FAULT: Final = frozenset({FailureClass.DRAINED, FailureClass.EVICTED})


def delay_s(retries_used: int, jitter: float, limits: Limits) -> float:
    """Seconds before the next attempt: full doubling with `jitter` in [0, 1) over the upper half."""
    ceiling = min(limits.first_s * 2.0**retries_used, limits.most_s)
    return float(ceiling / 2 + jitter * ceiling / 2)


def after_outcome(
    spec: JobSpec, outcome: Outcome, *, number: int, retries_used: int, jitter: float, limits: Limits
) -> Again | End:
    """What follows from an attempt that ended otherwise than well by itself (failed, lost, or stopped by others)."""
    reason = reason_of(outcome)
    if outcome.status is AttemptStatus.LOST:
        return after_lost_outcome(spec, reason, number=number, limits=limits)
    failure = outcome.failure or FailureClass.UNKNOWN
    if failure in _NOT_ITS_FAULT:
        return free(reason, number=number, limits=limits)
    if failure in spec.retries.on and retries_used < spec.retries.attempts and number < limits.most_attempts:
        return Again(reason, counted=True, delay_s=delay_s(retries_used, jitter, limits))
    return End(reason)


def after_loss(spec: JobSpec, reason: Reason, *, number: int, limits: Limits) -> Again | End | Wait:
    """`on_lost`: the node or site of the attempt is away, and the attempt may still come back with it."""
    match spec.on_lost:
        case OnLost.WAIT:
            return Wait(reason)
        case OnLost.FAIL:
            return End(reason)
        case OnLost.RETRY:
            return free(reason, number=number, limits=limits)


def after_lost_outcome(spec: JobSpec, reason: Reason, *, number: int, limits: Limits) -> Again | End:
    """`on_lost` when the attempt is lost for good: there is nothing to wait for, and `wait` forbids a second run."""
    return free(reason, number=number, limits=limits) if spec.on_lost is OnLost.RETRY else End(reason)


def free(reason: Reason, *, number: int, limits: Limits) -> Again | End:
    """One more attempt that costs no retry, unless there were too many already."""
    return Again(reason) if number < limits.most_attempts else End(reason)


def reason_of(outcome: Outcome) -> Reason:
    """The job's reason for an attempt's outcome: the monitor's own words where it gave any."""
    if outcome.reason is not None:
        return outcome.reason
    if outcome.exit_code is None:
        return because(_code_of(outcome))
    return because(_code_of(outcome), exit_code=outcome.exit_code)


def _code_of(outcome: Outcome) -> ReasonCode:
    match outcome.status:
        case AttemptStatus.SUCCEEDED:
            return ReasonCode.COMPLETED
        case AttemptStatus.STOPPED:
            return ReasonCode.STOPPED
        case AttemptStatus.LOST:
            return ReasonCode.VANISHED if outcome.vanished else ReasonCode.NODE_LOST
    return REASONS[outcome.failure or FailureClass.UNKNOWN]
