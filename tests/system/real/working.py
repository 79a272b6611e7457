"""A load with subscribers on the platform, for tests that break something under it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.system.crash.load import HandedIn, Users
from tests.system.crash.oracle import Wrong
from tests.system.real.readers import SseReader, StreamReader, running
from tests.system.real.verdict import tell, verdict
from tests.system.real.whole import Whole

USERS: Final = 3
PAUSE_S: Final = 0.4
_FINISH_S: Final = 60.0


@dataclass
class Load:
    """Who works on the platform, and who listens to it."""

    platform: Whole
    users: Users[Any]
    sse: SseReader
    stream: StreamReader

    @asynccontextmanager
    async def working(self, users: int = USERS, pause_s: float = PAUSE_S) -> AsyncIterator[None]:
        """Users at work; at the end everything that they began is handed in to its 202, and all copies are well."""
        tasks = [asyncio.create_task(self.users.hand_in_for_ever(pause_s), name=f"user-{n}") for n in range(users)]
        try:
            yield
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.platform.ready()
        await asyncio.gather(*(self._finished(one) for one in self.users.jobs))

    async def judged(self, name: str, faults: int) -> Sequence[Wrong]:
        """What went wrong; told at the end of the run with the count of faults. Fails the test unless nothing did."""
        wrong = await verdict(self.platform, self.users, self.sse, self.stream)
        tally = tell(f"{name}; SSE streams {sorted(self.sse.at.values())}", faults, self.users, wrong)
        assert len(self.users.jobs) > 2
        assert not wrong, f"{tally}\n{tally.details()}"
        return wrong

    async def _finished(self, one: HandedIn) -> None:
        async with asyncio.timeout(_FINISH_S):
            await self.users.finish(one)


@asynccontextmanager
async def a_load(platform: Whole, seed: int, stay_s: float = 4.0) -> AsyncIterator[Load]:
    """Users and two subscribers; the one of Server-Sent Events changes its gateway every `stay_s`."""
    sse = SseReader(platform.up.addresses["gateway"], platform.up.issuer, stay_s)
    stream = StreamReader(platform.up.parts.environment["SERAI_AMQP_URL"])
    await platform.ready()
    async with platform.users(seed) as users, running(sse, stream):
        yield Load(platform, users, sse, stream)
