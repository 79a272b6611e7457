"""The retry policy, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import retry
from services.scheduler.records import Outcome
from services.scheduler.retry import Again, End, Limits, Wait
from shared.contracts.reasons import ReasonCode, because
from shared.job import AttemptStatus, FailureClass
from tests.builders import a_spec

pytestmark = pytest.mark.fast

LIMITS = Limits(first_s=1, most_s=60, most_attempts=5)
LOST = because(ReasonCode.SITE_LOST)


def after(failure: FailureClass, *, used: int = 0, number: int = 1, **spec: object) -> Again | End:
    outcome = Outcome(AttemptStatus.FAILED, failure, exit_code=1)
    return retry.after_outcome(a_spec(**spec), outcome, number=number, retries_used=used, jitter=0.5, limits=LIMITS)


@pytest.mark.parametrize("failure", sorted(set(FailureClass) - {FailureClass.DRAINED, FailureClass.EVICTED}))
def test_without_retries_every_failure_of_its_own_is_the_end(failure: FailureClass) -> None:
    ended = after(failure)
    assert isinstance(ended, End)
    assert ended.reason.code is retry.REASONS[failure]


@pytest.mark.parametrize("failure", [FailureClass.DRAINED, FailureClass.EVICTED])
def test_what_the_site_did_is_tried_again_for_free(failure: FailureClass) -> None:
    again = after(failure)
    assert isinstance(again, Again)
    assert not again.counted
    assert again.delay_s == 0


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(FailureClass.TASK_ERROR, Again), (FailureClass.OUT_OF_MEMORY, Again), (FailureClass.START_FAILURE, Again),
     (FailureClass.IMAGE_OR_ARTIFACT, Again), (FailureClass.UNKNOWN, Again), (FailureClass.TIMEOUT, End)],
)  # fmt: skip
def test_a_timeout_is_not_retried_unless_asked_for(failure: FailureClass, expected: type) -> None:
    assert isinstance(after(failure, retries={"attempts": 1}), expected)


def test_retries_are_used_up() -> None:
    assert isinstance(after(FailureClass.TASK_ERROR, used=1, retries={"attempts": 2}), Again)
    assert isinstance(after(FailureClass.TASK_ERROR, used=2, retries={"attempts": 2}), End)


def test_free_attempts_are_bounded_too() -> None:
    assert isinstance(after(FailureClass.DRAINED, number=4), Again)
    assert isinstance(after(FailureClass.DRAINED, number=5), End)


@pytest.mark.parametrize(("on_lost", "expected"), [("retry", Again), ("wait", Wait), ("fail", End)])
def test_on_lost_decides_about_what_may_come_back(on_lost: str, expected: type) -> None:
    assert isinstance(retry.after_loss(a_spec(on_lost=on_lost), LOST, number=1, limits=LIMITS), expected)


@pytest.mark.parametrize(("on_lost", "expected"), [("retry", Again), ("wait", End), ("fail", End)])
def test_there_is_no_waiting_for_what_is_lost_for_good(on_lost: str, expected: type) -> None:
    outcome = Outcome(AttemptStatus.LOST)
    found = retry.after_outcome(a_spec(on_lost=on_lost), outcome, number=1, retries_used=0, jitter=0, limits=LIMITS)
    assert isinstance(found, expected)
    assert found.reason.code is ReasonCode.NODE_LOST


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_the_pause_doubles_within_its_bounds(used: int, jitter: float) -> None:
    pause = retry.delay_s(used, jitter, LIMITS)
    ceiling = min(2.0**used, 60)
    assert ceiling / 2 <= pause <= ceiling


def test_the_monitors_own_words_are_kept() -> None:
    words = because(ReasonCode.TASK_ERROR, "exit code 7 of main", exit_code=7)
    assert retry.reason_of(Outcome(AttemptStatus.FAILED, FailureClass.TASK_ERROR, 7, words)) is words
