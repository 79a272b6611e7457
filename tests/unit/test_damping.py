"""Damping: trouble shows after a while, calm after a longer one, and longer still for what falls again and again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import damping
from shared.damping import GOOD, Damped, Damping
from shared.site import SiteHealth

pytestmark = pytest.mark.fast

PASSING, WARNING, CRITICAL, UNREACHABLE = (
    SiteHealth.PASSING, SiteHealth.WARNING, SiteHealth.CRITICAL, SiteHealth.UNREACHABLE,
)  # fmt: skip
RULES = Damping(worse_after_s=10, better_after_s=20, better_most_s=60, window_s=900)


def told(*sights: tuple[float, SiteHealth], start: SiteHealth = PASSING) -> Damped:
    """The state after these sights; like the registry, it looks again whenever something is due in between."""
    state = damping.first(start, 0)
    for at, seen in sights:
        while (due := damping.due(state, RULES)) is not None and due < at:
            state = damping.after(state, state.seen, due, RULES)
        state = damping.after(state, seen, at, RULES)
    return state


def test_a_first_sight_shows_at_once() -> None:
    assert damping.first(CRITICAL, 5).shown is CRITICAL
    assert damping.first(PASSING, 5).shown is PASSING


def test_a_blip_is_never_shown() -> None:
    state = told((100, CRITICAL), (105, PASSING), (300, PASSING))
    assert (state.shown, state.falls) == (PASSING, ())


def test_trouble_that_lasts_shows_and_calm_shows_later() -> None:
    assert told((100, CRITICAL), (109, CRITICAL)).shown is PASSING
    assert told((100, CRITICAL), (110, CRITICAL)).shown is CRITICAL
    assert told((100, CRITICAL), (110, CRITICAL), (120, PASSING), (139, PASSING)).shown is CRITICAL
    assert told((100, CRITICAL), (110, CRITICAL), (120, PASSING), (140, PASSING)).shown is PASSING


def test_a_check_that_flips_faster_than_trouble_shows_is_not_taken_for_healthy() -> None:
    flips = [(100.0 + 4 * n, (CRITICAL, PASSING)[n % 2]) for n in range(20)]
    assert told(*flips[:2]).shown is PASSING
    shown = [told(*flips[:n]).shown for n in range(5, 20)]
    assert set(shown) == {CRITICAL}


def test_each_recent_fall_doubles_the_calm_that_is_asked_for_up_to_a_limit() -> None:
    sights: list[tuple[float, SiteHealth]] = []
    spells = []
    now = 100.0
    for _ in range(5):
        sights += [(now, CRITICAL), (now + 10, CRITICAL), (now + 11, PASSING)]
        spells.append((damping.due(told(*sights), RULES) or 0) - (now + 11))
        now += 11 + spells[-1] + 1
    assert spells == [20, 40, 60, 60, 60]


def test_a_fall_is_forgotten_after_the_window() -> None:
    once = [(100.0, CRITICAL), (110.0, CRITICAL), (111.0, PASSING)]
    again = [(2000.0, CRITICAL), (2010.0, CRITICAL), (2011.0, PASSING)]
    assert damping.due(told(*once, *again), RULES) == 2031


def test_changes_that_change_nothing_for_jobs_show_at_once() -> None:
    assert told((50, WARNING)).shown is WARNING
    assert told((50, UNREACHABLE), start=CRITICAL).shown is UNREACHABLE


def test_without_times_everything_shows_at_once() -> None:
    rules = Damping(0, 0, 0, 0)
    state = damping.after(damping.first(PASSING, 1), CRITICAL, 1, rules)
    assert state.shown is CRITICAL
    assert damping.after(state, PASSING, 1, rules).shown is PASSING


@given(st.lists(st.tuples(st.floats(0.01, 60), st.sampled_from([PASSING, WARNING, CRITICAL, UNREACHABLE]))))
def test_what_lasts_is_shown_in_the_end_and_sides_change_only_when_due(steps: list[tuple[float, SiteHealth]]) -> None:
    state, now = damping.first(PASSING, 0), 0.0
    for wait, seen in steps:
        now += wait
        before = state
        state = damping.after(state, seen, now, RULES)
        if (state.shown in GOOD) != (before.shown in GOOD):
            assert state.shown is seen
        assert (damping.due(state, RULES) is None) == ((state.seen in GOOD) == (state.shown in GOOD))
    final = damping.after(state, state.seen, now + RULES.better_most_s + RULES.worse_after_s, RULES)
    assert final.shown is final.seen
