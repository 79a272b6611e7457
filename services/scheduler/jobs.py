"""The core: what follows for a job from one thing that happened. Pure: (job, input, now) -> (job, effects).

Every message, answer of a site and deadline comes through `decide`; nothing else changes a job. Called by
`handlers.py`, `placing.py`, `performing.py` and `sweeping.py`, each inside the transaction that saves the result.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.scheduler import retry
from services.scheduler.deadlines import Deadline
from services.scheduler.decisions import (
    AboutAttempt,
    AttemptSeen,
    Call,
    CancelAsked,
    Decision,
    GaveUp,
    IdClosed,
    Input,
    Passed,
    Placed,
    Refusal,
    Registered,
    RegisterRefused,
    RegisterTaken,
    RegisterVoid,
    Reported,
    StopStray,
    StrayEnded,
    Suspended,
    Waits,
    Withheld,
)
from services.scheduler.draft import Draft
from services.scheduler.lifecycle import JobStep
from services.scheduler.records import Attempt, Avoid, GivingUp, Job, Outcome, Standing
from shared.contracts.commands import ReportProgress, SubmitJob
from shared.contracts.events import (
    JobCancelled,
    JobCancelling,
    JobFailed,
    JobPlaced,
    JobProgress,
    JobQueued,
    JobRejected,
    JobRunning,
    JobStarting,
    JobSucceeded,
)
from shared.contracts.reasons import Reason, ReasonCode, VerdictCode, because
from shared.engine import Closing
from shared.job import AttemptStatus, JobKind, JobState


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds: `tried_before_s` a site that did not start a job is left out for it; `outcome_s` the monitor has to
    tell the outcome of what a site says is over, before it counts as stopped.
    """

    limits: retry.Limits = field(default_factory=retry.Limits)
    tried_before_s: float = 300.0
    outcome_s: float = 10.0


# -- beginnings ---------------------------------------------------------------------------------------------------


def submitted(command: SubmitJob, turn: int, now: datetime, *, client: str = "", token_id: str = "") -> Decision:
    """A new job in the queue; handed in with this client and token."""
    draft = Draft(_accepted(command, now), now)
    draft.set(turn=turn, client=client, token_id=token_id)
    draft.step(JobStep.SUBMITTED)
    draft.tell(JobQueued, because(ReasonCode.WAITING_TO_BE_PLACED))
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
                _of_current(draft, told, rules, jitter)
            else:
                _of_another(draft, told)
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


def _of_current(draft: Draft, told: AboutAttempt, rules: Rules, jitter: float) -> None:
    match told:
        case AttemptSeen():
            _seen(draft, told, rules, jitter)
        case Registered():
            _show(draft)
        case RegisterVoid():
            draft.set_attempt(closed=True)
            _give_up(draft, rules, jitter, ended=True)
        case RegisterTaken():
            if draft.attempt.giving_up is None:
                draft.close_attempt(GivingUp.TAKEN)
        case RegisterRefused(_, text):
            _refused(draft, text, rules, jitter)
        case Withheld(_, reason):
            _withheld(draft, reason)
        case IdClosed(_, closing):
            _id_closed(draft, closing, rules, jitter)


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


# -- attempts as the monitor sees them ----------------------------------------------------------------------------


def _show(draft: Draft) -> None:
    """The site has the attempt: it is never registered again."""
    if not draft.attempt.registered:
        draft.set_attempt(registered=True)
        draft.drop(Call.SUBMIT)


def _seen(draft: Draft, told: AttemptSeen, rules: Rules, jitter: float) -> None:
    _show(draft)
    newest = told.sequence > draft.attempt.seen
    if newest:
        draft.set_attempt(seen=told.sequence, node=told.node or draft.attempt.node)
    if told.outcome is not None:
        _ended(draft, told.outcome, rules, jitter)
    else:
        _alive(draft, told.status, newest)


