"""Damping of a health that flaps, so that a flapping check does not move jobs about. Pure; Consul itself has none.

Two sides: good (passing, warning) and bad (the rest). Within a side a change shows at once. To the bad side it shows
when trouble has lasted `worse_after_s`; short good spells do not end trouble, so that a check that flips every few
seconds is not taken for a healthy one. To the good side it shows after an unbroken good spell, and each recent fall
doubles how long that has to be. Times are seconds of any clock that only goes forward.
"""

from dataclasses import dataclass, replace

from shared.site import SiteHealth

GOOD = frozenset({SiteHealth.PASSING, SiteHealth.WARNING})


@dataclass(frozen=True, slots=True)
class Damping:
    """All in seconds. Zeroes show everything at once."""

    worse_after_s: float = 10
    better_after_s: float = 20
    better_most_s: float = 300
    """The longest good spell that is asked for."""
    window_s: float = 900
    """A fall longer ago than this is forgotten."""


@dataclass(frozen=True, slots=True)
class Damped:
    """What is shown, what was seen last, and what it takes to judge the next sight."""

    shown: SiteHealth
    seen: SiteHealth
    seen_since: float
    """When the present side was first seen without a break."""
    trouble_since: float | None = None
    falls: tuple[float, ...] = ()


def first(seen: SiteHealth, now: float) -> Damped:
    """A first sight shows at once: there is nothing to protect yet."""
    return Damped(seen, seen, now, None if seen in GOOD else now)


def after(state: Damped, seen: SiteHealth, now: float, rules: Damping) -> Damped:
    """The state after one more look; call it with the same health again when `due` has come."""
    state = _seen(state, seen, now, rules)
    if (seen in GOOD) == (state.shown in GOOD):
        return replace(state, shown=seen)
    moment = due(state, rules)
    if moment is None or now < moment:
        return state
    if seen in GOOD:
        return replace(state, shown=seen, trouble_since=None)
    return replace(state, shown=seen, falls=(*_recent(state.falls, now, rules), now))


def due(state: Damped, rules: Damping) -> float | None:
    """When the state will show another side if nothing else is seen until then; None = never."""
    if (state.seen in GOOD) == (state.shown in GOOD):
        return None
    if state.seen in GOOD:
        return state.seen_since + _spell(state, rules)
    assert state.trouble_since is not None
    return state.trouble_since + rules.worse_after_s


def _seen(state: Damped, seen: SiteHealth, now: float, rules: Damping) -> Damped:
    if (seen in GOOD) == (state.seen in GOOD):
        return replace(state, seen=seen)
    if seen in GOOD:
        return replace(state, seen=seen, seen_since=now)
    calm = state.trouble_since is None or now - state.seen_since >= rules.better_after_s
    return replace(state, seen=seen, seen_since=now, trouble_since=now if calm else state.trouble_since)


def _spell(state: Damped, rules: Damping) -> float:
    recent = len(_recent(state.falls, state.seen_since, rules))
    return min(rules.better_after_s * 2.0 ** max(0, recent - 1), max(rules.better_most_s, rules.better_after_s))


def _recent(falls: tuple[float, ...], now: float, rules: Damping) -> tuple[float, ...]:
    return tuple(fall for fall in falls if now - fall <= rules.window_s)[-16:]
