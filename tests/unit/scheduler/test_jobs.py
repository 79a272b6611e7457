"""What follows for a job from what happened, one history each. The pure core: no store, no clock."""

import pytest

from services.scheduler import jobs
from services.scheduler.deadlines import Deadline
from services.scheduler.decisions import (
    Call,
    CancelAsked,
    Drop,
    Finished,
    IdClosed,
    Owe,
    Passed,
    Phase,
    Refusal,
    Registered,
    RegisterRefused,
    RegisterTaken,
    RegisterVoid,
    StopStray,
    StrayEnded,
    Waits,
)
from services.scheduler.records import GivingUp, Standing
from shared.contracts.reasons import ReasonCode, VerdictCode, because
from shared.engine import Closing
from shared.job import AttemptStatus, FailureClass, JobState
from tests.builders import NOON, a_job
from tests.unit.scheduler.builders import RULES, History, later, placed, seen

pytestmark = pytest.mark.fast
S = AttemptStatus


# -- the straight way ---------------------------------------------------------------------------------------------


def test_a_new_job_is_queued_with_its_first_event() -> None:
    history = History()
    assert history.states == ["queued"]
    assert history.last.reason.code is ReasonCode.WAITING_TO_BE_PLACED
    assert history.job.sequence == 1


def test_a_quick_job_may_skip_states() -> None:
    history = History().tell(placed(), seen(S.SUCCEEDED, sequence=2, exit_code=0))
    assert history.states == ["queued", "placed", "succeeded"]
    assert history.last.exit_code == 0


def test_every_phase_and_the_whole_become_spans_with_their_times() -> None:
    history = History().tell(placed(), seen(S.STARTING), seen(S.RUNNING, sequence=2), seen(S.SUCCEEDED, sequence=3))
    phases = [(e.name, e.start, e.end) for e in history.effects if isinstance(e, Phase)]
    assert phases == [
        ("queued", NOON, later(1)), ("placing", later(1), later(2)), ("starting", later(2), later(3)),
        ("running", later(3), later(4)),
    ]  # fmt: skip
    assert [(e.start, e.end) for e in history.effects if isinstance(e, Finished)] == [(NOON, later(4))]


def test_a_starting_that_comes_after_running_is_late() -> None:
    history = History().tell(placed(), seen(S.RUNNING, sequence=2), seen(S.STARTING, sequence=1))
    assert history.states == ["queued", "placed", "running"]


def test_a_site_that_shows_the_attempt_has_it_registered() -> None:
    history = History().tell(placed(), seen(S.PENDING))
    assert history.job.attempt is not None and history.job.attempt.registered
    assert Drop(Call.SUBMIT, 1) in history.effects


def test_an_overtaken_running_does_not_undo_that_the_node_is_away() -> None:
    history = History().tell(placed(), seen(S.DISCONNECTED, sequence=3), seen(S.RUNNING, sequence=2))
    assert history.job.attempt is not None
    assert history.job.attempt.disconnected_at == later(2)
    assert history.states[-1] == "running"


def test_a_node_that_comes_back_is_not_away_any_more() -> None:
    history = History().tell(placed(), seen(S.DISCONNECTED, sequence=3), seen(S.RUNNING, sequence=4))
    assert history.job.attempt is not None and history.job.attempt.disconnected_at is None


# -- trying again -------------------------------------------------------------------------------------------------


def test_a_failure_closes_the_id_before_the_next_attempt() -> None:
    history = History(retries={"attempts": 1}).tell(placed(), seen(S.FAILED))
    assert history.states == ["queued", "placed"]
    assert history.owes == ["submit", "close"]
    history.tell(IdClosed(1, Closing.ENDED))
    assert history.states == ["queued", "placed", "queued"]
    assert history.last.reason.code is ReasonCode.RETRYING
    assert history.last.reason.details["cause"] == "task_error"
    assert history.job.not_before is not None and history.job.retries_used == 1


def test_without_retries_left_the_job_has_failed() -> None:
    history = History(retries={"attempts": 1})
    history.tell(placed(), seen(S.FAILED), IdClosed(1, Closing.ENDED), placed("lyon"), seen(S.FAILED, number=2))
    assert history.states == ["queued", "placed", "queued", "placed", "failed"]
    assert (history.last.reason.code, history.last.attempt, history.last.exit_code) == ("task_error", 2, 3)


