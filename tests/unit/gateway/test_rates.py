"""The decision about rates: exact at its bounds, whatever comes when."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import rates
from services.gateway.rates import EMPTY, Limit

pytestmark = pytest.mark.fast
SECOND = 1_000_000
NOON = 1_800_000_000 * SECOND
TEN_A_SECOND = Limit("reads", 10, 1)


def asked(limit: Limit, *times: int, cost: int = 1) -> list[bool]:
    """Which of these are allowed."""
    bucket, told = EMPTY, []
    for now in times:
        bucket, standing = rates.after(limit, bucket, now, cost)
        told.append(standing.wait_s == 0)
    return told


def test_as_many_as_are_allowed_at_once_and_not_one_more() -> None:
    assert asked(TEN_A_SECOND, *[NOON] * 12) == [True] * 10 + [False] * 2


def test_the_next_one_to_the_microsecond() -> None:
    tenth = SECOND // 10
    assert asked(TEN_A_SECOND, *[NOON] * 10, NOON + tenth - 1, NOON + tenth, NOON + tenth)[10:] == [False, True, False]


def test_who_waits_as_long_as_told_gets_what_he_asked_for() -> None:
    bucket, _ = rates.after(TEN_A_SECOND, EMPTY, NOON, 8)
    bucket, standing = rates.after(TEN_A_SECOND, bucket, NOON, 5)
    assert (standing.remaining, standing.wait_s, standing.full_s) == (2, 0.3, 0.8)
    _, standing = rates.after(TEN_A_SECOND, bucket, NOON + round(standing.wait_s * SECOND), 5)
    assert (standing.wait_s, standing.remaining) == (0, 0)


def test_what_is_refused_costs_nothing() -> None:
    assert asked(TEN_A_SECOND, NOON, NOON, NOON, cost=6) == [True, False, False]
    assert asked(TEN_A_SECOND, *[NOON] * 30, NOON + SECOND)[-1]


def test_a_clock_that_is_put_back_harms_nobody_for_longer_than_a_window() -> None:
    bucket, _ = rates.after(TEN_A_SECOND, EMPTY, NOON, 10)
    bucket, standing = rates.after(TEN_A_SECOND, bucket, NOON - 3_600 * SECOND, 1)
    assert standing.wait_s == 0.1
    _, standing = rates.after(TEN_A_SECOND, bucket, NOON - 3_599 * SECOND, 10)
    assert standing.wait_s == 0


@given(
    st.integers(1, 50), st.integers(1, 7_200),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 5)), min_size=1, max_size=60),
)  # fmt: skip
def test_it_is_the_leaking_bucket_in_fractions(amount: int, window_s: int, steps: list[tuple[int, int]]) -> None:
    """Against the definition, written down in exact fractions."""
    limit, bucket, now = Limit("x", amount, window_s), EMPTY, NOON
    filled = Fraction(0)
    for pause, cost in steps:
        now += pause
        alone = rates.one(limit, bucket, now)
        filled = max(Fraction(0), filled - Fraction(pause * amount, window_s * SECOND))
        bucket, standing = rates.after(limit, bucket, now, cost)
        assert (standing.wait_s == 0) == (filled + cost <= amount)
        if standing.wait_s == 0:
            filled += cost
        assert cost != 1 or alone == (bucket if standing.wait_s == 0 else None)
        assert standing.remaining == (amount - filled).__floor__()


@given(st.integers(1, 20), st.integers(1, 60), st.lists(st.integers(0, SECOND), min_size=2, max_size=80))
def test_no_stretch_of_time_sees_more_than_the_bound(amount: int, window_s: int, pauses: list[int]) -> None:
    limit, times, now = Limit("x", amount, window_s), [], NOON
    bucket = EMPTY
    for pause in pauses:
        now += pause
        if (taken := rates.one(limit, bucket, now)) is not None:
            bucket = taken
            times.append(now)
    assert all(one <= other for one, other in pairwise(times))
    for first in range(len(times)):
        for last in range(first, len(times)):
            stretch = Fraction(times[last] - times[first], SECOND)
            assert last - first + 1 <= amount + stretch * amount / window_s


@pytest.mark.parametrize(
    ("text", "limit"),
    [("100/second", Limit("x", 100, 1)), ("6000 per 1 minute", Limit("x", 6000, 60)),
     ("5/2 hours", Limit("x", 5, 7200)), ("", None), (" ", None)],
)  # fmt: skip
def test_how_settings_write_it(text: str, limit: Limit | None) -> None:
    assert rates.read_limit("x", text) == limit


@pytest.mark.parametrize("text", ["many", "100", "100/fortnight", "-1/second", "1.5/second"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError):
        rates.read_limit("x", text)
