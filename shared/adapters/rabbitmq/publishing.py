"""Publishing with mandatory routing and confirms, in order, over one channel that is opened again when it died."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Final, NamedTuple

from aio_pika import exceptions
from aio_pika.abc import AbstractChannel
from aiormq import Channel as Underlay
from aiormq.abc import ConfirmationFrameType
from pamqp.commands import Basic

from shared.adapters.rabbitmq import wire
from shared.adapters.rabbitmq.connections import CALL_S, Link, below, close_channel
from shared.adapters.rabbitmq.failures import translated
from shared.adapters.rabbitmq.wire import Packed
from shared.contracts.envelope import Message
from shared.errors import Unavailable

CONFIRM_S: Final = 10.0
"""A broker that does not confirm within this is as good as away: the outcome is unknown, and doubles are harmless."""
LOOK_S: Final = 1.0
"""How often a publisher that waits looks whether the broker has blocked it."""
IN_FLIGHT: Final = 256


class Parcel(NamedTuple):
    """One AMQP message and where it goes."""

    exchange: str
    key: str
    message: Packed


class Publisher:
    """Many at a time may publish; each batch keeps its order.

    A broker that has just started serves before it has opened its streams, and meanwhile confirms what is routed to
    one and lets it fall (3.10). So nothing is published on a new channel before the streams in `fed` are there.
    """

    def __init__(self, link: Link, fed: Sequence[str] = ()) -> None:
        self._link = link
        self._fed = tuple(fed)
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._counter = count()

    def pack(self, message: Message, **bus: str) -> Packed:
        """`wire.packed` with a number that no other message of this process has."""
        return wire.packed(message, next(self._counter), **bus)

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """Return when the broker has confirmed them all. Raises Unavailable, Misconfigured."""
        async with translated(self._link.where, "publish"):
            await self._link.check_unblocked()
            channel = await self._open()
            try:
                for start in range(0, len(parcels), IN_FLIGHT):
                    await self._publish_some(channel, parcels[start : start + IN_FLIGHT])
            except exceptions.DeliveryError:
                raise  # the broker's answer: the channel is as good as before
            except BaseException:  # cancelled, too: its confirms are awaited by nobody
                await self._drop(channel)
                raise

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._drop(self._channel)

    async def _publish_some(self, channel: AbstractChannel, parcels: Sequence[Parcel]) -> None:
        underlay = await below(channel)
        sending = asyncio.gather(*(_one(underlay, parcel) for parcel in parcels), return_exceptions=True)
        try:
            async with asyncio.timeout(CONFIRM_S):
                while not (await asyncio.wait([sending], timeout=LOOK_S))[0]:
                    await self._link.check_unblocked()
        finally:
            sending.cancel()
        ends = sending.result()
        failures = [end for end in ends if isinstance(end, BaseException)]
        if failures:
            raise min(failures, key=lambda failure: not isinstance(failure, exceptions.PublishError))
        for end in ends:
            if not isinstance(end, Basic.Ack):
                raise Unavailable(f"{self._link.where} did not confirm: {end!r}", code="bus_away")

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._ready_channel()
            return self._channel

    async def _ready_channel(self) -> AbstractChannel:
        channel = await self._link.open_channel(returns=True)
        try:
            async with asyncio.timeout(CALL_S):
                for name in self._fed:
                    await channel.declare_queue(name, passive=True)
        except BaseException:  # cancelled, too: nobody else would close it
            await close_channel(channel)
            raise
        return channel

    async def _drop(self, channel: AbstractChannel) -> None:
        """Forget a channel whose confirms nobody waits for any more."""
        if self._channel is channel:
            self._channel = None
        await close_channel(channel)


async def _one(channel: Underlay, parcel: Parcel) -> ConfirmationFrameType | None:
    body, properties = parcel.message
    return await channel.basic_publish(
        body, exchange=parcel.exchange, routing_key=parcel.key, properties=properties, mandatory=True, wait=False
    )
