"""One relay per service: publishes the outbox in order, with the bus's confirms, and moves its cursor only then."""

import asyncio

import orjson
from sqlalchemy import Connection, Row, bindparam, delete, func, select

from shared.contracts.envelope import Message
from shared.ports import MessageBus
from shared.runtime.clock import micros
from shared.runtime.sql import upsert
from shared.runtime.transactions import Transactions

_CURSOR = "relay"
_BATCH = 128
_IDLE_CHECK_S = 5.0
"""Another copy of the service may have written; look without being woken, this often."""


class Relay:
    """Publishes what `Transactions` wrote. A crash between publish and cursor repeats messages, never loses one."""

    def __init__(self, transactions: Transactions, bus: MessageBus) -> None:
        self._transactions = transactions
        self._bus = bus
        self._outbox = transactions.tables.outbox
        self._cursor = transactions.tables.relay_cursor
        self._position: int | None = None
        self._where_is_it = select(self._cursor.c.position).where(self._cursor.c.name == _CURSOR)
        self._next = (
            select(self._outbox)
            .where(self._outbox.c.position > bindparam("after"))
            .order_by(self._outbox.c.position)
            .limit(_BATCH)
        )

    async def run(self) -> None:
        """Publish for ever; raises Unavailable with the bus or the store (the supervisor tries again)."""
        self._position = None
        while True:
            self._transactions.outbox_written.clear()
            while await self.publish_batch():
                pass
            await self._written()

    async def publish_batch(self) -> int:
        """Publish up to 128 messages behind the cursor; how many there were."""
        store = self._transactions.store
        position = await store.read(self._read_cursor) if self._position is None else self._position
        rows = await store.read(lambda connection: self._read_rows(connection, position))
        if not rows:
            self._position = position
            return 0
        await self._bus.publish([_message(row) for row in rows])
        await store.transact(lambda connection: self._move(connection, rows[-1].position))
        self._position = rows[-1].position
        return len(rows)

    async def lag_s(self) -> float:
        """Age in seconds of the oldest message that is not published yet; 0 when there is none."""
        oldest = await self._transactions.store.read(self._read_oldest)
        return 0.0 if oldest is None else max(0.0, (micros(self._transactions.clock()) - oldest) / 1e6)

    async def _written(self) -> None:
        try:
            async with asyncio.timeout(_IDLE_CHECK_S):
                await self._transactions.outbox_written.wait()
        except TimeoutError:
            self._position = None

    def _read_cursor(self, connection: Connection) -> int:
        return connection.execute(self._where_is_it).scalar() or 0

    def _read_rows(self, connection: Connection, position: int) -> list[Row[tuple[object, ...]]]:
        return list(connection.execute(self._next, {"after": position}))

    def _read_oldest(self, connection: Connection) -> int | None:
        query = select(func.min(self._outbox.c.created_at)).where(
            self._outbox.c.position > self._read_cursor(connection)
        )
        return connection.execute(query).scalar()

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
