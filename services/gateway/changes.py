"""Wakes those who wait in this process: event streams and long polls. Holds the newest entries of the log in memory.

Called by the projection after each commit. What is too old for the memory is read from the store.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from services.gateway.event_log import Entry

RECENT: Final = 4096


class Changes:
    """One per process. Closing it ends all streams when the service stops."""

    def __init__(self, recent: int = RECENT) -> None:
        self._most = recent
        self._recent: list[Entry] = []
        self._moved = asyncio.Event()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._closing = asyncio.Event()
        self.head = 0

    def publish(self, head: int, entries: Sequence[Entry], job_ids: Iterable[str]) -> None:
        """The log has grown to `head`; `entries` are the newest, when we wrote them (else they are in the store)."""
        for job_id in job_ids:
            self.touch(job_id)
        if head <= self.head:
            return
        contiguous = bool(entries) and entries[-1].position == head and entries[0].position == self.head + 1
        self._recent = [*self._recent, *entries] if contiguous else []
        if len(self._recent) > 2 * self._most:
            self._recent = self._recent[-self._most :]
        self.head = head
        self._wake()

    def touch(self, job_id: str) -> None:
        """A job looks different from before."""
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()

    @property
    def closed(self) -> bool:
        """Whether the service is stopping."""
        return self._closing.is_set()

    async def until_closed(self) -> None:
        """Return when the service stops."""
        await self._closing.wait()

    def close(self) -> None:
        """End all waits and streams."""
        self._closing.set()
        self._wake()
        for job_id in list(self._watchers):
            self.touch(job_id)

    def after(self, position: int, limit: int) -> list[Entry] | None:
        """Up to `limit` entries behind a position; None when memory does not reach back so far."""
        if position >= self.head:
            return []
        if not self._recent or position + 1 < self._recent[0].position:
            return None
        start = position + 1 - self._recent[0].position
        return self._recent[start : start + limit]

    async def beyond(self, position: int, timeout_s: float) -> bool:
        """Wait until the log reaches beyond a position; False when that took too long or all is closed."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.head <= position and not self.closed:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return not self.closed

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job looks different from before."""
        watcher = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(watcher)
        try:
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(job_id, None)

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
