"""Messages of one queue or stream as an iterator, over one channel. Used by `bus.AmqpBus` alone."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from aio_pika.abc import AbstractChannel
from aiormq import Channel as Underlay
from aiormq.abc import DeliveredMessage
from pamqp.common import FieldTable

from shared.adapters.rabbitmq import wire
from shared.adapters.rabbitmq.connections import CALL_S, below
from shared.adapters.rabbitmq.failures import translated
from shared.adapters.rabbitmq.wire import Came
from shared.contracts.envelope import Message
from shared.contracts.routes import Queue
from shared.errors import Unavailable


class Inbox:
    """What the broker pushed, in its order; ends with Unavailable when channel or consumer are gone."""

    def __init__(self, channel: AbstractChannel, where: str, name: str) -> None:
        self._channel = channel
        self._gone = f"{where}: the consumer of {name} is gone"
        self._underlay: Underlay | None = None
        self._came: deque[Came] = deque()
        self._changed = asyncio.Event()
        self.ended = False

    async def start(self, name: str, prefetch: int, arguments: FieldTable | None = None) -> None:
        """Subscribe. Raises what aio-pika raises."""
        async with asyncio.timeout(CALL_S):
            await self._channel.set_qos(prefetch_count=prefetch)
            self._channel.close_callbacks.add(self.end)
            underlay = self._underlay = await below(self._channel)
            underlay.on_consumer_cancel_callbacks.add(self.end)
            await underlay.queue_declare(name, passive=True)
            await underlay.basic_consume(name, self._take, arguments=arguments)

    async def next(self) -> Came:
        """The next message. Raises Unavailable at the end."""
        while not self._came:
            self.check()
            self._changed.clear()
            await self._changed.wait()
        return self._came.popleft()

    async def ack(self, came: Came, *, multiple: bool = False) -> None:
        """Acknowledge it, or everything up to it. Raises Unavailable at the end, and what aio-pika raises."""
        self.check()
        assert self._underlay is not None
        # Nobody waits until it is on its way: an acknowledgement has no answer, and what gets lost is delivered again.
        await self._underlay.basic_ack(came.tag, multiple=multiple, wait=False)

    def check(self) -> None:
        """Raise Unavailable at the end."""
        if self.ended:
            raise Unavailable(self._gone, code="bus_away")

    @property
    def waiting(self) -> int:
        """What came and nobody has asked for yet."""
        return len(self._came)

    async def _take(self, delivered: DeliveredMessage) -> None:
        self._came.append(wire.came(delivered))
        self._changed.set()

    def end(self, *_: object) -> None:
        """Nothing more comes; what came and was not asked for goes back with the channel."""
        self.ended = True
        self._came.clear()
        self._changed.set()


class Elsewhere(Protocol):
    """Where a delivery goes that is not done: the bus publishes a copy, with confirm."""

    async def park(self, queue: Queue, message: Message, attempt: int, after_s: float) -> None: ...
    async def set_aside(self, queue: Queue, message: Message, attempt: int, reason: str) -> None: ...


class Subscription:
    """The iterator behind `MessageBus.consume`."""

    def __init__(self, queue: Queue, inbox: Inbox, elsewhere: Elsewhere, where: str) -> None:
        self.queue = queue
        self._inbox = inbox
        self._elsewhere = elsewhere
        self._where = where
        self._taken = 0

    @property
    def unsettled(self) -> int:
        """What the broker has sent and we have not settled."""
        return self._taken + self._inbox.waiting

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> "AmqpDelivery":
        came = await self._inbox.next()
        self._taken += 1
        return AmqpDelivery(self, came)

    def close(self) -> None:
        """The channel is closed: the broker gives everything unsettled to the next consumer."""
        self._inbox.end()

    async def settle(self, came: Came, first: Callable[[], Awaitable[None]] | None) -> None:
        """Acknowledge, after `first` has put a copy where it belongs: a crash in between repeats, never loses."""
        self._inbox.check()
        if first is not None:
            await first()
        async with translated(self._where, "acknowledge"):
            await self._inbox.ack(came)
        self._taken -= 1

    async def park(self, message: Message, attempt: int, after_s: float) -> None:
        await self._elsewhere.park(self.queue, message, attempt, after_s)

    async def set_aside(self, message: Message, attempt: int, reason: str) -> None:
        await self._elsewhere.set_aside(self.queue, message, attempt, reason)


class AmqpDelivery:
    """See `shared.ports.Delivery`."""

    __slots__ = ("_came", "_settled", "_subscription", "attempt", "message")

    def __init__(self, subscription: Subscription, came: Came) -> None:
        self.message = wire.unpacked(came)
        self.attempt = wire.attempt(came)
        self._came = came
        self._subscription = subscription
        self._settled = False

    async def ack(self) -> None:
        self._once()
        await self._subscription.settle(self._came, None)

    async def retry(self, after_s: float) -> None:
        self._once()
        await self._subscription.settle(
            self._came, lambda: self._subscription.park(self.message, self.attempt + 1, after_s)
        )

    async def dead_letter(self, reason: str) -> None:
        self._once()
        await self._subscription.settle(
            self._came, lambda: self._subscription.set_aside(self.message, self.attempt, reason)
        )

    def _once(self) -> None:
        if self._settled:
            raise RuntimeError("a delivery was settled twice")
        self._settled = True