def _alive(draft: Draft, status: AttemptStatus, newest: bool) -> None:
    """A sign of life. One that was overtaken still tells when things began, but not how they are."""
    attempt, now = draft.attempt, draft.now
    match status:
        case AttemptStatus.STARTING:
            draft.set_attempt(starting_at=attempt.starting_at or now)
            if draft.step(JobStep.ATTEMPT_STARTING):
                draft.tell(JobStarting)
        case AttemptStatus.RUNNING:
            draft.set_attempt(running_at=attempt.running_at or now)
            if draft.step(JobStep.ATTEMPT_RUNNING):
                draft.tell(JobRunning)
    if newest:
        away = status is AttemptStatus.DISCONNECTED
        draft.set_attempt(disconnected_at=(attempt.disconnected_at or now) if away else None)


def _ended(draft: Draft, outcome: Outcome, rules: Rules, jitter: float) -> None:
    attempt = draft.attempt
    if attempt.outcome is not None:
        return
    lost = outcome.status is AttemptStatus.LOST
    if lost and attempt.giving_up is GivingUp.CANCEL:
        return
    draft.set_attempt(outcome=outcome, ended_at=draft.now)
    if outcome.status is AttemptStatus.SUCCEEDED:
        draft.leave_attempt(ended=draft.job.spec.kind is JobKind.BATCH)
        draft.end(JobStep.ATTEMPT_SUCCEEDED, JobSucceeded, retry.reason_of(outcome))
    elif attempt.giving_up in (GivingUp.CANCEL, GivingUp.MAX_RUNTIME, GivingUp.SUSPENDED):
        _give_up(draft, rules, jitter, ended=not lost)
    elif attempt.giving_up is not None and outcome.status is AttemptStatus.STOPPED:
        _give_up(draft, rules, jitter, ended=True)
    else:
        _ended_badly(draft, outcome, rules, jitter)


def _ended_badly(draft: Draft, outcome: Outcome, rules: Rules, jitter: float) -> None:
    """By itself. Another attempt needs the id of this one closed first; the job's end does not wait for that."""
    again = isinstance(_after_outcome(draft, outcome, rules, jitter), retry.Again)
    if again and not draft.attempt.closed:
        draft.close_attempt(GivingUp.OUTCOME)
        return
    draft.set_attempt(giving_up=GivingUp.OUTCOME)
    _give_up(draft, rules, jitter, ended=_is_over(draft, outcome))


def _is_over(draft: Draft, outcome: Outcome) -> bool:
    """Whether nothing of the attempt can run any more: Nomad runs lost work and services again if left alone."""
    return outcome.status is not AttemptStatus.LOST and draft.job.spec.kind is JobKind.BATCH


# -- attempts as registering and closing them shows ---------------------------------------------------------------


def _refused(draft: Draft, text: str, rules: Rules, jitter: float) -> None:
    """The site does not take the job as it is written: never try it there again."""
    attempt = draft.attempt
    draft.set(avoid={**draft.job.avoid, attempt.site: Avoid(VerdictCode.REFUSED_BY_SITE, text[:500])})
    if attempt.giving_up is not None:
        _give_up(draft, rules, jitter, ended=True)
        return
    draft.leave_attempt(ended=True)
    reason = because(ReasonCode.REFUSED_BY_SITE, f"{attempt.site} refused the job: {text[:500]}")
    _follow(draft, retry.free(reason, number=attempt.number, limits=rules.limits))


def _withheld(draft: Draft, reason: Reason) -> None:
    """Without its secrets no attempt can do its work. An earlier register may have won: its id is closed."""
    if draft.attempt.giving_up is not None or draft.attempt.registered:
        return
    draft.leave_attempt(ended=False)
    draft.end(JobStep.GAVE_UP, JobFailed, reason)


