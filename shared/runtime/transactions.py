"""The one way a service changes anything: state and outgoing messages in one transaction.

`Transactions.run` is used by message handlers, HTTP routes and loops alike. The outbox it writes is an append-only
log: the relay publishes from it, and it answers `events_after` for readers with a hole.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Connection, bindparam, insert, select

from shared.contracts import codec
from shared.contracts.envelope import Message
from shared.contracts.events import AttemptEvent, Event, JobEvent
from shared.contracts.routes import EVENTS_EXCHANGE
from shared.ports import Clock, Store
from shared.runtime.clock import micros
from shared.runtime.tables import RuntimeTables

T = TypeVar("T")


@dataclass(slots=True)
class Unit:
    """One transaction of one service. What is emitted is published if, and only if, the transaction commits."""

    connection: Connection
    now: datetime
    cause: str
    source: str
    tables: RuntimeTables
    outgoing: list[dict[str, object]] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Publish an event along all of its routes."""
        series = _series(event)
        for message in codec.event_messages(event, source=self.source, time=self.now, cause=self.cause):
            in_series = message.exchange == EVENTS_EXCHANGE
            self.outgoing.append(_row(message, self.now, series if in_series else (None, None, None)))

    def send(self, message: Message) -> None:
        """Publish a message that is ready to go (a granted command)."""
        self.outgoing.append(_row(message, self.now, (None, None, None)))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call on the event loop once the transaction is durable; not called when it is rolled back."""
        self.callbacks.append(callback)


class Transactions:
    """A service's store, outbox and clock under one handle."""

    def __init__(self, store: Store, tables: RuntimeTables, source: str, clock: Clock) -> None:
        self.store = store
        self.tables = tables
        self.clock = clock
        self.outbox_written = asyncio.Event()
        self._source = source
        outbox = tables.outbox
        self._insert = insert(outbox)
        self._after = (
            select(outbox.c.body)
            .where(
                outbox.c.job_id == bindparam("job_id"),
                outbox.c.attempt == bindparam("attempt"),
                outbox.c.sequence > bindparam("after"),
            )
            .order_by(outbox.c.sequence)
            .limit(bindparam("limit"))
        )

    async def run(self, body: Callable[[Unit], T], *, cause: str = "") -> T:
        """Run `body` in one transaction and return its result once that is durable.

        An exception of the body rolls everything back, messages included. Raises Unavailable with the store.
        """
        made: list[Unit] = []

        def inside(connection: Connection) -> T:
            unit = Unit(connection, self.clock(), cause, self._source, self.tables)
            result = body(unit)
            if unit.outgoing:
                connection.execute(self._insert, unit.outgoing)
            made[:] = [unit]
            return result

        result = await self.store.transact(inside)
        if made[0].outgoing:
            self.outbox_written.set()
        for callback in made[0].callbacks:
            callback()
        return result

    def events_after(
        self, connection: Connection, job_id: UUID, attempt: int, after: int, limit: int = 1000
    ) -> list[bytes]:
        """Structured CloudEvents of one series behind `after`, in order of sequence."""
        found = connection.execute(
            self._after, {"job_id": str(job_id), "attempt": attempt, "after": after, "limit": limit}
        )
        return [bytes(row[0]) for row in found]


def _series(event: Event) -> tuple[str | None, int | None, int | None]:
    match event:
        case JobEvent():
            return str(event.job_id), 0, event.sequence
        case AttemptEvent():
            return str(event.job_id), event.attempt, event.sequence
    return None, None, None


def _row(message: Message, now: datetime, series: tuple[str | None, int | None, int | None]) -> dict[str, object]:
    job_id, attempt, sequence = series
    return {
        "id": message.id, "type": message.type, "exchange": message.exchange, "routing_key": message.routing_key,
        "content_type": message.content_type, "headers": orjson.dumps(dict(message.headers)).decode(),
        "body": message.body, "job_id": job_id, "attempt": attempt, "sequence": sequence, "created_at": micros(now),
    }  # fmt: skip
