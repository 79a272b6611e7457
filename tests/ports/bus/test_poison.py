"""A message that kills whoever handles it, on both buses, with the runtime's own consumer: it hurts only itself."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest_asyncio
from sqlalchemy import MetaData

from shared.adapters.sqlite import SqliteStore, open_store
from shared.contracts import codec
from shared.contracts.envelope import Envelope, Message
from shared.contracts.events import SiteReachable
from shared.runtime.clock import system_clock
from shared.runtime.consuming import DEATHS, Consumer
from shared.runtime.tables import RuntimeTables
from shared.runtime.transactions import Transactions, Unit
from tests.ports.bus.buses import DEADLINE_S, BusUnderTest, until_depth

POISON = 3
COUNT = 12


class Service:
    """A service that dies when it meets the poison; `handled` is what it did, over all its lives."""

    def __init__(self, given: BusUnderTest, transactions: Transactions) -> None:
        self.given = given
        self.transactions = transactions
        self.queue = replace(given.queue, attempts=2)
        self.handled: Counter[int] = Counter()
        self.set_aside: list[str] = []
        self.deaths = 0

    async def lives(self) -> None:
        """Run until all neighbours are handled and the poison is set aside; a new process after each death."""
        while not self.done.is_set():
            await self.life()

    async def life(self) -> None:
        self.dying = asyncio.Event()
        consumer = Consumer(
            self.given.bus, self.queue, self.transactions, {SiteReachable: self.handle}, prefetch=8,
            authorise=self.meet, on_dead_letter=self.told,
        )  # fmt: skip
        running = asyncio.create_task(consumer.run())
        ends = [asyncio.create_task(event.wait()) for event in (self.dying, self.done)]
        await asyncio.wait([running, *ends], return_when=asyncio.FIRST_COMPLETED)
        if self.dying.is_set():
            self.deaths += 1
            await self.given.crash()
        else:
            await until_depth(self.given.bus, self.queue, 0)
        for task in (running, *ends):
            task.cancel()
        await asyncio.gather(running, *ends, return_exceptions=True)

    async def meet(self, message: Message, decoded: codec.Decoded) -> None:
        if message.routing_key == f"work.{POISON}":
            self.dying.set()
            await asyncio.Event().wait()

    def handle(self, unit: Unit, envelope: Envelope, event: SiteReachable) -> None:
        self.count(event.occurrence)

    def told(self, unit: Unit, message: Message, reason: str) -> None:
        self.set_aside.append(f"{message.routing_key}: {reason}")
        self.count(0)

    def count(self, number: int) -> None:
        self.handled[number] += 1
        if len(self.handled) == COUNT:
            self.done.set()

    done: asyncio.Event
    dying: asyncio.Event


@pytest_asyncio.fixture(loop_scope="session")
async def transactions(tmp_path: Path):  # type: ignore[no-untyped-def]
    store: SqliteStore = await open_store(tmp_path / "service.sqlite", synchronous="OFF")
    metadata = MetaData()
    tables = RuntimeTables(metadata)
    await store.transact(metadata.create_all)
    yield Transactions(store, tables, "test", system_clock)
    await store.close()


async def test_a_message_that_kills_its_process_is_set_aside_and_its_neighbours_are_handled(
    given: BusUnderTest, transactions: Transactions
) -> None:
    service = Service(given, transactions)
    service.done = asyncio.Event()
    for number in range(COUNT):
        event = SiteReachable(site="hilltop", occurrence=number + 100)
        message, *_ = codec.event_messages(event, source="test", time=datetime.now(UTC))
        await given.bus.publish([replace(message, exchange=given.queue.exchange, routing_key=f"work.{number}")])
    async with asyncio.timeout(DEADLINE_S * 2):
        await service.lives()
    assert service.handled == {0: 1, **{number + 100: 1 for number in range(COUNT) if number != POISON}}
    assert len(service.set_aside) == 1 and service.set_aside[0].startswith(f"work.{POISON}: ")
    assert service.deaths <= service.queue.attempts + DEATHS + 1
    (letter,) = await given.bus.dead_letters(given.queue)
    assert "whoever held it died" in letter.reason