def _id_closed(draft: Draft, closing: Closing, rules: Rules, jitter: float) -> None:
    attempt = draft.attempt
    draft.set_attempt(closed=True)
    why = attempt.giving_up
    if closing is Closing.NEVER_RAN:
        _give_up(draft, rules, jitter, ended=True)
    elif why is GivingUp.OUTCOME:
        over = attempt.outcome is not None and attempt.outcome.status is not AttemptStatus.LOST
        _give_up(draft, rules, jitter, ended=closing is Closing.ENDED or over)
    elif closing is Closing.ENDED:
        _nothing_left(draft, rules, jitter)
    elif why is GivingUp.NODE_LOST:
        _give_up(draft, rules, jitter, ended=False)


def _nothing_left(draft: Draft, rules: Rules, jitter: float) -> None:
    """It is over, perhaps well: the outcome comes from the monitor, and only its silence makes it a stop."""
    since = draft.attempt.nothing_left_at
    if since is None:
        draft.set_attempt(nothing_left_at=draft.now)
    elif draft.now - since >= timedelta(seconds=rules.outcome_s):
        _give_up(draft, rules, jitter, ended=True)


def _of_another(draft: Draft, told: AboutAttempt) -> None:
    """Not the current attempt: the job does not move. What still lives is stopped, what is over is put away."""
    match told:
        case Registered() | RegisterTaken() | Withheld() | IdClosed(closing=Closing.STOPPING):
            return
        case AttemptSeen(outcome=Outcome(status=AttemptStatus.LOST)):
            return
        case AttemptSeen(outcome=None):
            draft.effects.append(StopStray(told.number, told.sequence))
        case _:
            draft.effects.append(StrayEnded(told.number))
            if draft.job.attempt is not None and draft.job.number == told.number:
                draft.set_attempt(standing=Standing.ENDED, ended_at=draft.attempt.ended_at or draft.now)


# -- giving up ----------------------------------------------------------------------------------------------------


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
        _close_unconfirmed(draft, rules, jitter)
    elif deadline is Deadline.SITE_GRACE:
        _site_lost(draft, rules, jitter)
    elif attempt.giving_up is None:
        draft.close_attempt(_CLOSES[deadline])


_CLOSES = {
    Deadline.START: GivingUp.START_DEADLINE,
    Deadline.MAX_RUNTIME: GivingUp.MAX_RUNTIME,
    Deadline.NODE_GRACE: GivingUp.NODE_LOST,
}


def _close_unconfirmed(draft: Draft, rules: Rules, jitter: float) -> None:
    """An end need not wait any longer; another attempt must, as long as the id is not closed."""
    match draft.attempt.giving_up:
        case GivingUp.CANCEL:
            draft.leave_attempt(ended=False)
            draft.end(JobStep.CANCEL_UNCONFIRMED, JobCancelled, because(ReasonCode.CANCELLED_BY_USER), confirmed=False)
        case GivingUp.MAX_RUNTIME:
            _give_up(draft, rules, jitter, ended=False)
        case _ if draft.attempt.closed:
            _lost(draft, because(ReasonCode.NODE_LOST), rules)
        case _:
            draft.set_attempt(closing_at=draft.now)


def _site_lost(draft: Draft, rules: Rules, jitter: float) -> None:
    """The site is away for good measure: its closing stays owed, and `on_lost` decides meanwhile."""
    match draft.attempt.giving_up:
        case GivingUp.CANCEL:
            return
        case GivingUp.MAX_RUNTIME | GivingUp.OUTCOME:
            _give_up(draft, rules, jitter, ended=False)
        case _:
            _lost(draft, because(ReasonCode.SITE_LOST, site=draft.attempt.site), rules)


def _lost(draft: Draft, reason: Reason, rules: Rules) -> None:
    """`on_lost`, for an attempt that may still run where nobody can see it."""
    verdict = retry.after_loss(draft.job.spec, reason, number=draft.attempt.number, limits=rules.limits)
    if isinstance(verdict, retry.Wait):
        if draft.attempt.closing_at is not None:
            draft.set_attempt(closing_at=draft.now)
        return
    draft.leave_attempt(ended=False)
    _follow(draft, verdict)


