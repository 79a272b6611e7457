"""Whether a site can be reached and believed: a small life with hysteresis, as a table. Pure.

The prober tells what it saw; what follows for jobs is the scheduler's (grace times, `on_lost`).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final


class Standing(StrEnum):
    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    SUSPECT = "suspect"
    """It answers, but what it shows cannot be believed."""


class Sign(StrEnum):
    """What a look at the site gave."""

    ANSWERED = "answered"
    SILENT = "silent"
    UNBELIEVABLE = "unbelievable"
    BELIEVABLE = "believable"
    """A listing was read that can be believed: this alone lifts a suspicion."""


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How many equal signs in a row it takes: one lost answer is not an outage, one answer not yet a recovery."""

    silent: int = 3
    answered: int = 2


@dataclass(frozen=True, slots=True)
class Health:
    """`since` is when the present standing began to show: the first sign of the row that led to it."""

    standing: Standing = Standing.UNKNOWN
    since: datetime | None = None
    error: str = ""
    row: int = 0
    row_sign: Sign | None = None
    row_since: datetime | None = None


_S, _G = Standing, Sign

TABLE: Final[dict[tuple[Standing, Sign], Standing]] = {
    (_S.UNKNOWN, _G.ANSWERED): _S.REACHABLE,
    (_S.UNKNOWN, _G.BELIEVABLE): _S.REACHABLE,
    (_S.UNKNOWN, _G.SILENT): _S.UNREACHABLE,
    (_S.UNKNOWN, _G.UNBELIEVABLE): _S.SUSPECT,
    (_S.REACHABLE, _G.ANSWERED): _S.REACHABLE,
    (_S.REACHABLE, _G.BELIEVABLE): _S.REACHABLE,
    (_S.REACHABLE, _G.SILENT): _S.UNREACHABLE,
    (_S.REACHABLE, _G.UNBELIEVABLE): _S.SUSPECT,
    (_S.UNREACHABLE, _G.ANSWERED): _S.REACHABLE,
    (_S.UNREACHABLE, _G.BELIEVABLE): _S.REACHABLE,
    (_S.UNREACHABLE, _G.SILENT): _S.UNREACHABLE,
    (_S.UNREACHABLE, _G.UNBELIEVABLE): _S.SUSPECT,
    (_S.SUSPECT, _G.ANSWERED): _S.SUSPECT,
    (_S.SUSPECT, _G.BELIEVABLE): _S.REACHABLE,
    (_S.SUSPECT, _G.SILENT): _S.UNREACHABLE,
    (_S.SUSPECT, _G.UNBELIEVABLE): _S.SUSPECT,
}


def after(health: Health, sign: Sign, now: datetime, rules: Hysteresis, error: str = "") -> Health:
    """The health after one more sign. A new standing shows as `standing` differing from before."""
    same = health.row_sign is sign
    row = health.row + 1 if same else 1
    row_since = health.row_since if same and health.row_since else now
    counted = replace(health, row=row, row_sign=sign, row_since=row_since)
    standing = TABLE[health.standing, sign]
    if standing is health.standing or row < _needed(health.standing, sign, rules):
        return replace(counted, error=error) if error and standing is health.standing else counted
    return replace(counted, standing=standing, since=row_since, error=error)


def _needed(standing: Standing, sign: Sign, rules: Hysteresis) -> int:
    """A first sight is told at once when it is good; what a listing shows needs no second look."""
    if sign is Sign.SILENT:
        return rules.silent
    if sign is Sign.ANSWERED and standing is Standing.UNREACHABLE:
        return rules.answered
    return 1
