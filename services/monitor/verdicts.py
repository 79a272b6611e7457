"""How one allocation ended, in our words. Pure; the order of the rules is the point (nomad-verified.md, 0.3 and h).

Nomad's `complete` alone also means stopped, drained and out of time: success is only what nothing and nobody ended.
"""

from dataclasses import dataclass
from typing import Final

from services.monitor.evidence import FETCH_TROUBLE, AllocationEvidence, TaskEvidence
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import AttemptStatus, FailureClass

_UNSEEN: Final = "The task is gone and nobody saw its end: its machine died, or what watched over it there."
_IMAGE_WORDS: Final = ("failed to pull", "pull access denied", "manifest unknown", "no such image", "image not found")


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its cause. `task` is the one that decided it, None when there was none."""

    status: AttemptStatus
    reason: Reason
    failure: FailureClass | None = None
    task: TaskEvidence | None = None


def verdict(allocation: AllocationEvidence) -> Verdict:
    """The verdict on an allocation that is client-terminal."""
    if allocation.client == "lost":
        return Verdict(AttemptStatus.LOST, because(ReasonCode.NODE_LOST, node=allocation.node))
    if allocation.preempted or allocation.desired == "evict":
        return _failed(allocation, FailureClass.EVICTED, ReasonCode.EVICTED)
    if allocation.timeout:
        return _failed(allocation, FailureClass.TIMEOUT, ReasonCode.MAX_RUNTIME_EXCEEDED)
    if allocation.desired != "run":
        return _taken_away(allocation)
    if allocation.client == "complete" and _clean(allocation):
        return Verdict(AttemptStatus.SUCCEEDED, because(ReasonCode.COMPLETED), None, _decisive(allocation))
    return _broken(allocation)


def _clean(allocation: AllocationEvidence) -> bool:
    """Every task's last exit code is 0 and nothing killed it."""
    return bool(allocation.tasks) and all(task.exit_code == 0 and not task.killed for task in allocation.tasks)


def _taken_away(allocation: AllocationEvidence) -> Verdict:
    if allocation.migrating or "migrated" in allocation.desired_words:
        return _failed(allocation, FailureClass.DRAINED, ReasonCode.DRAINED)
    return Verdict(AttemptStatus.STOPPED, because(ReasonCode.STOPPED), None, _decisive(allocation))


def _broken(allocation: AllocationEvidence) -> Verdict:
    """It ended by itself, and not well."""
    task = _decisive(allocation)
    if task is None or (task.killed and allocation.client == "complete"):
        return _failed(allocation, FailureClass.UNKNOWN, ReasonCode.UNKNOWN)
    if task.out_of_memory:
        return _failed(allocation, FailureClass.OUT_OF_MEMORY, ReasonCode.OUT_OF_MEMORY)
    if task.exit_code not in (None, 0):
        return _failed(allocation, FailureClass.TASK_ERROR, ReasonCode.TASK_ERROR, _exit_words(task))
    if task.unseen and task.started_at is not None:
        return Verdict(AttemptStatus.LOST, because(ReasonCode.NODE_LOST, _UNSEEN, node=allocation.node), None, task)
    if task.trouble in FETCH_TROUBLE or (task.trouble and _about_image(task.words)):
        return _failed(allocation, FailureClass.IMAGE_OR_ARTIFACT, ReasonCode.IMAGE_OR_ARTIFACT)
    if task.trouble or task.started_at is None:
        return _failed(allocation, FailureClass.START_FAILURE, ReasonCode.START_FAILURE)
    return _failed(allocation, FailureClass.UNKNOWN, ReasonCode.UNKNOWN)


def _failed(
    allocation: AllocationEvidence, failure: FailureClass, code: ReasonCode, message: str | None = None
) -> Verdict:
    task = _decisive(allocation)
    details = {} if task is None or task.exit_code is None else {"exit_code": task.exit_code, "signal": task.signal}
    return Verdict(AttemptStatus.FAILED, because(code, message, **details), failure, task)


def _decisive(allocation: AllocationEvidence) -> TaskEvidence | None:
    """The first task that went wrong, else the first."""
    wrong = (task for task in allocation.tasks if task.exit_code != 0)
    return next(wrong, allocation.tasks[0] if allocation.tasks else None)


def _exit_words(task: TaskEvidence) -> str:
    if task.signal:
        return f"The task was ended by signal {task.signal} (exit code {task.exit_code})."
    return f"The task ended with exit code {task.exit_code}."


def _about_image(words: str) -> bool:
    return any(part in words.lower() for part in _IMAGE_WORDS)


def nomad_says(allocation: AllocationEvidence, task: TaskEvidence | None) -> str:
    """Nomad's own words about an end, for people: the allocation's, then the task's."""
    said = (allocation.desired_words, allocation.client_words, task.words if task else "")
    return "; ".join(dict.fromkeys(part for part in said if part))[:2000]