def test_a_class_that_is_not_asked_to_be_retried_is_not() -> None:
    history = History(retries={"attempts": 3, "on": ["out_of_memory"]}).tell(placed(), seen(S.FAILED))
    assert history.states[-1] == "failed"


def test_drained_work_goes_on_elsewhere_and_costs_no_retry() -> None:
    history = History().tell(placed(), seen(S.FAILED, failure=FailureClass.DRAINED), IdClosed(1, Closing.STOPPING))
    assert history.states[-1] == "queued"
    assert history.last.reason.code is ReasonCode.DRAINED
    assert history.job.retries_used == 0


def test_the_first_outcome_stands() -> None:
    history = History().tell(placed(), seen(S.LOST), seen(S.SUCCEEDED, sequence=2))
    assert history.states == ["queued", "placed"]
    history.tell(IdClosed(1, Closing.STOPPING), seen(S.SUCCEEDED, sequence=3))
    assert history.states == ["queued", "placed", "queued"]
    assert history.effects[-1] == StrayEnded(1)


def test_lost_work_is_closed_first_because_nomad_would_run_it_again() -> None:
    history = History(on_lost="fail").tell(placed(), seen(S.LOST, vanished=True))
    assert history.states[-1] == "failed"
    assert history.last.reason.code is ReasonCode.VANISHED
    assert history.owes == ["submit", "close"]
    assert history.job.attempt is not None and history.job.attempt.standing is Standing.ABANDONED


def test_a_job_that_waits_for_its_node_does_not_run_twice_when_the_node_is_lost() -> None:
    assert History(on_lost="wait").tell(placed(), seen(S.LOST)).states[-1] == "failed"


def test_a_stop_by_somebody_else_ends_the_job() -> None:
    history = History(retries={"attempts": 0}).tell(placed(), seen(S.STOPPED))
    assert (history.states[-1], history.last.reason.code) == ("failed", "stopped")


# -- registering --------------------------------------------------------------------------------------------------


def test_a_site_that_refuses_the_job_is_never_tried_again() -> None:
    history = History().tell(placed(), RegisterRefused(1, "no such thing"))
    assert history.states == ["queued", "placed", "queued"]
    assert history.last.reason.code is ReasonCode.REFUSED_BY_SITE
    assert history.job.avoid["prague"].code is VerdictCode.REFUSED_BY_SITE
    assert history.job.avoided(later(10**8)) == dict(history.job.avoid)


def test_an_id_that_is_taken_gets_the_job_placed_anew() -> None:
    history = History().tell(placed(), RegisterVoid(1))
    assert history.states == ["queued", "placed", "queued"]
    assert history.job.number == 1
    history.tell(placed())
    assert history.job.number == 2


def test_what_runs_unknown_under_the_id_of_an_attempt_is_ended_before_the_job_is_placed_anew() -> None:
    history = History().tell(placed(), RegisterTaken(1))
    assert history.states == ["queued", "placed"], "not before the id is closed"
    assert Owe(Call.CLOSE, 1) in history.effects
    history.tell(IdClosed(1, Closing.STOPPING), seen(S.STOPPED))
    assert history.states == ["queued", "placed", "queued"]


def test_what_ran_unknown_and_did_the_jobs_work_has_done_it() -> None:
    history = History().tell(placed(), RegisterTaken(1), seen(S.SUCCEEDED))
    assert history.states == ["queued", "placed", "succeeded"]


def test_a_register_that_is_answered_after_the_end_changes_nothing() -> None:
    history = History().tell(placed(), seen(S.SUCCEEDED))
    told = len(history.effects)
    history.tell(Registered(1))
    assert len(history.effects) == told


# -- cancelling ---------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once() -> None:
    history = History().tell(CancelAsked(later(1)))
    assert history.states == ["queued", "cancelled"]
    assert history.last.confirmed


def test_a_running_job_is_cancelled_when_its_stop_is_seen() -> None:
    history = History().tell(placed(), seen(S.RUNNING), CancelAsked(later(3)), IdClosed(1, Closing.STOPPING))
    assert history.states == ["queued", "placed", "running", "cancelling"]
    history.tell(seen(S.STOPPED, sequence=2))
    assert history.states[-1] == "cancelled"
    assert history.last.confirmed


