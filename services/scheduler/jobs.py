"""The core: what follows for a job from one thing that happened. Pure: (job, input, now) -> (job, effects).

Every message, answer of a site and deadline comes through `decide`; nothing else changes a job. What is told of an
attempt is for `about_attempts.py`, what follows when one is given up for `giving_up.py`. Called through `keeping.py`,
inside the transaction that saves the result.
"""

from datetime import datetime

from services.scheduler import about_attempts, giving_up
from services.scheduler.deadlines import Deadline
from services.scheduler.decisions import (
    Call,
    CancelAsked,
    Decision,
    GaveUp,
    Input,
    Passed,
    Placed,
    Refusal,
    Reported,
    Suspended,
    Waits,
)
from services.scheduler.draft import Draft
from services.scheduler.giving_up import Rules
from services.scheduler.lifecycle import JobStep
from services.scheduler.records import Attempt, GivingUp, Job, Standing
from shared.contracts.commands import ReportProgress, SubmitJob
from shared.contracts.events import (
    JobCancelled,
    JobCancelling,
    JobFailed,
    JobPlaced,
    JobProgress,
    JobQueued,
    JobRejected,
)
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import AttemptStatus, JobState

# -- beginnings ---------------------------------------------------------------------------------------------------


def submitted(
    command: SubmitJob, turn: int, now: datetime, *, client: str = "", token_id: str = "", why: Reason | None = None
) -> Decision:  # fmt: skip
    """A new job in the queue; handed in with this client and token. `why` it has to wait, where that is known."""
    draft = Draft(_accepted(command, now), now)
    draft.set(turn=turn, client=client, token_id=token_id)
    draft.step(JobStep.SUBMITTED)
    draft.tell(JobQueued, why or because(ReasonCode.WAITING_TO_BE_PLACED))
    return draft.decision()


def rejected(command: SubmitJob, reason: Reason, now: datetime) -> Decision:
    """A new job that may not run."""
    draft = Draft(_accepted(command, now), now)
    draft.end(JobStep.REJECTED, JobRejected, reason)
    return draft.decision()


def _accepted(command: SubmitJob, now: datetime) -> Job:
    since = min(command.submitted_at, now)
    return Job(
        id=command.job_id, owner=command.owner, spec=command.spec, state=JobState.ACCEPTED,
        submitted_at=since, waiting_since=since, phase_since=since,
    )  # fmt: skip


# -- everything else ----------------------------------------------------------------------------------------------


def decide(job: Job, told: Input, now: datetime, rules: Rules, jitter: float = 0.5) -> Decision:
    """What follows from `told`. `jitter` in [0, 1) spreads back-offs. Raises IllegalStep for what cannot happen."""
    draft = Draft(job, now)
    match told:
        case Placed():
            _placed(draft, told)
        case Waits():
            _waits(draft, told)
        case GaveUp(reason, verdicts):
            draft.end(JobStep.GAVE_UP, JobFailed, reason, verdicts=verdicts)
        case CancelAsked(at):
            _cancel_asked(draft, at)
        case Suspended(reason):
            _suspended(draft, reason)
        case Reported(report):
            _reported(draft, report)
        case Refusal(reason):
            draft.end(JobStep.REJECTED, JobRejected, reason)
        case Passed(deadline, verdicts):
            _passed(draft, deadline, rules, jitter) if deadline is not Deadline.MAX_WAIT else draft.end(
                JobStep.GAVE_UP, JobFailed, because(ReasonCode.NOT_PLACED_IN_TIME), verdicts=verdicts
            )
        case _:
            if job.attempt is not None and job.attempt.number == told.number and job.attempt.current:
                about_attempts.of_current(draft, told, rules, jitter)
            else:
                about_attempts.of_another(draft, told)
    return draft.decision()


def _waits(draft: Draft, told: Waits) -> None:
    """Told only when the reason is another than before."""
    if not draft.step(JobStep.TOLD_AGAIN):
        return
    if told.until is not None:
        draft.set(not_before=told.until)
    if draft.job.reason is None or draft.job.reason.code is not told.reason.code:
        draft.tell(JobQueued, told.reason)


def _reported(draft: Draft, report: ReportProgress) -> None:
    """A fact of the job, not a step of its life; what the job waits for, if anything, stays its reason."""
    told = {"fraction": report.fraction, "message": report.message, "results": report.results}
    draft.tell(JobProgress, draft.job.reason, **told)


def _placed(draft: Draft, told: Placed) -> None:
    number = draft.job.number + 1
    if not draft.step(JobStep.PLACED):
        return
    draft.set(
        attempt=Attempt(
            number=number, site=told.site, cluster=told.cluster, namespace=told.namespace, nonce=told.nonce,
            fence=told.fence, need=told.need, placed_at=draft.now,
        ),
        not_before=None,
    )  # fmt: skip
    draft.tell(JobPlaced, receipt=told.receipt)
    draft.owe(Call.SUBMIT)


def _cancel_asked(draft: Draft, at: datetime) -> None:
    """At once where nothing is in flight; else the id is closed first."""
    reason = because(ReasonCode.CANCELLED_BY_USER)
    draft.set(cancel_requested_at=draft.job.cancel_requested_at or at)
    if draft.job.state is JobState.QUEUED:
        left = draft.job.attempt is not None and draft.job.attempt.standing is Standing.ABANDONED
        draft.end(JobStep.CANCEL_REQUESTED, JobCancelled, reason, confirmed=not left)
    elif draft.step(JobStep.CANCEL_REQUESTED):
        draft.tell(JobCancelling, reason)
        over = draft.attempt.outcome is not None and draft.attempt.outcome.status is not AttemptStatus.LOST
        draft.close_attempt(GivingUp.CANCEL)
        if over:
            draft.leave_attempt(ended=False)
            draft.end(JobStep.CANCEL_CONFIRMED, JobCancelled, reason, confirmed=True)


def _suspended(draft: Draft, reason: Reason) -> None:
    """What runs is stopped, and the job goes back to the queue, where it is held; what ends anyway is left to end."""
    attempt = draft.job.attempt
    if attempt is None or not attempt.current or attempt.giving_up is not None:
        return
    draft.set(reason=reason)
    draft.close_attempt(GivingUp.SUSPENDED)


def _passed(draft: Draft, deadline: Deadline, rules: Rules, jitter: float) -> None:
    """A deadline of the attempt in flight; one that comes too late finds nothing to do."""
    attempt = draft.job.attempt
    if attempt is None or not attempt.current:
        return
    if deadline is Deadline.CLOSE_GRACE:
        giving_up.close_unconfirmed(draft, rules, jitter)
    elif deadline is Deadline.SITE_GRACE:
        giving_up.site_lost(draft, rules, jitter)
    elif attempt.giving_up is None:
        draft.close_attempt(_CLOSES[deadline])


_CLOSES = {
    Deadline.START: GivingUp.START_DEADLINE,
    Deadline.MAX_RUNTIME: GivingUp.MAX_RUNTIME,
    Deadline.NODE_GRACE: GivingUp.NODE_LOST,
}


__all__ = ["Rules", "decide", "rejected", "submitted"]
