"""Wakes those in this process who wait for an attempt to move or for its logs to be kept: followers, questions."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


class Changes:
    """One per process; another copy of the monitor may be the one that watches, so waiters look for themselves too."""

    def __init__(self) -> None:
        self._watchers: dict[UUID, set[asyncio.Event]] = {}

    def touch(self, job_id: UUID) -> None:
        """An attempt of this job looks different from before."""
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()

    @contextmanager
    def watch(self, job_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the job's attempts; clear it before looking."""
        watcher = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(watcher)
        try:
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(job_id, None)


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, but no longer than this; the caller looks either way."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
