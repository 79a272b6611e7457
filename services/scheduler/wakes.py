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
    """`queue`: a job came into the queue. `room`: it may fit now what did not before. `calls`: a call is owed."""

    def __init__(self) -> None:
        self.queue = Wake()
        self.calls = Wake()
        self.sweep = Wake()
        self.room_changed = False

    def room(self) -> None:
        """Room was freed, or a site changed."""
        self.room_changed = True
        self.queue.set()
