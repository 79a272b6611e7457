"""One queue in memory: what consumers hold, what came back, what waits for its time. The file is the truth.

Used by `bus.EmbeddedBus`. Not durable itself: after a crash everything here is found again from the file.
"""

import asyncio
import heapq
from collections import deque
from typing import Protocol

from shared.adapters.embedded_bus.file import Waiting
from shared.contracts.envelope import Message
from shared.contracts.routes import Queue
from shared.errors import Unavailable


class Ledger(Protocol):
    """What a queue asks of the bus: look into the file, and have changes written to it."""

    def now(self) -> int: ...
    def find(self, queue: str, behind: int, limit: int) -> list[Waiting]: ...
    def pick(self, queue: str, positions: list[int]) -> list[Waiting]: ...
    async def hold(self, queue: str, positions: list[int]) -> None: ...
    def let_go(self, queue: str, positions: list[int]) -> None: ...
    def ack(self, queue: str, position: int) -> None: ...
    async def postpone(self, queue: str, position: int, due_at: int) -> None: ...
    async def bury(self, queue: str, position: int, reason: str) -> None: ...
    def check(self) -> None: ...


class QueueState:
    """Hands out positions in order: those that came back first, then the file's behind `_behind`."""

    def __init__(self, queue: Queue, ledger: Ledger, depth: int, retries: list[tuple[int, int]]) -> None:
        self.queue = queue
        self.depth = depth
        self._ledger = ledger
        self._behind = 0
        self._back: list[int] = []
        self._later = list(retries)
        heapq.heapify(self._later)
        self._consumers: list[Consumer] = []

    def join(self, consumer: "Consumer") -> None:
        self._consumers.append(consumer)

    def leave(self, consumer: "Consumer") -> None:
        self._consumers.remove(consumer)
        self.wake()

    def serves(self, consumer: "Consumer") -> bool:
        """Whether this consumer gets deliveries now; of a single-active queue's, only the longest there does."""
        return not self.queue.single_active or self._consumers[0] is consumer

    def wake(self) -> None:
        """Something changed: let consumers look."""
        for consumer in self._consumers:
            consumer.changed.set()

    def come_back(self, positions: list[int]) -> None:
        """Hand these out again, before anything newer."""
        for position in positions:
            heapq.heappush(self._back, position)
        self.wake()

    def return_replayed(self, position: int) -> None:
        """A dead letter waits again; what is not behind us yet will be found in its turn."""
        self.depth += 1
        if position <= self._behind:
            heapq.heappush(self._back, position)
        self.wake()

    def come_later(self, position: int, due_at: int) -> None:
        heapq.heappush(self._later, (due_at, position))
        self.wake()

    def take(self, limit: int) -> list[Waiting]:
        """Up to `limit` messages that nobody holds."""
        now = self._ledger.now()
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._back, heapq.heappop(self._later)[1])
        back = [heapq.heappop(self._back) for _ in range(min(limit, len(self._back)))]
        found = self._ledger.pick(self.queue.name, back) if back else []
        if len(found) < limit:
            fresh = self._ledger.find(self.queue.name, self._behind, limit - len(found))
            self._behind = fresh[-1][0] if fresh else self._behind
            found += fresh
        return found

    def next_due_s(self) -> float | None:
        """Seconds until the next retry is due."""
        return max(0.0, (self._later[0][0] - self._ledger.now()) / 1e6) if self._later else None


class Consumer:
    """The iterator behind `MessageBus.consume`: at most `prefetch` unsettled deliveries."""

    def __init__(self, state: QueueState, ledger: Ledger, prefetch: int) -> None:
        self.changed = asyncio.Event()
        self._state = state
        self._ledger = ledger
        self._prefetch = prefetch
        self._ready: deque[EmbeddedDelivery] = deque()
        self._unsettled: dict[int, EmbeddedDelivery] = {}
        self._open = True

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> "EmbeddedDelivery":
        while not self._ready:
            self._ledger.check()
            self.changed.clear()
            if not await self._fetch():
                await self._sleep()
        return self._ready.popleft()

    def close(self) -> None:
        """Give back what is not settled."""
        self._open = False
        positions = list(self._unsettled)
        self._unsettled.clear()
        self._ready.clear()
        if positions:
            self._ledger.let_go(self._state.queue.name, positions)
            self._state.come_back(positions)
        self._state.leave(self)

    async def _fetch(self) -> int:
        free = self._prefetch - len(self._unsettled) if self._state.serves(self) else 0
        found = self._state.take(free) if free > 0 else []
        deliveries = [EmbeddedDelivery(self, position, attempt, message) for position, attempt, message in found]
        self._unsettled.update((delivery.position, delivery) for delivery in deliveries)
        if found:
            await self._ledger.hold(self._state.queue.name, [position for position, _, _ in found])
        self._ready.extend(deliveries)
        return len(found)

    async def _sleep(self) -> None:
        idle = len(self._unsettled) >= self._prefetch or not self._state.serves(self)
        try:
            async with asyncio.timeout(None if idle else self._state.next_due_s()):
                await self.changed.wait()
        except TimeoutError:
            return

    # -- settling -------------------------------------------------------------------------------------------------

    def ack(self, position: int) -> None:
        self._settled(position, self._state.queue.name)
        self._ledger.ack(self._state.queue.name, position)
        self._state.depth -= 1

    async def retry(self, position: int, after_s: float) -> None:
        self._settled(position, self._state.queue.name)
        due_at = self._ledger.now() + max(1, int(after_s * 1_000_000))
        await self._ledger.postpone(self._state.queue.name, position, due_at)
        self._state.come_later(position, due_at)

    async def bury(self, position: int, reason: str) -> None:
        self._settled(position, self._state.queue.name)
        await self._ledger.bury(self._state.queue.name, position, reason)
        self._state.depth -= 1

    def _settled(self, position: int, queue: str) -> None:
        if not self._open:
            raise Unavailable(f"the consumer of {queue} is closed: its deliveries come again", code="bus_closed")
        if self._unsettled.pop(position, None) is None:
            raise RuntimeError("a delivery was settled twice")
        self.changed.set()


class EmbeddedDelivery:
    """See `shared.ports.Delivery`."""

    __slots__ = ("_consumer", "attempt", "message", "position")

    def __init__(self, consumer: Consumer, position: int, attempt: int, message: Message) -> None:
        self.position = position
        self.attempt = attempt
        self.message = message
        self._consumer = consumer

    async def ack(self) -> None:
        self._consumer.ack(self.position)

    async def retry(self, after_s: float) -> None:
        await self._consumer.retry(self.position, after_s)

    async def dead_letter(self, reason: str) -> None:
        await self._consumer.bury(self.position, reason)
