"""The one way a service changes anything: state and outgoing messages in one transaction.

`Transactions.run` is used by message handlers, HTTP routes and loops alike. The outbox it writes is an append-only
log: the relay publishes from it, and it answers `events_after` for readers with a hole.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Connection, bindparam, func, insert, select

from shared.contracts import codec
from shared.contracts.envelope import Message
from shared.contracts.events import AttemptEvent, Event, JobEvent
from shared.contracts.routes import EVENTS_EXCHANGE
from shared.ports import Clock, Store
from shared.runtime.clock import micros
from shared.runtime.sql import asked
from shared.runtime.tables import RuntimeTables

T = TypeVar("T")

TAIL: Final = 1024
"""Messages kept in memory for the relay; it reads older ones from the outbox."""
FEW: Final = 4
"""So many transactions at a time ask for their positions. Of more, the relay reads a batch at once from the outbox,
which costs less than a question, and on PostgreSQL a round trip, in each of them."""


@dataclass(slots=True)
class Unit:
    """One transaction of one service. What is emitted is published if, and only if, the transaction commits."""

    connection: Connection
    now: datetime
    cause: str
    source: str
    tables: RuntimeTables
    outgoing: list[dict[str, object]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    """Those of `outgoing`, as they will be published."""
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    checks: list[Callable[[], None]] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Publish an event along all of its routes."""
        series = _series(event)
        for message in codec.event_messages(event, source=self.source, time=self.now, cause=self.cause):
            self._add(message, series if message.exchange == EVENTS_EXCHANGE else _NO_SERIES)

    def send(self, message: Message) -> None:
        """Publish a message that is ready to go (a granted command)."""
        self._add(message, _NO_SERIES)

    def _add(self, message: Message, series: "Series") -> None:
        self.outgoing.append(_row(message, self.now, series))
        self.messages.append(message)

    def at_end(self, check: Callable[[], None]) -> None:
        """Call when the body is done: it raises where a write of the body did not do what it should have done."""
        self.checks.append(check)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call on the event loop once the transaction is durable; not called when it is rolled back."""
        self.callbacks.append(callback)


@dataclass(slots=True)
class _Done:
    """What one transaction has done."""

    units: list[Unit] = field(default_factory=list)
    last: Callable[[], Sequence[Any]] | None = None
    """Asked for the position of its last message in the outbox; None = nobody has asked."""


class Tail:
    """What this process has written into its outbox lately, so that its relay need not read it back.

    Positions grow without holes within one transaction, and nothing is promised between two: another copy of the
    service may have written there.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[int, Message]] = deque(maxlen=TAIL)
        self.last = 0
        """The position of the newest message in here, published or not."""
        self.incomplete = False
        """Something was written that is not in here; the relay says when it has read it."""

    def add(self, last: int, messages: Sequence[Message]) -> None:
        """Messages of one transaction, committed; the last one has this position."""
        self._kept.extend(enumerate(messages, last - len(messages) + 1))
        self.last = max(self.last, last)

    def behind(self, position: int, most: int) -> list[tuple[int, Message]]:
        """The messages at the next positions, up to the first one that is not known here."""
        kept, found = self._kept, list[tuple[int, Message]]()
        while kept and kept[0][0] <= position:
            kept.popleft()
        while kept and kept[0][0] == position + 1 and len(found) < most:
            found.append(kept.popleft())
            position += 1
        return found


class Transactions:
    """A service's store, outbox and clock under one handle."""

    def __init__(self, store: Store, tables: RuntimeTables, source: str, clock: Clock) -> None:
        self.store = store
        self.tables = tables
        self.clock = clock
        self.outbox_written = asyncio.Event()
        self.tail = Tail()
        self._source = source
        self._under_way = 0
        outbox = tables.outbox
        self._insert = insert(outbox)
        self._last = select(func.max(outbox.c.position))
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
        return (await self.run_all([(body, cause)]))[0]

    async def run_all(self, bodies: Sequence[tuple[Callable[[Unit], T], str]]) -> list[T]:
        """Run bodies, each with its cause, one after another in one transaction; what each gave, in their order.

        An exception of one rolls all of them back.
        """
        done = _Done()

        def inside(connection: Connection) -> list[T]:
            now = self.clock()
            units = [Unit(connection, now, cause, self._source, self.tables) for _, cause in bodies]
            results = [body(unit) for (body, _), unit in zip(bodies, units, strict=True)]
            done.units, done.last = units, self._written(connection, units)
            return results

        self._under_way += 1
        try:
            results = await self.store.transact(inside)
        finally:
            self._under_way -= 1
        self._tell_relay(done)
        for unit in done.units:
            for callback in unit.callbacks:
                callback()
        return results

    def _written(self, connection: Connection, units: Sequence[Unit]) -> Callable[[], Sequence[Any]] | None:
        """Write what the bodies emitted, and check what they wrote, with one wait for all. The position of the last
        message, asked for; None = there is none, or nobody has asked.
        """
        last, outgoing = None, [row for unit in units for row in unit.outgoing]
        if outgoing:
            connection.execute(self._insert, outgoing)
            if self._under_way <= FEW:
                last = asked(connection, self._last)
        for unit in units:
            for check in unit.checks:
                check()
        return last

    def _tell_relay(self, done: "_Done") -> None:
        messages = [message for unit in done.units for message in unit.messages]
        if not messages:
            return
        if done.last is not None:
            ((last,),) = done.last()
            self.tail.add(last, messages)
        else:
            self.tail.incomplete = True
        self.outbox_written.set()

    def events_after(
        self, connection: Connection, job_id: UUID, attempt: int, after: int, limit: int = 1000
    ) -> list[bytes]:
        """Structured CloudEvents of one series behind `after`, in order of sequence."""
        found = connection.execute(
            self._after, {"job_id": str(job_id), "attempt": attempt, "after": after, "limit": limit}
        )
        return [bytes(row[0]) for row in found]


Series = tuple[str | None, int | None, int | None]
_NO_SERIES: Final[Series] = (None, None, None)


def _series(event: Event) -> Series:
    match event:
        case JobEvent():
            return str(event.job_id), 0, event.sequence
        case AttemptEvent():
            return str(event.job_id), event.attempt, event.sequence
    return _NO_SERIES


def _row(message: Message, now: datetime, series: Series) -> dict[str, object]:
    job_id, attempt, sequence = series
    return {
        "id": message.id, "type": message.type, "exchange": message.exchange, "routing_key": message.routing_key,
        "content_type": message.content_type, "headers": orjson.dumps(dict(message.headers)).decode(),
        "body": message.body, "job_id": job_id, "attempt": attempt, "sequence": sequence, "created_at": micros(now),
    }  # fmt: skip