def test_a_job_whose_register_never_came_is_cancelled_by_the_tombstone() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), IdClosed(1, Closing.NEVER_RAN))
    assert history.states == ["queued", "placed", "cancelling", "cancelled"]
    assert Drop(Call.SUBMIT, 1) in history.effects


def test_a_job_that_finished_before_its_stop_has_succeeded() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), IdClosed(1, Closing.ENDED), seen(S.SUCCEEDED))
    assert history.states == ["queued", "placed", "cancelling", "succeeded"]


def test_what_a_site_says_is_over_counts_as_stopped_when_the_monitor_stays_silent() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), IdClosed(1, Closing.ENDED))
    assert history.states[-1] == "cancelling"
    history.tell(IdClosed(1, Closing.ENDED), after_s=RULES.outcome_s)
    assert history.states[-1] == "cancelled"


def test_a_stop_that_is_not_confirmed_in_time_stays_owed() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), Passed(Deadline.CLOSE_GRACE))
    assert history.states[-1] == "cancelled"
    assert not history.last.confirmed
    assert history.job.attempt is not None and history.job.attempt.standing is Standing.ABANDONED
    assert history.owes[-1] == "close"
    history.tell(IdClosed(1, Closing.NEVER_RAN))
    assert history.job.attempt.standing is not history.job.attempt.standing.OPEN
    assert history.effects[-1] == StrayEnded(1)


def test_a_vanished_attempt_does_not_confirm_a_cancel() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), seen(S.LOST, vanished=True))
    assert history.states[-1] == "cancelling"


def test_a_cancel_while_a_retry_is_prepared_ends_the_job_at_once() -> None:
    history = History(retries={"attempts": 1}).tell(placed(), seen(S.FAILED), CancelAsked(later(2)))
    assert history.states[-2:] == ["cancelling", "cancelled"]
    assert history.owes[-1] == "close"


def test_cancelling_twice_tells_once() -> None:
    history = History().tell(placed(), CancelAsked(later(1)), CancelAsked(later(2)))
    assert history.states == ["queued", "placed", "cancelling"]
    assert history.job.cancel_requested_at == later(1)


def test_a_cancel_of_a_job_with_a_stop_still_owed_is_not_confirmed() -> None:
    history = History().tell(placed(), seen(S.RUNNING), Passed(Deadline.SITE_GRACE), CancelAsked(later(4)))
    assert history.states[-1] == "cancelled"
    assert not history.last.confirmed


# -- deadlines ----------------------------------------------------------------------------------------------------


def test_max_wait_ends_the_job_with_the_last_verdicts() -> None:
    history = History().tell(Passed(Deadline.MAX_WAIT))
    assert (history.states[-1], history.last.reason.code) == ("failed", "not_placed_in_time")


def test_max_runtime_stops_the_attempt_and_then_fails_the_job() -> None:
    history = History().tell(placed(), seen(S.RUNNING), Passed(Deadline.MAX_RUNTIME))
    assert history.states[-1] == "running"
    history.tell(IdClosed(1, Closing.STOPPING), seen(S.STOPPED, sequence=2))
    assert (history.states[-1], history.last.reason.code) == ("failed", "max_runtime_exceeded")


def test_a_job_that_ends_well_while_it_is_stopped_for_its_runtime_has_succeeded() -> None:
    history = History().tell(placed(), seen(S.RUNNING), Passed(Deadline.MAX_RUNTIME), seen(S.SUCCEEDED, sequence=2))
    assert history.states[-1] == "succeeded"


def test_an_attempt_that_does_not_start_is_withdrawn_and_its_site_left_out_for_a_while() -> None:
    history = History().tell(placed(), seen(S.PENDING), Passed(Deadline.START), IdClosed(1, Closing.STOPPING))
    assert history.states == ["queued", "placed"]
    history.tell(seen(S.STOPPED, sequence=2))
    assert history.last.reason.code is ReasonCode.START_DEADLINE_PASSED
    assert history.job.retries_used == 0
    assert "prague" in history.job.avoided(history.now)
    assert "prague" not in history.job.avoided(later(10_000))


