"""A message bus under test, with routes of its own, and what its tests do to it. One class for each adapter."""

import asyncio
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import aio_pika
from yarl import URL

from shared.adapters.embedded_bus import EmbeddedBus
from shared.adapters.rabbitmq import AmqpBus, declare, topology
from shared.contracts.envelope import Message
from shared.contracts.routes import Access, Queue, Stream
from shared.ports import Delivery, MessageBus
from tests.ports.bus.promises import NOT_KEPT
from tests.proxy import Proxy

DEADLINE_S = 60.0
QUIET_S = 0.25
"""So long nothing comes where nothing should come: longer than anything takes on the way."""
RUNG_S = 0.3

T = TypeVar("T")


class BusUnderTest(ABC):
    """`bus` is the adapter, open; `queue` and `log` are bound to the exchange `queue.exchange` by `work.*`."""

    name: str
    bus: MessageBus

    def __init__(self) -> None:
        self.prefix = f"t{secrets.token_hex(4)}"
        self.queue = Queue(f"{self.prefix}.queue", f"{self.prefix}.in", ("work.*",))
        self.log = Stream(f"{self.prefix}.log", f"{self.prefix}.in", ("work.*", "note.*"))
        self.queues: tuple[Queue, ...] = (self.queue,)
        self._opened: list[MessageBus] = []

    async def with_queue(self, **more: object) -> Queue:
        """One more queue, bound by `work.#`; the bus is opened anew for it."""
        queue = replace(Queue(f"{self.prefix}.more", self.queue.exchange, ("work.#",)), **more)  # type: ignore[arg-type]
        self.queues = (*self.queues, queue)
        await self.reopen()
        return queue

    def keeps(self, promise: str) -> bool:
        return promise not in NOT_KEPT[self.name]

    def message(self, number: int, key: str = "work.one", body: bytes | None = None) -> Message:
        return Message(
            f"id-{number}", "eu.serai.test.v1", self.queue.exchange, key, body or b"%d" % number, "application/json"
        )

    async def publish(self, *numbers: int, key: str = "work.one") -> None:
        await self.bus.publish([self.message(number, key) for number in numbers])

    async def open(self) -> None:
        """Open the bus, or open it again where everything is as it was."""
        self.bus = await self._open()
        self._opened.append(self.bus)

    async def reopen(self) -> None:
        """Close the bus in order and open it again."""
        await self._close(self.bus)
        await self.open()

    @abstractmethod
    async def crash(self) -> None:
        """The process dies as by `kill -9`, and another one opens the bus."""

    @abstractmethod
    async def _open(self) -> MessageBus: ...

    @abstractmethod
    async def _close(self, bus: MessageBus) -> None: ...

    async def clean(self) -> None:
        for bus in self._opened:
            await self._close(bus)


class EmbeddedUnderTest(BusUnderTest):
    name = "embedded"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "bus.sqlite"
        self._lives = 0

    async def crash(self) -> None:
        """Go on with the file as it is now; the old process's is left to itself."""
        self._lives += 1
        after = self.path.parent / str(self._lives)
        after.mkdir()
        for file in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            shutil.copy(file, after / file.name)
        self.path = after / self.path.name
        await self.open()

    async def _open(self) -> MessageBus:
        return await EmbeddedBus.open(self.path, queues=self.queues, streams=(self.log,))

    async def _close(self, bus: MessageBus) -> None:
        assert isinstance(bus, EmbeddedBus)
        await bus.close()


class RabbitUnderTest(BusUnderTest):
    name = "rabbitmq"

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.direct = url
        self.proxy: Proxy | None = None
        self.delivery_limit = topology.DELIVERY_LIMIT

    @property
    def port(self) -> int:
        return URL(self.direct).port or 5672

    @property
    def access(self) -> Access:
        return Access(((self.queue.exchange, ("#",)),), (self.log,), self.queues, (self.log,), self.queues)

    def through(self, proxy: Proxy, **query: str) -> None:
        """Reach the broker through a proxy from now on."""
        self.proxy = proxy
        self.url = str(URL(self.direct).with_host("127.0.0.1").with_port(proxy.port).with_query(query))

    async def declare(self) -> None:
        await declare(
            self.direct, queues=self.queues, streams=(self.log,), ladder_s=(RUNG_S,),
            delivery_limit=self.delivery_limit,
        )  # fmt: skip

    async def crash(self) -> None:
        assert self.proxy is not None
        self.proxy.cut()
        await self.open()

    async def _open(self) -> MessageBus:
        await self.declare()
        return await AmqpBus.open(self.url, access=self.access, ladder_s=(RUNG_S,))

    async def _close(self, bus: MessageBus) -> None:
        assert isinstance(bus, AmqpBus)
        await bus.close()

    async def remove(self, name: str) -> None:
        """Delete a queue, as an operator may."""
        await removed(self.direct, name)

    async def clean(self) -> None:
        await super().clean()
        for queue in self.queues:
            await removed(self.direct, queue.name, topology.rung_of(queue, RUNG_S), topology.dead_of(queue))
        await removed(self.direct, self.log.name, exchange=self.queue.exchange)


async def removed(url: str, *queues: str, exchange: str = "") -> None:
    """Delete queues, and an exchange."""
    async with await aio_pika.connect(url, timeout=5) as connection:
        channel = await connection.channel()
        for name in queues:
            await channel.queue_delete(name)
        if exchange:
            await channel.exchange_delete(exchange)


@asynccontextmanager
async def a_rabbit(
    url: str, *, delivery_limit: int = topology.DELIVERY_LIMIT, **query: str
) -> AsyncIterator[RabbitUnderTest]:
    """The bus on RabbitMQ, open, reached through a proxy; what it made is removed at the end."""
    found = RabbitUnderTest(url)
    found.delivery_limit = delivery_limit
    async with Proxy(found.port) as proxy:
        found.through(proxy, **query)
        await found.open()
        try:
            yield found
        finally:
            await found.clean()


async def next_of(items: AsyncIterator[T], within_s: float = DEADLINE_S) -> T:
    async with asyncio.timeout(within_s):
        return await anext(items)


async def some(deliveries: AsyncIterator[Delivery], count: int) -> list[Delivery]:
    """The next deliveries, unsettled."""
    return [await next_of(deliveries) for _ in range(count)]


async def acked(deliveries: AsyncIterator[Delivery], count: int) -> list[str]:
    """The ids of the next deliveries, acknowledged."""
    found = []
    for _ in range(count):
        delivery = await next_of(deliveries)
        found.append(delivery.message.id)
        await delivery.ack()
    return found


async def nothing_comes(items: AsyncIterator[object], within_s: float = QUIET_S) -> bool:
    try:
        await next_of(items, within_s)
    except TimeoutError:
        return True
    return False


async def until_depth(bus: MessageBus, queue: Queue, depth: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await bus.depth(queue) != depth:
            await asyncio.sleep(0)


def ids(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]