def _give_up(draft: Draft, rules: Rules, jitter: float, *, ended: bool) -> None:
    """The id is closed, or nobody waits for that any more: what follows depends on why."""
    attempt = draft.attempt
    limits, number = rules.limits, attempt.number
    draft.leave_attempt(ended=ended)
    match attempt.giving_up:
        case GivingUp.CANCEL:
            draft.end(JobStep.CANCEL_CONFIRMED, JobCancelled, because(ReasonCode.CANCELLED_BY_USER), confirmed=True)
        case GivingUp.MAX_RUNTIME:
            reason = because(ReasonCode.MAX_RUNTIME_EXCEEDED, max_runtime_s=draft.job.spec.max_runtime_s)
            _follow(draft, retry.End(reason))
        case GivingUp.START_DEADLINE:
            _remember_tried(draft, rules)
            _follow(draft, retry.free(because(ReasonCode.START_DEADLINE_PASSED), number=number, limits=limits))
        case GivingUp.SUSPENDED:
            reason = because(ReasonCode.SUSPENDED, draft.job.reason.message if draft.job.reason else None)
            _follow(draft, retry.free(reason, number=number, limits=limits))
        case GivingUp.NODE_LOST:
            reason = because(ReasonCode.NODE_LOST)
            _follow(draft, retry.after_lost_outcome(draft.job.spec, reason, number=number, limits=limits))
        case GivingUp.OUTCOME:
            assert attempt.outcome is not None
            _follow(draft, _after_outcome(draft, attempt.outcome, rules, jitter))
        case GivingUp.TAKEN | None:
            again = because(ReasonCode.WAITING_TO_BE_PLACED, "The attempt's id was taken; the job is placed anew.")
            _follow(draft, retry.free(again, number=number, limits=limits))


def _after_outcome(draft: Draft, outcome: Outcome, rules: Rules, jitter: float) -> retry.Again | retry.End:
    return retry.after_outcome(
        draft.job.spec, outcome, number=draft.attempt.number, retries_used=draft.job.retries_used, jitter=jitter,
        limits=rules.limits,
    )  # fmt: skip


def _remember_tried(draft: Draft, rules: Rules) -> None:
    tried = Avoid(
        VerdictCode.TRIED_BEFORE, "did not start the job within its start_deadline",
        until=draft.now + timedelta(seconds=rules.tried_before_s),
    )  # fmt: skip
    draft.set(avoid={**draft.job.avoided(draft.now), draft.attempt.site: tried})


def _follow(draft: Draft, verdict: retry.Again | retry.End) -> None:
    if isinstance(verdict, retry.End):
        draft.end(JobStep.GAVE_UP, JobFailed, verdict.reason)
        return
    if not draft.step(JobStep.REQUEUED):
        return
    started = draft.attempt.starting_at is not None or draft.attempt.running_at is not None
    draft.set(
        retries_used=draft.job.retries_used + verdict.counted,
        not_before=draft.now + timedelta(seconds=verdict.delay_s) if verdict.delay_s else None,
        waiting_since=draft.now if started else draft.job.waiting_since,
    )
    draft.tell(JobQueued, _why_again(draft.job, verdict))


def _why_again(job: Job, verdict: retry.Again) -> Reason:
    if not verdict.counted:
        return verdict.reason
    left = job.spec.retries.attempts - job.retries_used
    message = f"{verdict.reason.message} The job is tried again; {left} of its retries are left."
    details = {**verdict.reason.details, "cause": verdict.reason.code.value, "delay_s": round(verdict.delay_s, 3)}
    return Reason(code=ReasonCode.RETRYING, message=message, details=details)


__all__ = ["Rules", "decide", "rejected", "submitted"]
