"""Messages that come while others are being handled: one transaction for many, and each one's trouble is its own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Connection, MetaData, select

from shared.contracts import codec
from shared.contracts.envelope import Envelope, Message
from shared.contracts.events import SiteReachable
from shared.contracts.routes import EVENTS_EXCHANGE, Queue
from shared.errors import Refused, Unavailable
from shared.ports import Store
from shared.runtime.clock import system_clock
from shared.runtime.consuming import Consumer
from shared.runtime.tables import RuntimeTables
from shared.runtime.transactions import Transactions, Unit
from tests.stores import open_store

pytestmark = pytest.mark.fast

DEADLINE_S = 30.0
QUEUE = Queue("test.reports", "test", (), attempts=2)


@dataclass(eq=False)
class Delivered:
    """One delivery, and how it was settled."""

    message: Message
    settled: Callable[[], None]
    attempt: int = 1
    how: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        self._is("acked")

    async def retry(self, after_s: float) -> None:
        self._is("given back")

    async def dead_letter(self, reason: str) -> None:
        self._is(reason.partition(":")[0])

    def _is(self, how: str) -> None:
        self.how.append(how)
        self.settled()


class Bus:
    """Delivers what it is given, all at once, and then nothing more."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.deliveries = [Delivered(message, self._settled) for message in messages]
        self.all_settled = asyncio.Event()

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator[AsyncIterator[Delivered]]:
        yield self._deliver()

    async def _deliver(self) -> AsyncIterator[Delivered]:
        for delivery in self.deliveries:
            yield delivery
        await asyncio.Event().wait()

    def _settled(self) -> None:
        if all(delivery.how for delivery in self.deliveries):
            self.all_settled.set()


class Counting:
    """The store, with its transactions counted; away for the first `away` of them."""

    def __init__(self, store: Store) -> None:
        self.store, self.count, self.away = store, 0, 0
        self.began = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def transact(self, body: Callable[[Connection], Any]) -> Any:
        self.count += 1
        self.began.set()
        if self.away:
            self.away -= 1
            raise Unavailable("the store is away")
        return await self.store.transact(body)


class World:
    def __init__(self, store: Store, tables: RuntimeTables) -> None:
        self.store, self.tables = Counting(store), tables
        self.transactions = Transactions(self.store, tables, "test", system_clock)  # type: ignore[arg-type]  # a Store
        self.refused: set[int] = set()
        self.broken: set[int] = set()

    def handle(self, unit: Unit, envelope: Envelope, event: SiteReachable) -> None:
        """Tells what it was told; before that, it fails where it is to fail."""
        if event.occurrence in self.refused:
            raise Refused("this one must not be done", code="never")
        unit.emit(SiteReachable(site="echo", occurrence=event.occurrence))
        if event.occurrence in self.broken:
            raise RuntimeError("this one is broken")

    async def consume(self, messages: Sequence[Message]) -> list[list[str]]:
        """How each delivery was settled."""
        bus = Bus(messages)
        consumer = Consumer(bus, QUEUE, self.transactions, {SiteReachable: self.handle})  # type: ignore[arg-type]  # a bus
        running = asyncio.create_task(consumer.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await bus.all_settled.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return [delivery.how for delivery in bus.deliveries]

    async def told(self) -> Counter[int]:
        """How often each occurrence was told of."""
        query = select(self.tables.outbox.c.body).where(self.tables.outbox.c.exchange == EVENTS_EXCHANGE)
        bodies = await self.store.read(lambda connection: list(connection.execute(query).scalars()))
        events = [codec.decode_event(bytes(body)).content for body in bodies]
        return Counter(event.occurrence for event in events if isinstance(event, SiteReachable))


def message(number: int) -> Message:
    event = SiteReachable(site="prague", occurrence=number)
    return codec.event_messages(event, source="test", time=datetime.now(UTC))[0]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    metadata = MetaData()
    tables = RuntimeTables(metadata)
    store = await open_store(tmp_path / "test.sqlite", synchronous="OFF")
    await store.transact(metadata.create_all)
    yield World(store, tables)
    await store.close()


async def test_what_comes_while_one_is_handled_shares_the_next_transaction(world: World) -> None:
    settled = await world.consume([message(number) for number in range(17)])
    assert settled == [["acked"]] * 17
    assert await world.told() == Counter(range(17))
    assert world.store.count == 2, "the first sixteen came at once"


async def test_one_that_is_refused_takes_nothing_from_those_beside_it(world: World) -> None:
    world.refused = {2}
    settled = await world.consume([message(number) for number in range(5)])
    assert settled == [["acked"], ["acked"], ["never"], ["acked"], ["acked"]]
    assert await world.told() == Counter([0, 1, 3, 4])


async def test_one_that_fails_in_the_middle_leaves_nothing_behind_and_is_given_back(world: World) -> None:
    world.broken = {1}
    settled = await world.consume([message(number) for number in range(3)])
    assert settled == [["acked"], ["given back"], ["acked"]]
    assert await world.told() == Counter([0, 2])


async def test_one_that_comes_twice_is_done_once_at_the_same_time_or_later(world: World) -> None:
    twice = message(1)
    assert await world.consume([twice, message(2), twice]) == [["acked"]] * 3
    assert await world.consume([twice, message(3)]) == [["acked"]] * 2
    assert await world.told() == Counter([1, 2, 3])


async def test_while_the_store_is_away_they_wait_and_are_no_failures(world: World) -> None:
    world.store.away = 5
    assert await world.consume([message(number) for number in range(4)]) == [["acked"]] * 4
    assert await world.told() == Counter(range(4))


FEW = some.integers(min_value=0, max_value=9)


@given(numbers=some.lists(FEW, min_size=1, max_size=40), refused=some.sets(FEW), broken=some.sets(FEW))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_fails_everything_else_is_done_once(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], refused: set[int], broken: set[int]
) -> None:
    metadata = MetaData()
    store = await open_store(tmp_path_factory.mktemp("test") / "test.sqlite", synchronous="OFF")
    try:
        world = World(store, RuntimeTables(metadata))
        await store.transact(metadata.create_all)
        world.refused, world.broken = refused, broken
        known = {number: message(number) for number in numbers}
        settled = await world.consume([known[number] for number in numbers])
        for number, how in zip(numbers, settled, strict=True):
            wanted = "never" if number in refused else "given back" if number in broken else "acked"
            assert how == [wanted]
        assert await world.told() == Counter(set(numbers) - refused - broken)
    finally:
        await store.close()


async def test_one_that_is_taken_away_in_its_turn_leaves_the_others_theirs(world: World) -> None:
    """The bus cuts a consumer off while a transaction runs: whatever was in it comes again, and is known."""
    messages = [message(number) for number in range(3)]
    bus = Bus(messages)
    consumer = Consumer(bus, QUEUE, world.transactions, {SiteReachable: world.handle})  # type: ignore[arg-type]  # a bus
    running = asyncio.create_task(consumer.run())
    await world.store.began.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await world.consume(messages) == [["acked"]] * 3
    assert await world.told() == Counter(range(3))
