"""What the evidence about an attempt means by now: its status with the allocation and verdict behind it.

Pure, and without memory: whether the attempt moves to what is found here, its own table says (`attempts.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.monitor.evidence import AllocationEvidence, Evidence
from services.monitor.verdicts import Verdict, verdict
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import AttemptStatus, FailureClass


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence means now. `says` tells one telling of a status from the next."""

    status: AttemptStatus
    allocation: AllocationEvidence | None = None
    verdict: Verdict | None = None
    reason: Reason | None = None
    says: str = ""


def find(evidence: Evidence) -> Finding | None:
    """What is true of the attempt now; None where the evidence does not say (dead and nobody saw how, or all ended and
    the job was not seen yet, so that nobody knows whether Nomad goes on)."""
    ended = _ended(evidence)
    if ended is not None:
        return ended
    active = [allocation for allocation in evidence.current if not allocation.ended]
    if active and evidence.job.closed:
        return gone(evidence)
    if active:
        return _active(active[-1])
    if evidence.allocations and evidence.job.service is None:
        return None
    if evidence.allocations or not evidence.job.dead:
        return _pending(evidence)
    if evidence.job.stop:
        reason = because(ReasonCode.STOPPED, "The attempt was stopped before it ran.")
        return Finding(AttemptStatus.STOPPED, None, Verdict(AttemptStatus.STOPPED, reason), reason)
    return None


def gone(evidence: Evidence) -> Finding:
    lost = Verdict(AttemptStatus.LOST, because(ReasonCode.VANISHED))
    return Finding(AttemptStatus.LOST, evidence.newest, lost, lost.reason, ReasonCode.VANISHED)


def _active(allocation: AllocationEvidence) -> Finding:
    match allocation.client:
        case "running":
            return Finding(AttemptStatus.RUNNING, allocation, says=allocation.id)
        case "unknown":
            return Finding(AttemptStatus.DISCONNECTED, allocation, says=allocation.id)
    return Finding(AttemptStatus.STARTING, allocation, says=allocation.id)


def _pending(evidence: Evidence) -> Finding:
    reason = evidence.blocking.reason
    return Finding(AttemptStatus.PENDING, None, None, reason, reason.code if reason else "")


def _ended(evidence: Evidence) -> Finding | None:
    """The outcome, when nothing of the attempt runs any more and Nomad will not start anything either."""
    if evidence.job.service is False:
        lost = next((one for one in evidence.allocations.values() if one.client == "lost"), None)
        if lost is not None:
            return _outcome(lost)
    current = evidence.current
    if not current or not all(allocation.ended for allocation in current):
        return None
    deciding = _deciding(current) if evidence.job.service is False else current[-1]
    return None if _may_come_again(evidence, deciding) else _outcome(deciding)


_PRECEDENCE: Final = (AttemptStatus.LOST, AttemptStatus.FAILED, AttemptStatus.STOPPED, AttemptStatus.SUCCEEDED)


def _deciding(allocations: Sequence[AllocationEvidence]) -> AllocationEvidence:
    """Of several parts of a batch the worst one decides."""
    return min(allocations, key=lambda allocation: _PRECEDENCE.index(verdict(allocation).status))


def _may_come_again(evidence: Evidence, allocation: AllocationEvidence) -> bool:
    """Whether Nomad still means to run it: it keeps services up, and may reschedule what failed by itself.

    Our batch work is never rescheduled; then Nomad calls the job dead in the very line that ends the allocation. What
    was drained, evicted, stopped or out of time is over for a batch whatever Nomad has in mind: the platform decides.
    """
    if evidence.job.service is False:
        failed = verdict(allocation)
        by_itself = failed.status is AttemptStatus.FAILED and failed.failure not in _TAKEN
        return by_itself and not evidence.job.dead and evidence.job.index >= (allocation.ended_index or 0)
    return not evidence.job.dead


_TAKEN: Final = frozenset({FailureClass.DRAINED, FailureClass.EVICTED, FailureClass.TIMEOUT})


def _outcome(allocation: AllocationEvidence) -> Finding:
    judged = verdict(allocation)
    return Finding(judged.status, allocation, judged, judged.reason, allocation.id)
