"""One relay per service: publishes the outbox in order, with the bus's confirms, and moves its cursor only then.

The next batch does not wait for the confirms of the one before, which come when a disk has been synced: a few may be
under way, and the cursor moves over each of them once it has over those before. When one fails, all come again.

What this process wrote itself, while little was going on, it has in memory (`Transactions.tail`) and need not read
back; the outbox is read at the start, for what other copies wrote, and where much is written at a time. The cursor is
written down a little later, so that a message does not cost a commit of its own.
"""

import asyncio
from collections.abc import Sequence

import orjson
from sqlalchemy import Connection, Row, bindparam, delete, func, select

from shared.contracts.envelope import Message
from shared.errors import Unavailable
from shared.ports import MessageBus
from shared.runtime.clock import micros
from shared.runtime.sql import upsert
from shared.runtime.transactions import Transactions

_CURSOR = "relay"
_BATCH = 128
_UNDER_WAY = 4
"""Batches that may wait for their confirms at a time."""
_IDLE_CHECK_S = 5.0
"""Another copy of the service may have written; look without being woken, this often."""
_NOTE_S = 0.5
"""The cursor is written down this long after the first message behind it: so much is sent again after a crash."""

Placed = tuple[int, Message]
"""A message and its position in the outbox."""


class Relay:
    """Publishes what `Transactions` wrote. A crash between publish and cursor repeats messages, never loses one."""

    def __init__(self, transactions: Transactions, bus: MessageBus) -> None:
        self._transactions = transactions
        self._bus = bus
        self._outbox = transactions.tables.outbox
        self._cursor = transactions.tables.relay_cursor
        self._sent = 0
        """Everything up to it was given to the bus."""
        self._position = 0
        """Everything up to it is published."""
        self._noted = 0
        self._note_at: float | None = None
        self._failed = False
        """A batch was not confirmed: nothing more is sent until all begins again at the cursor."""
        self._looked = False
        """The stored cursor was read since the start, or since a pause."""
        self._where_is_it = select(self._cursor.c.position).where(self._cursor.c.name == _CURSOR)
        self._next = (
            select(self._outbox)
            .where(self._outbox.c.position > bindparam("after"))
            .order_by(self._outbox.c.position)
            .limit(_BATCH)
        )
        stored = func.coalesce(self._where_is_it.scalar_subquery(), 0)
        self._oldest = (
            select(self._outbox.c.created_at)
            .where(self._outbox.c.position > bindparam("after"), self._outbox.c.position > stored)
            .order_by(self._outbox.c.position)
            .limit(1)
        )

    async def run(self) -> None:
        """Publish for ever; raises Unavailable with the bus or the store (the supervisor tries again)."""
        self._looked, self._failed, self._sent = False, False, self._position
        room, before = asyncio.Semaphore(_UNDER_WAY), None
        async with asyncio.TaskGroup() as group:
            while True:
                self._transactions.outbox_written.clear()
                while batch := await self._next_batch():
                    await room.acquire()
                    before = group.create_task(self._publish(batch, before), name="relay.publish")
                    before.add_done_callback(lambda _: room.release())
                    await self._note_in_time()
                    if not self._may_go_on(len(batch)):
                        break
                await self._written()

    async def publish_batch(self) -> int:
        """Publish up to 128 messages behind the cursor; how many there were."""
        self._failed, self._sent = False, self._position
        batch = await self._next_batch()
        if batch:
            await self._publish(batch)
        return len(batch)

    async def _next_batch(self) -> list[Placed]:
        """Up to 128 messages behind those that were sent; they count as sent."""
        tail = self._transactions.tail
        batch = tail.behind(self._sent, _BATCH) if self._looked else []
        if not batch:
            tail.incomplete = False
            batch = await self._transactions.store.read(self._read)
            self._looked = True
        if batch:
            self._sent = batch[-1][0]
            if self._note_at is None:
                self._note_at = asyncio.get_running_loop().time() + _NOTE_S
        return batch

    def _may_go_on(self, sent: int) -> bool:
        """Whether more may be behind the last batch."""
        tail = self._transactions.tail
        return sent == _BATCH or tail.incomplete or self._sent < tail.last

    async def _publish(self, batch: Sequence[Placed], before: "asyncio.Task[None] | None" = None) -> None:
        if self._failed:
            raise Unavailable("a batch before was not confirmed", code="bus_away")
        try:
            await self._bus.publish([message for _, message in batch])
        except BaseException:
            self._failed = True  # before anybody else has his turn: what is behind must not overtake it
            raise
        if before is not None:
            await before
        self._position = batch[-1][0]

    async def note(self) -> None:
        """Write down how far everything is published; what is under way is for the next time."""
        position, loop = self._position, asyncio.get_running_loop()
        self._note_at = None if position == self._sent else loop.time() + _NOTE_S
        if position != self._noted:
            await self._transactions.store.transact(lambda connection: self._move(connection, position))
            self._noted = position

    async def lag_s(self) -> float:
        """Age in seconds of the oldest message that is not published yet; 0 when there is none."""
        oldest = await self._transactions.store.read(self._read_oldest)
        return 0.0 if oldest is None else max(0.0, (micros(self._transactions.clock()) - oldest) / 1e6)

    async def _written(self) -> None:
        """Wait for more; note the cursor when that is due, and look into the outbox after a pause."""
        due, now = self._note_at, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_IDLE_CHECK_S if due is None else max(0.0, due - now)):
                await self._transactions.outbox_written.wait()
        except TimeoutError:
            self._looked = due is not None
        await self._note_in_time()

    async def _note_in_time(self) -> None:
        if self._note_at is not None and asyncio.get_running_loop().time() >= self._note_at:
            await self.note()

    def _read(self, connection: Connection) -> list[Placed]:
        """What is stored behind the cursor. Another copy may have moved that; ours is written down late."""
        if not self._looked:
            self._position = max(self._position, self._read_cursor(connection))
            self._sent = max(self._sent, self._position)
        return [(row.position, _message(row)) for row in connection.execute(self._next, {"after": self._sent})]

    def _read_cursor(self, connection: Connection) -> int:
        return connection.execute(self._where_is_it).scalar() or 0

    def _read_oldest(self, connection: Connection) -> int | None:
        return connection.execute(self._oldest, {"after": self._position}).scalar()

    def _move(self, connection: Connection, position: int) -> None:
        upsert(connection, self._cursor, [{"name": _CURSOR, "position": position}], ["name"])

    def forget_commands(self, connection: Connection, before: int) -> None:
        """Delete published messages that belong to no job's series and are older than `before` (microseconds)."""
        outbox = self._outbox
        connection.execute(
            delete(outbox).where(
                outbox.c.job_id.is_(None),
                outbox.c.created_at < before,
                outbox.c.position <= self._read_cursor(connection),
            )
        )


def _message(row: Row[tuple[object, ...]]) -> Message:
    return Message(
        row.id, row.type, row.exchange, row.routing_key, bytes(row.body), row.content_type, orjson.loads(row.headers)
    )
