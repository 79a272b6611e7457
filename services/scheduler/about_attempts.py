"""What is told of an attempt, by the monitor that sees it or by the calls that register and close it, and what follows
for its job. Pure; used by `jobs.py` alone.
"""

from datetime import timedelta

from services.scheduler import giving_up, retry
from services.scheduler.decisions import (
    AboutAttempt,
    AttemptSeen,
    Call,
    IdClosed,
    Registered,
    RegisterRefused,
    RegisterTaken,
    RegisterVoid,
    StopStray,
    StrayEnded,
    Withheld,
)
from services.scheduler.draft import Draft
from services.scheduler.giving_up import Rules
from services.scheduler.lifecycle import JobStep
from services.scheduler.records import Avoid, GivingUp, Outcome, Standing
from shared.contracts.events import JobFailed, JobRunning, JobStarting, JobSucceeded
from shared.contracts.reasons import Reason, ReasonCode, VerdictCode, because
from shared.engine import Closing
from shared.job import AttemptStatus, JobKind


def of_current(draft: Draft, told: AboutAttempt, rules: Rules, jitter: float) -> None:
    """Of the attempt that the job is at now."""
    match told:
        case AttemptSeen():
            _seen(draft, told, rules, jitter)
        case Registered():
            _show(draft)
        case RegisterVoid():
            draft.set_attempt(closed=True)
            giving_up.give_up(draft, rules, jitter, ended=True)
        case RegisterTaken():
            if draft.attempt.giving_up is None:
                draft.close_attempt(GivingUp.TAKEN)
        case RegisterRefused(_, text):
            _refused(draft, text, rules, jitter)
        case Withheld(_, reason):
            _withheld(draft, reason)
        case IdClosed(_, closing):
            _id_closed(draft, closing, rules, jitter)


# -- as the monitor sees them -------------------------------------------------------------------------------------


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
        giving_up.give_up(draft, rules, jitter, ended=not lost)
    elif attempt.giving_up is not None and outcome.status is AttemptStatus.STOPPED:
        giving_up.give_up(draft, rules, jitter, ended=True)
    else:
        _ended_badly(draft, outcome, rules, jitter)


def _ended_badly(draft: Draft, outcome: Outcome, rules: Rules, jitter: float) -> None:
    """By itself. Another attempt needs the id of this one closed first; the job's end does not wait for that."""
    again = isinstance(giving_up.after_outcome(draft, outcome, rules, jitter), retry.Again)
    if again and not draft.attempt.closed:
        draft.close_attempt(GivingUp.OUTCOME)
        return
    draft.set_attempt(giving_up=GivingUp.OUTCOME)
    giving_up.give_up(draft, rules, jitter, ended=_is_over(draft, outcome))


def _is_over(draft: Draft, outcome: Outcome) -> bool:
    """Whether nothing of the attempt can run any more: Nomad runs lost work and services again if left alone."""
    return outcome.status is not AttemptStatus.LOST and draft.job.spec.kind is JobKind.BATCH


# -- as registering and closing them shows ------------------------------------------------------------------------


def _refused(draft: Draft, text: str, rules: Rules, jitter: float) -> None:
    """The site does not take the job as it is written: never try it there again."""
    attempt = draft.attempt
    draft.set(avoid={**draft.job.avoid, attempt.site: Avoid(VerdictCode.REFUSED_BY_SITE, text[:500])})
    if attempt.giving_up is not None:
        giving_up.give_up(draft, rules, jitter, ended=True)
        return
    draft.leave_attempt(ended=True)
    reason = because(ReasonCode.REFUSED_BY_SITE, f"{attempt.site} refused the job: {text[:500]}")
    giving_up.follow(draft, retry.free(reason, number=attempt.number, limits=rules.limits))


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
        giving_up.give_up(draft, rules, jitter, ended=True)
    elif why is GivingUp.OUTCOME:
        over = attempt.outcome is not None and attempt.outcome.status is not AttemptStatus.LOST
        giving_up.give_up(draft, rules, jitter, ended=closing is Closing.ENDED or over)
    elif closing is Closing.ENDED:
        _nothing_left(draft, rules, jitter)
    elif why is GivingUp.NODE_LOST:
        giving_up.give_up(draft, rules, jitter, ended=False)


def _nothing_left(draft: Draft, rules: Rules, jitter: float) -> None:
    """It is over, perhaps well: the outcome comes from the monitor, and only its silence makes it a stop."""
    since = draft.attempt.nothing_left_at
    if since is None:
        draft.set_attempt(nothing_left_at=draft.now)
    elif draft.now - since >= timedelta(seconds=rules.outcome_s):
        giving_up.give_up(draft, rules, jitter, ended=True)


def of_another(draft: Draft, told: AboutAttempt) -> None:
    """Not of the current attempt: the job does not move. What still lives is stopped, what is over is put away."""
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
