"""When a failed request is sent again."""

import pytest

from serai.retrying import Patience, pause_before_next

pytestmark = pytest.mark.fast
PATIENCE = Patience(attempts=4, total_s=10, base_s=1, cap_s=3)


def test_pauses_double_up_to_the_cap_and_end_with_the_attempts() -> None:
    pauses = [pause_before_next(PATIENCE, tried=tried, elapsed_s=0, chance=1) for tried in (1, 2, 3, 4)]
    assert pauses == [1, 2, 3, None]


def test_chance_spreads_clients_over_the_upper_half() -> None:
    assert pause_before_next(PATIENCE, tried=2, elapsed_s=0, chance=0) == 1
    assert pause_before_next(PATIENCE, tried=2, elapsed_s=0, chance=0.5) == 1.5


def test_retry_after_is_the_least_pause() -> None:
    pause = pause_before_next(PATIENCE, tried=1, elapsed_s=0, chance=0, retry_after_s=7)
    assert pause is not None and pause >= 7


def test_a_retry_after_beyond_the_patience_gives_up_at_once() -> None:
    assert pause_before_next(PATIENCE, tried=1, elapsed_s=0, chance=0, retry_after_s=60) is None


def test_time_that_has_passed_counts() -> None:
    assert pause_before_next(PATIENCE, tried=1, elapsed_s=9.8, chance=1) is None
