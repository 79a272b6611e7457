"""The standing that this copy of auth knows: read from the store at most once a second, so that every copy follows a
suspension or a new policy within that. Called before every decision.
"""

from datetime import datetime, timedelta
from typing import Final

from services.auth import trust_store
from services.auth.standing import Standing
from shared.ports import Clock, Store

READ_AGAIN: Final = timedelta(seconds=1)


class Book:
    """The standing that this copy of auth knows."""

    def __init__(self, database: Store, clock: Clock) -> None:
        self._store = database
        self._clock = clock
        self._standing = Standing()
        self._read_at: datetime | None = None

    async def now(self) -> Standing:
        """The standing, at most a second old."""
        now = self._clock()
        if self._read_at is None or not timedelta() <= now - self._read_at < READ_AGAIN:
            await self.read()
        return self._standing

    async def read(self) -> Standing:
        """The standing of this moment; read in full only when its version has changed."""
        now = self._clock()
        version = await self._store.read(trust_store.version)
        if self._read_at is None or version != self._standing.state.version:
            self._standing = await self._store.read(trust_store.standing)
        self._read_at = now
        return self._standing
