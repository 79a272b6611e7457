"""Public keys of one issuer, fetched from elsewhere: one fetch at a time, cooled down, old keys kept while it fails.

The source is fixed when the ring is made; nothing that a token says can lead to another address. Used for the keys of
grants (`shared/runtime/tokens.py`) and by auth for users' tokens. It decides nothing about tokens.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from shared.errors import Unavailable
from shared.ports import Clock

K = TypeVar("K")
_EARLY: Final = 0.8


class CoolingDown(Unavailable):
    """The key is not among those known, and it is too early to look again."""


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """Seconds. `cool_down_s`: between two fetches, whatever is asked. `refresh_s`: age at which keys are fetched again.

    `expiry_s`: age at which keys are no longer used although fetching fails. `first_retry_s`: between two fetches
    while none has ever succeeded. `deadline_s`: of one fetch. `wait_s`: how long somebody waits for a fetch while there
    are keys at hand that may be used: no user of a known key pays for a slow issuer.
    """

    cool_down_s: float = 60
    refresh_s: float = 3_600
    expiry_s: float = 48 * 3_600
    first_retry_s: float = 1
    deadline_s: float = 3
    wait_s: float = 1


class KeyRing(Generic[K]):
    """The keys by their `kid`. A fetch replaces the whole map, or leaves the old one."""

    def __init__(
        self, whose: str, fetch: Callable[[], Awaitable[Mapping[str, K]]], clock: Clock, times: KeyTimes
    ) -> None:
        self._whose = whose
        self._fetch = fetch
        self._clock = clock
        self._times = times
        self._keys: Mapping[str, K] = {}
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._failure: Unavailable | None = None
        self._fetching: asyncio.Task[None] | None = None

    @property
    def known(self) -> Mapping[str, K]:
        """The keys at hand, good or stale."""
        return self._keys

    @property
    def fetched_at(self) -> datetime | None:
        """When the keys at hand were fetched."""
        return self._fetched_at

    @property
    def trouble(self) -> str:
        """Why the last fetch failed, empty when it did not."""
        return self._failure.what if self._failure is not None else ""

    async def get(self, kid: str) -> K | None:
        """The key of this name, None when a fetch has just shown that there is none.

        Raises CoolingDown when it is unknown and was looked for just now, Unavailable when keys cannot be had.
        """
        if self._age_above(self._times.refresh_s) and self._may_fetch():
            await self._renew(known=kid in self._keys)
        if self._age_above(self._times.expiry_s):
            raise self._failure or Unavailable(f"the keys of {self._whose} have not been fetched yet")
        key = self._keys.get(kid)
        return key if key is not None else await self._look_again(kid)

    async def _renew(self, *, known: bool) -> None:
        """Fetch; who asks for a known key that is still good waits a little for it, and not at all after a failure."""
        if not known or self._age_above(self._times.expiry_s):
            await self._fetch_once()
            return
        failing = self._failure is not None
        fetching = self._fetch_started()
        if not failing:
            await asyncio.wait([fetching], timeout=self._times.wait_s)

    async def _look_again(self, kid: str) -> K | None:
        if not self._may_fetch():
            if self._failure is not None:
                raise self._failure
            raise CoolingDown(
                f"{self._whose} has no such key, and was asked just now", retry_after_s=self._times.cool_down_s
            )
        await asyncio.wait([self._fetch_started()], timeout=self._times.wait_s)
        if self._fetching is not None:
            raise CoolingDown(f"{self._whose} is being asked for a key of that name still", retry_after_s=1)
        if self._failure is not None:
            raise self._failure
        return self._keys.get(kid)

    async def refresh(self) -> None:
        """Fetch if the cool-down allows it. Raises Unavailable while there are no keys that may be used."""
        if self._age_above(self._times.refresh_s) and self._may_fetch():
            await self._fetch_once()
        if self._age_above(self._times.expiry_s):
            raise self._failure or Unavailable(f"the keys of {self._whose} have not been fetched yet")

    async def renew_early(self) -> None:
        """Fetch when it will soon be due, so that nobody who asks for a key has to wait. Never raises."""
        if self._age_above(_EARLY * self._times.refresh_s) and self._may_fetch():
            await asyncio.wait([self._fetch_started()])

    def _age_above(self, seconds: float) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > timedelta(seconds=seconds)

    def _may_fetch(self) -> bool:
        if self._fetching is not None or self._tried_at is None:
            return True
        pause = self._times.first_retry_s if self._fetched_at is None else self._times.cool_down_s
        return self._clock() - self._tried_at >= timedelta(seconds=pause)

    async def _fetch_once(self) -> None:
        """Join the fetch that is under way, or start one; its failure is remembered, not raised."""
        await asyncio.shield(self._fetch_started())

    def _fetch_started(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._replace(), name=f"keys:{self._whose}")
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and task.exception() is not None:
            self._failure = Unavailable(f"the keys of {self._whose} cannot be read: {task.exception()!r}")

    async def _replace(self) -> None:
        try:
            async with asyncio.timeout(self._times.deadline_s):
                keys = await self._fetch()
        except TimeoutError:
            self._failure = Unavailable(f"the keys of {self._whose} did not come within {self._times.deadline_s:g} s")
        except Unavailable as failure:
            self._failure = failure
        else:
            self._keys, self._fetched_at, self._failure = keys, self._clock(), None
