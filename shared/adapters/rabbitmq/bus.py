"""The MessageBus on RabbitMQ. Every service of a deployment opens one: `bus = await AmqpBus.open(url)`.

The topology must be there (`declare`). At-least-once: confirms on publishing, acknowledgements on consuming, copies to
the retry ladder and to the dead letters before the original is acknowledged. Nothing reconnects behind anybody's back:
a call that finds no connection makes one or raises Unavailable.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from shared.adapters.rabbitmq import dead_letters, topology, wire
from shared.adapters.rabbitmq.connections import CALL_S, Link, close_channel
from shared.adapters.rabbitmq.consuming import Inbox, Subscription
from shared.adapters.rabbitmq.failures import translated
from shared.adapters.rabbitmq.publishing import Parcel, Publisher
from shared.adapters.rabbitmq.wire import Came
from shared.contracts import routes
from shared.contracts.envelope import Message
from shared.contracts.routes import DEAD_LETTERS_EXCHANGE, RETRY_EXCHANGE, Access, Queue, Stream
from shared.errors import NotFound, Unavailable
from shared.ports import Clock, DeadLetter, Delivery
from shared.runtime.clock import system_clock

STREAM_PREFETCH: Final = 256
PROOF_S: Final = 3.0
STREAM_CREDIT: Final = 64
"""So many messages of a stream are acknowledged at once, which lets the broker send as many more."""


class AmqpBus:
    """See `shared.ports.MessageBus`. `ladder_s` must be what was declared."""

    @classmethod
    async def open(
        cls, url: str, *, access: Access = routes.EVERYTHING, ladder_s: Sequence[float] = topology.LADDER_S,
        clock: Clock = system_clock,
    ) -> "AmqpBus":  # fmt: skip
        """Connect and look whether everything is there that `access` names. Raises Unavailable, Misconfigured.

        A user of the broker that may only do what its service does must be opened with that service's
        `routes.ACCESS`: from 4.3 on a broker refuses even a look at anything else.
        """
        bus = cls(url, access, ladder_s, clock)
        try:
            await bus.ready()
        except BaseException:  # cancelled, too: nobody else would close it
            await bus.close()
            raise
        return bus

    def __init__(self, url: str, access: Access, ladder_s: Sequence[float], clock: Clock) -> None:
        self._access = access
        self._ladder_s = tuple(ladder_s)
        self._clock = clock
        self._publishing = Link(url, "serai publish")
        self._consuming = Link(url, "serai consume")
        self._publisher = Publisher(self._publishing, topology.fed_by(access))
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    async def close(self) -> None:
        """Close the connections; unsettled deliveries go back."""
        self._closed = True
        await self._publisher.close()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def ready(self) -> None:
        self._check()
        await self._publishing.check_unblocked()
        async with self._consuming.channel("look at the topology") as channel, asyncio.timeout(CALL_S):
            for name in topology.exchanges_of(self._access):
                await channel.declare_exchange(name, passive=True)
            for name in dict.fromkeys((*topology.queues_of(self._access), *topology.fed_by(self._access))):
                await channel.declare_queue(name, passive=True)

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        self._check()
        pack = self._publisher.pack
        await self._publisher.publish([Parcel(one.exchange, one.routing_key, pack(one)) for one in messages])

    async def park(self, queue: Queue, message: Message, attempt: int, after_s: float) -> None:
        """Put a copy on the retry ladder; it goes back to the queue by itself."""
        rung = topology.rung_of(queue, topology.rung_for(self._ladder_s, after_s))
        parcel = self._publisher.pack(message, serai_attempt=str(attempt))
        await self._publisher.publish([Parcel(RETRY_EXCHANGE, rung, parcel)])

    async def set_aside(self, queue: Queue, message: Message, attempt: int, reason: str) -> None:
        """Put a copy with the reason into the stream of dead letters."""
        at = self._clock().isoformat()
        parcel = self._publisher.pack(message, serai_attempt=str(attempt), serai_reason=reason[:1000], serai_dead_at=at)
        await self._publisher.publish([Parcel(DEAD_LETTERS_EXCHANGE, queue.name, parcel)])

    # -- queues ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        self._check()
        where = self._consuming.where
        async with translated(where, f"consume {queue.name}"):
            channel = await self._consuming.open_channel()
            inbox = Inbox(channel, where, queue.name)
            await inbox.start(queue.name, prefetch)
        subscription = Subscription(queue, inbox, self, where)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            subscription.close()
            await close_channel(channel)

    async def depth(self, queue: Queue) -> int:
        """Waiting in the queue and on its ladder, and unsettled in this process; others' unsettled are not seen."""
        self._check()
        names = (queue.name, *(topology.rung_of(queue, wait_s) for wait_s in self._ladder_s))
        async with self._consuming.channel("count") as channel, asyncio.timeout(CALL_S):
            found = [await channel.declare_queue(name, passive=True) for name in names]
        ready = sum(one.declaration_result.message_count or 0 for one in found)
        return ready + sum(one.unsettled for one in self._subscriptions if one.queue.name == queue.name)

    async def dead_letters(self, queue: Queue, *, limit: int = 100) -> Sequence[DeadLetter]:
        self._check()
        found = await dead_letters.present(queue, self._consuming, self._publisher, self._clock)
        return found[:limit]

    async def replay_dead_letter(self, queue: Queue, position: int) -> None:
        self._check()
        found = await dead_letters.present(queue, self._consuming, self._publisher, self._clock)
        letter = next((one for one in found if one.position == position), None)
        if letter is None:
            raise NotFound(f"{queue.name} has no dead letter {position}", code="no_dead_letter")
        await self._publisher.publish([Parcel(RETRY_EXCHANGE, queue.name, self._publisher.pack(letter.message))])
        await dead_letters.strike_out(letter, self._publisher)

    # -- streams --------------------------------------------------------------------------------------------------

    async def read(self, stream: Stream, *, after: int | None) -> AsyncIterator[tuple[int, Message]]:
        self._check()
        where = self._consuming.where
        async with translated(where, f"read {stream.name}"):
            channel = await self._consuming.open_channel()
            inbox = Inbox(channel, where, stream.name)
            await inbox.start(stream.name, STREAM_PREFETCH, {"x-stream-offset": "first" if after is None else after})
        seen = 0
        try:
            while True:
                came = await (inbox.next() if seen or after is None else _proof(inbox, stream, after, where))
                offset = wire.offset(came)
                if after is None or offset > after:
                    yield offset, wire.unpacked(came)
                seen += 1
                if seen % STREAM_CREDIT == 0:
                    async with translated(where, "acknowledge"):
                        await inbox.ack(came, multiple=True)
        finally:
            await close_channel(channel)

    def _check(self) -> None:
        if self._closed:
            raise Unavailable("the bus is closed", code="bus_closed")


async def _proof(inbox: Inbox, stream: Stream, after: int, where: str) -> Came:
    """The message at offset `after`, or a later one when that has been aged out: a stream that we read before has it.

    A stream that was made anew has neither, and would be waited on in silence until it is as long again.
    """
    try:
        async with asyncio.timeout(PROOF_S):
            return await inbox.next()
    except TimeoutError:
        raise Unavailable(
            f"{where}: the stream {stream.name} shows nothing at offset {after} or behind it, where we have read "
            "before; if it was made anew, our kept offset must be forgotten (docs/rabbitmq.md)",
            code="stream_too_short",
        ) from None
