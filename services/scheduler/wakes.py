"""How what happens in one place wakes the loop that cares, within this process. Copies elsewhere find out by timer."""

import asyncio
import contextlib


class Wake:
    """An event that is used up by waiting for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, at_most_s: float) -> bool:
        """Return when it was set since the last return, or after `at_most_s`. True when it was set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._event.wait()
        was_set = self._event.is_set()
        self._event.clear()
        return was_set


class Wakes:
    """`queue` wakes the placer, `calls` the performer, `sweep` the sweeper; the rest says what for."""

    def __init__(self) -> None:
        self.queue = Wake()
        self.calls = Wake()
        self.sweep = Wake()
        self.room_changed = False
        self.queue_changed = False
        self._owed: set[str] = set()

    def room(self) -> None:
        """Room was freed, or a site changed: what did not fit before may fit now."""
        self.room_changed = True
        self.queue.set()

    def queued(self) -> None:
        """A job came into the queue, or may be looked at again."""
        self.queue_changed = True
        self.queue.set()

    def owed(self, cluster: str) -> None:
        """A call to a cluster is owed, or more of them may be made at a time."""
        self._owed.add(cluster)
        self.calls.set()

    def take_owed(self) -> set[str]:
        """The clusters that were named since this was last asked."""
        owed, self._owed = self._owed, set()
        return owed
