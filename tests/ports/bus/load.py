"""Messages that flow while something breaks: a publisher, a consumer and a reader that go on as services do.

Each tries again when the bus is away, and nobody else does. `report` says what came of it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.errors import Unavailable
from shared.runtime.retrying import Backoff
from tests.ports.bus.buses import BusUnderTest

BATCH = 20
END_S = 40.0


@dataclass(slots=True)
class Flow:
    """`confirmed` are the numbers whose publish returned; Counters say how often each id was seen."""

    given: BusUnderTest
    confirmed: int = 0
    interruptions: int = 0
    stopped: bool = False
    failure: Exception | None = None
    consumed: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    offset: int | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def reaches(self, more: int) -> None:
        """Return when so many more messages were confirmed, consumed and read."""
        aim = self.confirmed + more
        async with asyncio.timeout(END_S):
            while min(self.confirmed, len(self.consumed), len(self.read)) < aim:
                await self.progress()

    async def lasts(self, seconds: float) -> None:
        """Return when messages have flowed for so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with asyncio.timeout(END_S):
            while loop.time() < until:
                await self.progress()

    async def progress(self) -> None:
        """Return when something came; raise what ended a part for good."""
        if self.failure is not None:
            raise self.failure
        self.moved.clear()
        await self.moved.wait()

    def report(self) -> dict[str, int]:
        wanted = {f"id-{number}" for number in range(self.confirmed)}
        return {
            "confirmed": self.confirmed,
            "lost": len(wanted - set(self.consumed)) + len(wanted - set(self.read)),
            "doubled": sum((self.consumed + self.read).values()) - len(self.consumed) - len(self.read),
            "interruptions": self.interruptions,
        }

    async def _publish(self) -> None:
        while not self.stopped:
            await self.given.publish(*range(self.confirmed, self.confirmed + BATCH))
            self.confirmed += BATCH
            self.moved.set()

    async def _consume(self) -> None:
        async with self.given.bus.consume(self.given.queue, prefetch=16) as deliveries:
            async for delivery in deliveries:
                self.consumed[delivery.message.id] += 1
                self.moved.set()
                await delivery.ack()

    async def _read(self) -> None:
        async for offset, message in self.given.bus.read(self.given.log, after=self.offset):
            assert self.offset is None or offset > self.offset
            self.offset = offset
            self.read[message.id] += 1
            self.moved.set()

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(first_s=0.05, most_s=0.5)
        while True:
            try:
                await work()
                return
            except Unavailable:
                self.interruptions += 1
                await pause(backoff.next_s())
            except Exception as error:
                self.failure = error
                self.moved.set()
                raise


@asynccontextmanager
async def flowing(given: BusUnderTest) -> AsyncIterator[Flow]:
    """Messages flow inside; at the end everything confirmed is waited for: what does not come, `report` calls lost."""
    flow = Flow(given)
    publishing = asyncio.create_task(flow._again(flow._publish))
    others = [asyncio.create_task(flow._again(work)) for work in (flow._consume, flow._read)]
    try:
        yield flow
        flow.stopped = True
        async with asyncio.timeout(END_S):
            await publishing
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                while flow.report()["lost"]:
                    await flow.progress()
    finally:
        for task in (publishing, *others):
            task.cancel()
        await asyncio.wait([publishing, *others])


async def pause(seconds: float) -> None:
    """The back-off of a retrying layer."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)
