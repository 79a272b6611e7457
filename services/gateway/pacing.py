"""The buckets of this copy, and what is taken from them: one for every request, one for every job that is handed in.

They live in memory: each copy of the gateway counts for itself, so that a read costs no question to anybody. Decided in
`rates.py`.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from services.gateway import rates
from services.gateway.rates import EMPTY, Bucket, Limit, Standing
from shared.errors import TooMany
from shared.ports import Clock

MOST_BUCKETS: Final = 20_000
"""Buckets of one limit; the longest unused goes, and most likely it was full again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is limited; None = it is not."""

    reads: Limit | None
    changes: Limit | None
    vo_jobs: Limit | None
    strangers: Limit | None


class Buckets:
    """The buckets of one limit, by whose they are."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def ask(self, whose: Hashable, now: int, cost: int) -> tuple[Bucket, Standing]:
        """What would be, without taking anything."""
        return rates.after(self.limit, self._buckets.get(whose, EMPTY), now, cost)

    def keep(self, whose: Hashable, bucket: Bucket) -> None:
        self._buckets[whose] = bucket
        self._buckets.move_to_end(whose)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    def take_one(self, whose: Hashable, now: int) -> bool:
        """Take one if it is there; whether it was."""
        bucket = rates.one(self.limit, self._buckets.get(whose, EMPTY), now)
        if bucket is None:
            return False
        self.keep(whose, bucket)
        return True

    def take(self, whose: Hashable, now: int, cost: int = 1) -> Standing:
        """Take it if it is there."""
        bucket, standing = self.ask(whose, now, cost)
        self.keep(whose, bucket)
        return standing


def _buckets(limit: Limit | None) -> Buckets | None:
    return None if limit is None else Buckets(limit)


class Pace:
    """Takes what a request costs, or refuses it. Nothing is taken of what is refused."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        self._reads = _buckets(limits.reads)
        self._changes = _buckets(limits.changes)
        self._vo_jobs = _buckets(limits.vo_jobs)
        self._strangers = _buckets(limits.strangers)

    def read(self, principal: Hashable) -> bool:
        """One read; False when it has to wait. The short way, for reads that are answered at once."""
        if self._reads is None:
            return True
        return self._reads.take_one(principal, self._now())

    def request(self, principal: Hashable, method: str) -> Standing | None:
        """One request, a read or a change by its method. Raises TooMany."""
        buckets = self._reads if method in ("GET", "HEAD") else self._changes
        if buckets is None:
            return None
        return _checked(buckets.take(principal, self._now()), "you ask too often")

    def jobs(self, principal: Hashable, by_vo: Mapping[str, int]) -> None:
        """Jobs handed in with one request, by VO; the first is paid with the request. All or none. Raises TooMany."""
        now, owed = self._now(), []
        further = sum(by_vo.values()) - 1
        if self._changes is not None and further > 0:
            owed.append((self._changes, principal, *self._changes.ask(principal, now, further), "you hand in too many"))
        if self._vo_jobs is not None:
            owed += [
                (self._vo_jobs, vo, *self._vo_jobs.ask(vo, now, count), f"too many jobs are handed in for {vo}")
                for vo, count in by_vo.items()
            ]
        for _, _, _, standing, words in owed:
            _checked(standing, words)
        for buckets, whose, bucket, _, _ in owed:
            buckets.keep(whose, bucket)

    def stranger(self, address: str) -> None:
        """Somebody whose token is not known yet. Raises TooMany when too many from there were refused."""
        if self._strangers is not None:
            _, standing = self._strangers.ask(address, self._now(), 1)
            _checked(standing, "too many requests without a good token come from your address")

    def refused(self, address: str) -> None:
        """A token from this address was no good."""
        if self._strangers is not None:
            self._strangers.take(address, self._now())

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1_000_000)


def _checked(standing: Standing, words: str) -> Standing:
    if standing.wait_s == 0:
        return standing
    limit, wait_s = standing.limit, max(1, math.ceil(standing.wait_s))
    raise TooMany(
        f"{words}: {limit.amount} in {limit.window_s} s are allowed; go on in {wait_s} s",
        name=limit.name, amount=limit.amount, window_s=limit.window_s, remaining=standing.remaining,
        retry_after_s=wait_s,
    )  # fmt: skip
