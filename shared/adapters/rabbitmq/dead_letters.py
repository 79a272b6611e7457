"""What was set aside, kept in a stream per queue: looking at it changes nothing, and an offset names a letter for good.

A letter is struck out by a later message that names its offset. To know the end of a stream, a mark is written and
read up to: AMQP 0-9-1 does not tell it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from shared.adapters.rabbitmq import topology, wire
from shared.adapters.rabbitmq.connections import Link
from shared.adapters.rabbitmq.consuming import Inbox
from shared.adapters.rabbitmq.publishing import Parcel, Publisher
from shared.adapters.rabbitmq.wire import Came
from shared.contracts.envelope import Message
from shared.contracts.routes import DEAD_LETTERS_EXCHANGE, Queue
from shared.ports import Clock, DeadLetter

READ_S: Final = 30.0
_PREFETCH: Final = 256


async def present(queue: Queue, link: Link, publisher: Publisher, clock: Clock) -> Sequence[DeadLetter]:
    """All letters that are not struck out, oldest first."""
    mark = uuid4().hex
    await publisher.publish([_note(queue.name, publisher, serai_mark=mark)])
    found: dict[int, DeadLetter] = {}
    async with link.channel("read the dead letters") as channel, asyncio.timeout(READ_S):
        inbox = Inbox(channel, link.where, topology.dead_of(queue))
        await inbox.start(topology.dead_of(queue), _PREFETCH, {"x-stream-offset": "first"})
        while (came := await inbox.next()) is not None:
            headers = wire.texts(came.headers)
            if headers.get(wire.MARK) == mark:
                return list(found.values())
            if wire.REPLAYED in headers:
                found.pop(int(headers[wire.REPLAYED]), None)
            elif wire.MARK not in headers:
                found[wire.offset(came)] = _letter(queue, came, clock)
            await inbox.ack(came)
    return []


async def strike_out(letter: DeadLetter, publisher: Publisher) -> None:
    """Note that the letter is no longer dead."""
    await publisher.publish([_note(letter.queue, publisher, serai_replayed=str(letter.position))])


def _letter(queue: Queue, came: Came, clock: Clock) -> DeadLetter:
    at = wire.dead_at(came) or came.properties.timestamp or clock()
    return DeadLetter(wire.offset(came), queue.name, wire.reason(came), wire.unpacked(came), at)


def _note(queue: str, publisher: Publisher, **headers: str) -> Parcel:
    note = Message(uuid4().hex, "eu.serai.note", DEAD_LETTERS_EXCHANGE, queue, b"", "application/octet-stream")
    return Parcel(DEAD_LETTERS_EXCHANGE, queue, publisher.pack(note, **headers))
