"""What follows for a job whose attempt is given up, has ended, or is lost: its end, or the queue again. Pure.

`retry.py` has the policy; here it is carried out on a draft. Used by `jobs.py` and `about_attempts.py`.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from services.scheduler import retry
from services.scheduler.draft import Draft
from services.scheduler.lifecycle import JobStep
from services.scheduler.records import Avoid, GivingUp, Job, Outcome
from shared.contracts.events import JobCancelled, JobFailed, JobQueued
from shared.contracts.reasons import Reason, ReasonCode, VerdictCode, because


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds: `tried_before_s` a site that did not start a job is left out for it; `outcome_s` the monitor has to
    tell the outcome of what a site says is over, before it counts as stopped.
    """

    limits: retry.Limits = field(default_factory=retry.Limits)
    tried_before_s: float = 300.0
    outcome_s: float = 10.0


def close_unconfirmed(draft: Draft, rules: Rules, jitter: float) -> None:
    """An end need not wait any longer; another attempt must, as long as the id is not closed."""
    match draft.attempt.giving_up:
        case GivingUp.CANCEL:
            draft.leave_attempt(ended=False)
            draft.end(JobStep.CANCEL_UNCONFIRMED, JobCancelled, because(ReasonCode.CANCELLED_BY_USER), confirmed=False)
        case GivingUp.MAX_RUNTIME:
            give_up(draft, rules, jitter, ended=False)
        case _ if draft.attempt.closed:
            _lost(draft, because(ReasonCode.NODE_LOST), rules)
        case _:
            draft.set_attempt(closing_at=draft.now)


def site_lost(draft: Draft, rules: Rules, jitter: float) -> None:
    """The site is away for good measure: its closing stays owed, and `on_lost` decides meanwhile."""
    match draft.attempt.giving_up:
        case GivingUp.CANCEL:
            return
        case GivingUp.MAX_RUNTIME | GivingUp.OUTCOME:
            give_up(draft, rules, jitter, ended=False)
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
    follow(draft, verdict)


def give_up(draft: Draft, rules: Rules, jitter: float, *, ended: bool) -> None:
    """The id is closed, or nobody waits for that any more: what follows depends on why."""
    attempt = draft.attempt
    limits, number = rules.limits, attempt.number
    draft.leave_attempt(ended=ended)
    match attempt.giving_up:
        case GivingUp.CANCEL:
            draft.end(JobStep.CANCEL_CONFIRMED, JobCancelled, because(ReasonCode.CANCELLED_BY_USER), confirmed=True)
        case GivingUp.MAX_RUNTIME:
            reason = because(ReasonCode.MAX_RUNTIME_EXCEEDED, max_runtime_s=draft.job.spec.max_runtime_s)
            follow(draft, retry.End(reason))
        case GivingUp.START_DEADLINE:
            _remember_tried(draft, rules)
            follow(draft, retry.free(because(ReasonCode.START_DEADLINE_PASSED), number=number, limits=limits))
        case GivingUp.SUSPENDED:
            reason = because(ReasonCode.SUSPENDED, draft.job.reason.message if draft.job.reason else None)
            follow(draft, retry.free(reason, number=number, limits=limits))
        case GivingUp.NODE_LOST:
            reason = because(ReasonCode.NODE_LOST)
            follow(draft, retry.after_lost_outcome(draft.job.spec, reason, number=number, limits=limits))
        case GivingUp.OUTCOME:
            assert attempt.outcome is not None
            follow(draft, after_outcome(draft, attempt.outcome, rules, jitter))
        case GivingUp.TAKEN | None:
            again = because(ReasonCode.WAITING_TO_BE_PLACED, "The attempt's id was taken; the job is placed anew.")
            follow(draft, retry.free(again, number=number, limits=limits))


def after_outcome(draft: Draft, outcome: Outcome, rules: Rules, jitter: float) -> retry.Again | retry.End:
    """What the policy says of this end of the attempt."""
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


def follow(draft: Draft, verdict: retry.Again | retry.End) -> None:
    """The policy's word becomes the job's end, or its way back to the queue."""
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
