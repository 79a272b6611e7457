"""A database under test, and small bodies that the tests' sentences are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, func, insert, select

from shared.adapters import postgres, sqlite
from shared.adapters.stores import open_store_at
from shared.ports import Store
from shared.runtime.migrating import create_tables
from shared.runtime.sql import insert_or_ignore
from shared.runtime.tables import RuntimeTables

metadata = MetaData()
runtime = RuntimeTables(metadata)
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
)


@dataclass
class Database:
    """`url` as an operator writes it. `several`: several copies may have it open, each with a store of its own."""

    url: str
    several: bool
    opened: list[Store] = field(default_factory=list)

    async def open(self, *, queue: int = 10_000) -> Store:
        """A store with the suite's tables in it, closed when the test ends."""
        store = await self._open(queue)
        self.opened.append(store)
        await store.transact(_prepare)
        return store

    async def copies(self, count: int = 2) -> list[Store]:
        """What so many copies of a service work with: a store each, or the one that SQLite allows."""
        if self.several:
            return [await self.open() for _ in range(count)]
        return [await self.open()] * count

    async def close(self) -> None:
        while self.opened:
            await self.opened.pop().close()

    async def _open(self, queue: int) -> Store:
        if queue == 10_000:
            return await open_store_at(self.url, None)
        if self.several:
            return await postgres.open_store(self.url, limits=postgres.Limits(queue=queue))
        return await sqlite.open_store(Path(self.url.removeprefix("sqlite:///")), queue_limit=queue)


def _prepare(connection: Connection) -> None:
    if not connection.dialect.has_table(connection, "things"):
        create_tables(connection, things, *runtime.all)


def put(number: int, name: str = "") -> Callable[[Connection], int]:
    """Write a thing; its number comes back."""

    def body(connection: Connection) -> int:
        connection.execute(insert(things), {"id": number, "name": name})
        return number

    return body


def put_once(number: int) -> Callable[[Connection], bool]:
    return lambda connection: insert_or_ignore(connection, things, {"id": number, "name": ""})


def numbers(connection: Connection) -> list[int]:
    """The numbers of all things, in order."""
    return list(connection.execute(select(things.c.id).order_by(things.c.id)).scalars())


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(things)).scalar() or 0
