"""The relay of one process: what it wrote itself it publishes from memory, and its cursor is written down later."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, MetaData, select

from shared.adapters.sqlite import SqliteStore, open_store
from shared.contracts.envelope import Message
from shared.errors import Unavailable
from shared.runtime import transactions as module
from shared.runtime.clock import system_clock
from shared.runtime.relay import Relay
from shared.runtime.tables import RuntimeTables
from shared.runtime.transactions import Transactions, Unit
from tests import pacing

pytestmark = pytest.mark.fast

DEADLINE_S = 30.0


class Bus:
    """Keeps what is published; away for as many calls as `away` says."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.away = 0
        self.came = asyncio.Event()
        self.confirms: dict[str, asyncio.Future[None]] = {}
        """By the first id of a batch: what is waited for after it was published."""

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the bus is away")
        self.published += [message.id for message in messages]
        self.came.set()
        confirm = self.confirms.pop(messages[0].id, None)
        if confirm is not None:
            await confirm

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.published) < count:
                self.came.clear()
                await self.came.wait()
        return self.published


class Reads:
    """The store, with the reads counted."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.count = store, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def read(self, body: Callable[[Connection], Any]) -> Any:
        self.count += 1
        return await self.store.read(body)


class World:
    def __init__(self, store: SqliteStore, tables: RuntimeTables) -> None:
        self.store, self.tables, self.bus = Reads(store), tables, Bus()
        self.transactions, self.relay = self.copy()

    def copy(self) -> tuple[Transactions, Relay]:
        transactions = Transactions(self.store, self.tables, "monitor", system_clock)  # type: ignore[arg-type]  # a Store
        return transactions, Relay(transactions, self.bus)  # type: ignore[arg-type]  # only `publish` is used

    async def write(self, *ids: str, by: Transactions | None = None) -> None:
        def body(unit: Unit) -> None:
            for id in ids:
                unit.send(Message(id, "a.type", "an.exchange", "a.key", b"{}", "application/json"))

        await (by or self.transactions).run(body)

    async def cursor(self) -> int:
        query = select(self.tables.relay_cursor.c.position)
        return await self.store.store.read(lambda connection: connection.execute(query).scalar()) or 0


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    metadata = MetaData()
    tables = RuntimeTables(metadata)
    store = await open_store(tmp_path / "monitor.sqlite", synchronous="OFF")
    await store.transact(metadata.create_all)
    yield World(store, tables)
    await store.close()


async def test_what_this_process_wrote_is_not_read_back(world: World) -> None:
    await world.relay.publish_batch()
    reads = world.store.count
    await world.write("a", "b")
    await world.write("c")
    assert await world.relay.publish_batch() == 3
    assert world.bus.published == ["a", "b", "c"]
    assert world.store.count == reads


async def test_what_another_copy_wrote_in_between_keeps_its_place(world: World) -> None:
    await world.relay.publish_batch()
    other, _ = world.copy()
    await world.write("a")
    await world.write("b", by=other)
    await world.write("c")
    while await world.relay.publish_batch():
        pass
    assert world.bus.published == ["a", "b", "c"]


async def test_of_many_that_write_at_a_time_nobody_asks_and_the_outbox_is_read_in_batches(world: World) -> None:
    await world.relay.publish_batch()
    reads = world.store.count
    await world.write("first")
    await asyncio.gather(*(world.write(f"{number}") for number in range(60)))
    await world.write("last")
    assert world.transactions.tail.incomplete
    while await world.relay.publish_batch():
        pass
    query = select(world.tables.outbox.c.id).order_by(world.tables.outbox.c.position)
    assert world.bus.published == await world.store.store.read(lambda c: list(c.execute(query).scalars()))
    assert len(world.bus.published) == 62
    assert world.store.count - reads <= 4
    assert not world.transactions.tail.incomplete


async def test_what_could_not_be_published_is_published_later_in_its_order(world: World) -> None:
    await world.relay.publish_batch()
    await world.write("a")
    await world.write("b")
    world.bus.away = 1
    with pytest.raises(Unavailable):
        await world.relay.publish_batch()
    await world.write("c")
    while await world.relay.publish_batch():
        pass
    assert world.bus.published == ["a", "b", "c"]


async def test_more_than_memory_keeps_is_read_from_the_outbox(world: World) -> None:
    await world.relay.publish_batch()
    ids = [str(number) for number in range(module.TAIL + 10)]
    await world.write(*ids)
    while await world.relay.publish_batch():
        pass
    assert world.bus.published == ids


async def test_a_body_that_fails_leaves_nothing_to_publish(world: World) -> None:
    await world.relay.publish_batch()

    def body(unit: Unit) -> None:
        unit.send(Message("never", "a.type", "an.exchange", "a.key", b"{}", "application/json"))
        raise ValueError

    with pytest.raises(ValueError):
        await world.transactions.run(body)
    await world.write("a")
    while await world.relay.publish_batch():
        pass
    assert world.bus.published == ["a"]


async def test_the_cursor_is_noted_after_the_messages_and_a_crash_before_it_repeats_them(world: World) -> None:
    await world.write("a")
    assert await world.relay.publish_batch() == 1
    assert await world.cursor() == 0
    _, next_life = world.copy()
    assert await next_life.publish_batch() == 1
    await next_life.note()
    assert world.bus.published == ["a", "a"]
    assert await world.cursor() == 1


async def test_a_relay_that_runs_publishes_at_once_and_notes_its_cursor_by_itself(world: World) -> None:
    running = asyncio.create_task(world.relay.run())
    await world.write("a", "b")
    assert await world.bus.until(2) == ["a", "b"]
    async with asyncio.timeout(DEADLINE_S):
        while await world.cursor() < 2:
            await pacing.pause(0.02)
    assert await world.relay.lag_s() == 0.0
    running.cancel()
    await asyncio.wait([running])


async def test_the_next_batch_does_not_wait_for_the_confirms_of_the_one_before_but_the_cursor_does(
    world: World,
) -> None:
    late = world.bus.confirms["a"] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(world.relay.run())
    await world.write("a")
    await world.bus.until(1)
    await world.write("b")
    assert await world.bus.until(2) == ["a", "b"]
    await world.relay.note()
    assert await world.cursor() == 0, "b may be published, but a is not known to be"
    late.set_result(None)
    async with asyncio.timeout(DEADLINE_S):
        while await world.cursor() < 2:
            await pacing.pause(0.02)
    running.cancel()
    await asyncio.wait([running])


async def test_when_a_batch_is_not_confirmed_it_and_all_behind_it_come_again_in_their_order(world: World) -> None:
    lost = world.bus.confirms["a"] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(world.relay.run())
    await world.write("a")
    await world.bus.until(1)
    await world.write("b")
    await world.bus.until(2)
    lost.set_exception(Unavailable("the connection was lost"))
    await world.write("c")
    with pytest.raises(ExceptionGroup):
        await running
    assert world.bus.published == ["a", "b"], "what is behind one that failed does not overtake it"
    running = asyncio.create_task(world.relay.run())
    assert await world.bus.until(5) == ["a", "b", "a", "b", "c"]
    running.cancel()
    await asyncio.wait([running])
