"""What is due when, from the job's record alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import deadlines
from services.scheduler.deadlines import Deadline, Graces
from services.scheduler.decisions import CancelAsked, IdClosed, Passed
from shared.engine import Closing
from shared.job import AttemptStatus
from tests.unit.scheduler.builders import History, later, placed, seen

pytestmark = pytest.mark.fast
S = AttemptStatus
GRACES = Graces(node_s=120, cancel_s=900)


def due(history: History, seconds: float, *, heard: bool = True) -> list[Deadline]:
    return deadlines.due(history.job, later(seconds), GRACES, heard=heard)


def test_a_queued_job_waits_no_longer_than_max_wait() -> None:
    history = History(max_wait_s=60)
    assert due(history, 59) == []
    assert due(history, 60) == [Deadline.MAX_WAIT]


def test_an_attempt_without_allocation_has_until_its_start_deadline() -> None:
    history = History(start_deadline_s=30).tell(placed(), seen(S.PENDING))
    assert due(history, 30) == []
    assert due(history, 31) == [Deadline.START]
    history.tell(seen(S.STARTING, sequence=2))
    assert Deadline.START not in due(history, 10_000)


def test_the_monitors_silence_is_not_held_against_an_attempt() -> None:
    history = History(start_deadline_s=30).tell(placed())
    assert due(history, 100, heard=False) == []


def test_a_register_in_doubt_is_given_up_within_the_hour_whatever_the_start_deadline() -> None:
    history = History(start_deadline_s=86_400).tell(placed())
    assert due(history, 3601) == [Deadline.START]
    history.tell(seen(S.PENDING))
    assert due(history, 3601) == []


def test_max_runtime_counts_from_the_first_running() -> None:
    history = History(max_runtime_s=100).tell(placed(), seen(S.STARTING), seen(S.RUNNING, sequence=2))
    assert due(history, 102) == []
    assert due(history, 103) == [Deadline.MAX_RUNTIME]


def test_a_job_that_never_got_beyond_starting_has_a_limit_as_well() -> None:
    assert due(History(max_runtime_s=100).tell(placed(), seen(S.STARTING)), 102) == [Deadline.MAX_RUNTIME]


def test_a_node_may_be_away_for_its_grace() -> None:
    history = History().tell(placed(), seen(S.RUNNING), seen(S.DISCONNECTED, sequence=2))
    assert due(history, 122) == []
    assert due(history, 123) == [Deadline.NODE_GRACE]
    history.tell(seen(S.RUNNING, sequence=3))
    assert due(history, 10_000) == []


def test_who_waits_is_given_up_before_nomad_would_run_it_again() -> None:
    history = History(on_lost="wait", max_runtime_s=31_536_000)
    history.tell(placed(), seen(S.RUNNING), seen(S.DISCONNECTED, sequence=2))
    assert due(history, 28 * 86_400) == []
    assert due(history, 30 * 86_400) == [Deadline.NODE_GRACE]


def test_a_services_nodes_are_left_to_nomad() -> None:
    history = History(kind="service").tell(placed(), seen(S.RUNNING), seen(S.DISCONNECTED, sequence=2))
    assert due(history, 1000) == []


def test_a_stop_has_cancel_grace_to_be_confirmed() -> None:
    history = History().tell(placed(), CancelAsked(later(1)))
    assert due(history, 901) == []
    assert due(history, 902) == [Deadline.CLOSE_GRACE]
    history.tell(IdClosed(1, Closing.NEVER_RAN))
    assert due(history, 10**9) == []


def test_the_id_of_an_ended_attempt_is_closed_however_long_that_takes() -> None:
    history = History(retries={"attempts": 1}).tell(placed(), seen(S.FAILED))
    assert due(history, 10**6) == []


def test_an_ended_job_has_nothing_due() -> None:
    assert deadlines.next_due(History().tell(Passed(Deadline.MAX_WAIT)).job, GRACES) is None


@given(st.integers(0, 4), st.floats(0, 10**7))
def test_something_is_due_exactly_from_next_due_on(steps: int, seconds: float) -> None:
    things = [placed(), seen(S.STARTING), seen(S.RUNNING, sequence=2), CancelAsked(later(0))]
    history = History().tell(*things[:steps])
    at = deadlines.next_due(history.job, GRACES)
    assert at is not None
    assert bool(due(history, seconds)) == (later(seconds) >= at)