def test_max_wait_goes_on_counting_for_a_job_that_never_started() -> None:
    never = History().tell(placed(), Passed(Deadline.START), IdClosed(1, Closing.NEVER_RAN))
    assert never.job.waiting_since == NOON
    started = History().tell(placed(), seen(S.RUNNING), seen(S.LOST, sequence=2), IdClosed(1, Closing.STOPPING))
    assert started.job.waiting_since == later(4)


def test_a_site_that_answers_but_does_not_close_the_id_gets_no_second_attempt_beside_it() -> None:
    history = History().tell(placed(), Passed(Deadline.START), Passed(Deadline.CLOSE_GRACE, ()))
    assert history.states == ["queued", "placed"]
    assert history.job.attempt is not None and history.job.attempt.giving_up is GivingUp.START_DEADLINE


def test_a_node_that_stays_away_is_given_up_once_its_id_is_closed() -> None:
    history = History().tell(placed(), seen(S.RUNNING), seen(S.DISCONNECTED, sequence=2), Passed(Deadline.NODE_GRACE))
    assert history.states[-1] == "running"
    history.tell(IdClosed(1, Closing.STOPPING))
    assert (history.states[-1], history.last.reason.code) == ("queued", "node_lost")
    assert history.job.attempt is not None and history.job.attempt.standing is Standing.ABANDONED


@pytest.mark.parametrize(("on_lost", "state"), [("retry", "queued"), ("fail", "failed"), ("wait", "running")])
def test_a_lost_site_leaves_the_job_to_on_lost(on_lost: str, state: str) -> None:
    history = History(on_lost=on_lost).tell(placed(), seen(S.RUNNING), Passed(Deadline.SITE_GRACE))
    assert history.states[-1] == state
    if state != "running":
        assert history.last.reason.code is ReasonCode.SITE_LOST
        assert history.owes[-1] == "close"


def test_a_site_that_comes_back_with_a_forgotten_attempt_has_it_stopped() -> None:
    history = History().tell(placed(), seen(S.RUNNING), Passed(Deadline.SITE_GRACE), placed("lyon"))
    history.tell(seen(S.RUNNING, number=1, sequence=2))
    assert history.effects[-1] == StopStray(1, 2)
    assert history.states[-1] == "placed"
    history.tell(seen(S.SUCCEEDED, number=1, sequence=3))
    assert history.effects[-1] == StrayEnded(1)
    assert history.states[-1] == "placed"


# -- the rest -----------------------------------------------------------------------------------------------------


def test_a_job_is_told_again_only_when_its_reason_is_another() -> None:
    room, none = because(ReasonCode.WAITING_FOR_ROOM), because(ReasonCode.NO_SITE_FITS)
    history = History().tell(Waits(room), Waits(room), Waits(none), Waits(none))
    assert [event.reason.code for event in history.events if event.reason] == [
        "waiting_to_be_placed", "waiting_for_room", "no_site_fits",
    ]  # fmt: skip


def test_a_job_that_may_not_run_is_rejected_with_its_only_event() -> None:
    decision = jobs.rejected(a_job(), because(ReasonCode.AUTHORISATION_EXPIRED), NOON)
    assert decision.job.state is JobState.REJECTED
    assert decision.job.sequence == 1


def test_a_queued_job_whose_owner_lost_the_right_is_rejected() -> None:
    assert History().tell(Refusal(because(ReasonCode.NOT_AUTHORISED))).states == ["queued", "rejected"]


def test_a_service_that_ended_is_closed_because_nomad_would_keep_it_up() -> None:
    history = History(kind="service").tell(placed(), seen(S.RUNNING), seen(S.FAILED, sequence=2))
    assert history.states[-1] == "failed"
    assert history.owes == ["submit", "close"]


def test_there_are_never_more_attempts_than_the_limit() -> None:
    history = History()
    for number in range(1, RULES.limits.most_attempts + 1):
        history.tell(placed(), seen(S.LOST, number=number), IdClosed(number, Closing.NEVER_RAN))
    assert history.states[-1] == "failed"
    assert history.job.number == RULES.limits.most_attempts
