"""How often one may ask: a bucket for each principal and each VO. Pure: the time is an argument.

A bucket holds `amount` and fills up evenly over `window_s`. So, to the microsecond: at most `amount` at once, and in
any stretch of t seconds at most amount + t * amount / window_s; who asked nothing for a window has all of it again. It
is the generic cell rate algorithm (ITU-T I.371) in whole numbers: one request weighs `window_s` times a million, and
every microsecond takes `amount` away.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from limits import parse

_MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many in a window; `name` is what clients see."""

    name: str
    amount: int
    window_s: int


class Bucket(NamedTuple):
    """What was taken and has not flowed back, in the units above, at a Unix time in microseconds."""

    taken: int
    at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How one stands with a limit after a decision. `wait_s`: until as many as were asked for are there; 0 = taken."""

    limit: Limit
    remaining: int
    wait_s: float
    full_s: float


EMPTY: Final = Bucket(0, 0)


def read_limit(name: str, text: str) -> Limit | None:
    """A limit as settings write it (`100/second`, `6000 per 1 minute`); None for nothing. Raises ValueError."""
    if not text.strip():
        return None
    told = parse(text)
    return Limit(name, told.amount, told.get_expiry())


def taken(limit: Limit, bucket: Bucket, now: int) -> int:
    """What of a bucket has not flowed back by now.

    A clock that was put back neither fills nor empties: a bucket from the future counts as of now.
    """
    passed = now - bucket.at
    return max(0, bucket.taken - passed * limit.amount) if passed > 0 else bucket.taken


def one(limit: Limit, bucket: Bucket, now: int) -> Bucket | None:
    """The bucket after one request, or None when it is refused: `after` without the standing, for reads."""
    wanted = taken(limit, bucket, now) + limit.window_s * _MICROS
    return Bucket(wanted, now) if wanted <= limit.amount * limit.window_s * _MICROS else None


def after(limit: Limit, bucket: Bucket, now: int, cost: int) -> tuple[Bucket, Standing]:
    """The bucket and the standing after asking for `cost` at `now`; refused, nothing is taken."""
    weight = limit.window_s * _MICROS
    whole, before = limit.amount * weight, taken(limit, bucket, now)
    wanted = before + cost * weight
    left = wanted if wanted <= whole else before
    wait_s = 0.0 if wanted <= whole else -(-(wanted - whole) // limit.amount) / _MICROS
    return Bucket(left, now), Standing(limit, (whole - left) // weight, wait_s, left / limit.amount / _MICROS)
