"""Two copies of a service, each with a relay, on one outbox: messages may come twice, never out of order, never not.

The order that counts is that of each message's first arrival: a consumer knows what comes again by its id.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
import pytest
import pytest_asyncio
from sqlalchemy import MetaData, select

from shared.adapters.embedded_bus import EmbeddedBus
from shared.adapters.sqlite import open_store
from shared.contracts.envelope import Envelope, Message
from shared.contracts.events import AttemptEvent, AttemptRunning
from shared.contracts.routes import EVENT_LOG, SCHEDULER_REPORTS
from shared.errors import Unavailable
from shared.ports import Store
from shared.runtime.clock import system_clock
from shared.runtime.consuming import Consumer
from shared.runtime.relay import Relay
from shared.runtime.tables import RuntimeTables
from shared.runtime.transactions import Transactions, Unit
from tests.builders import VO, job_id

pytestmark = pytest.mark.fast

Fate = Literal["passes", "is lost", "is not confirmed"]
FATES: tuple[Fate, ...] = ("passes", "passes", "is lost", "is not confirmed")

JOBS, STEPS, DEADLINE_S = 5, 80, 60.0


class Gate:
    """A copy's way to the bus: lets batches through when the test says so; `fate` tells what becomes of each.

    It is a line: with a batch that gets lost, those that were given to it behind are lost too.
    """

    def __init__(self, bus: EmbeddedBus, fate: Callable[[], Fate] = lambda: "passes") -> None:
        self.bus = bus
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()
        self.fate = fate
        self.line = asyncio.Lock()
        self.broken = 0

    async def publish(self, messages: Sequence[Message]) -> None:
        """Passes on when the gate is open; the messages may get lost on their way, or the confirm on its way back."""
        self.reached.set()
        broken = self.broken
        await self.opened.wait()
        async with self.line:
            fate = self.fate() if broken == self.broken else "is lost"
            if fate == "is lost":
                self.broken += 1
            else:
                await self.bus.publish(messages)
        if fate != "passes":
            raise Unavailable(f"the batch {fate}")


class World:
    """One database and one bus; `copies` are the writers and relays of two processes over them."""

    def __init__(self, store: Store, bus: EmbeddedBus, tables: RuntimeTables) -> None:
        self.store, self.bus, self.tables = store, bus, tables
        self.written: dict[UUID, int] = defaultdict(int)

    def copy(self, gate: Gate) -> tuple[Transactions, Relay]:
        transactions = Transactions(self.store, self.tables, "monitor", system_clock)
        return transactions, Relay(transactions, gate)  # type: ignore[arg-type]  # only `publish` is used

    async def write(self, transactions: Transactions, job: UUID) -> None:
        """The next event of a job, whichever copy writes it."""

        def body(unit: Unit) -> None:
            self.written[job] += 1
            unit.emit(an_event(job, self.written[job]))

        await transactions.run(body)

    async def write_some(self, transactions: Transactions, steps: int) -> None:
        for _ in range(steps):
            for number in range(JOBS):
                await self.write(transactions, job_id(number))

    async def arrived(self, count: int) -> list[tuple[UUID, int]]:
        """(job, sequence) of the event log, doubles included, up to the one that makes `count` different."""
        found: list[tuple[UUID, int]] = []
        async with asyncio.timeout(DEADLINE_S):
            async for _, message in self.bus.read(EVENT_LOG, after=None):
                data = orjson.loads(message.body)["data"]
                found.append((UUID(data["job_id"]), data["sequence"]))
                if len(set(found)) == count:
                    break
        return found

    async def cursor(self) -> int:
        query = select(self.tables.relay_cursor.c.position)
        return await self.store.read(lambda connection: connection.execute(query).scalar()) or 0


def an_event(job: UUID, sequence: int) -> AttemptEvent:
    return AttemptRunning(job_id=job, vo=VO, attempt=1, site="prague", sequence=sequence)


def first_arrivals(arrived: Sequence[tuple[UUID, int]]) -> dict[UUID, list[int]]:
    series: dict[UUID, list[int]] = defaultdict(list)
    for job, sequence in dict.fromkeys(arrived):
        series[job].append(sequence)
    return series


def complete(steps: int) -> dict[UUID, list[int]]:
    return {job_id(number): list(range(1, steps + 1)) for number in range(JOBS)}


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    metadata = MetaData()
    tables = RuntimeTables(metadata)
    store = await open_store(tmp_path / "monitor.sqlite", synchronous="OFF")
    await store.transact(metadata.create_all)
    bus = await EmbeddedBus.open(tmp_path / "bus.sqlite")
    yield World(store, bus, tables)
    await bus.close()
    await store.close()


async def run_until(relays: Sequence[Relay], outcome: Any) -> Any:
    """What `outcome` returns while the relays run; each begins again after a failure, as under `supervise`."""
    over = asyncio.Event()

    async def keep(relay: Relay) -> None:
        while not over.is_set():  # a failure in the moment of the order to stop takes its place
            try:
                await relay.run()
            except* Unavailable:
                pass

    tasks = [asyncio.create_task(keep(relay)) for relay in relays]
    try:
        return await outcome
    finally:
        over.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_slow_relay_repeats_what_a_fast_one_has_published_and_changes_no_order(world: World) -> None:
    slow, fast = Gate(world.bus), Gate(world.bus)
    (writer, first), (_, second) = world.copy(slow), world.copy(fast)
    await world.write_some(writer, STEPS)
    held = asyncio.create_task(first.publish_batch())
    await slow.reached.wait()
    fast.opened.set()
    while await second.publish_batch():
        pass
    await second.note()
    ahead = await world.cursor()
    slow.opened.set()
    assert await held == 128
    await first.note()
    assert await world.cursor() < ahead, "the slow one's cursor is older: that repeats, and loses nothing"
    while await first.publish_batch():
        pass
    await first.note()
    arrived = await world.arrived(JOBS * STEPS)
    assert first_arrivals(arrived) == complete(STEPS)
    assert await world.cursor() == ahead


async def test_what_a_relay_published_without_moving_its_cursor_is_published_again_by_the_other(world: World) -> None:
    dying, other = Gate(world.bus, lambda: "is not confirmed"), Gate(world.bus)
    (writer, first), (_, second) = world.copy(dying), world.copy(other)
    dying.opened.set()
    other.opened.set()
    await world.write_some(writer, STEPS)
    with pytest.raises(Unavailable):
        await first.publish_batch()
    assert await world.cursor() == 0
    arrived = await run_until([second], world.arrived(JOBS * STEPS))
    assert first_arrivals(arrived) == complete(STEPS)
    assert len(arrived) == JOBS * STEPS + 64, "the batch whose cursor was not moved came again, and nothing else"


@pytest.mark.parametrize("seed", range(3))
async def test_two_copies_that_write_and_relay_side_by_side_lose_and_reorder_nothing(world: World, seed: int) -> None:
    rng = random.Random(seed)
    gates = [Gate(world.bus, lambda: rng.choice(FATES)) for _ in range(2)]
    copies = [world.copy(gate) for gate in gates]
    for gate in gates:
        gate.opened.set()
    writing = asyncio.gather(*(world.write_some(transactions, STEPS // 2) for transactions, _ in copies))
    arrived = await run_until([relay for _, relay in copies], world.arrived(JOBS * STEPS))
    await writing
    assert first_arrivals(arrived) == complete(STEPS)


async def test_a_consumer_handles_once_and_in_order_what_two_relays_send_twice(world: World) -> None:
    gates = [Gate(world.bus), Gate(world.bus)]
    (writer, first), (_, second) = (world.copy(gate) for gate in gates)
    await world.write_some(writer, STEPS)
    held = [asyncio.create_task(relay.publish_batch()) for relay in (first, second)]
    for gate in gates:
        await gate.reached.wait()
        gate.opened.set()
    assert await asyncio.gather(*held) == [128, 128]
    doubled = await world.bus.depth(SCHEDULER_REPORTS)
    assert doubled == 128, "each of the two batches has 64 events for this queue: both came, so all came twice"
    while await first.publish_batch():
        pass
    handled: list[tuple[UUID, int]] = []
    done = asyncio.Event()

    def handle(unit: Unit, envelope: Envelope, event: AttemptEvent) -> None:
        handled.append((event.job_id, event.sequence))
        if len(handled) >= JOBS * STEPS:
            done.set()

    consumer = Consumer(world.bus, SCHEDULER_REPORTS, writer, {AttemptRunning: handle})
    consuming = asyncio.create_task(consumer.run())
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
        while await world.bus.depth(SCHEDULER_REPORTS):
            await asyncio.sleep(0)
    consuming.cancel()
    await asyncio.wait([consuming])
    assert len(handled) == len(set(handled)) == JOBS * STEPS
    assert first_arrivals(handled) == complete(STEPS)
