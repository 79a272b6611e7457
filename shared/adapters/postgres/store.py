"""The Store on PostgreSQL: one database (or one schema) per service, SQLAlchemy Core over psycopg 3's async driver.

Called by each service's composition root, mostly by way of `shared/adapters/stores.py`. Several copies of a service may
use one database. Writes go through one connection (`writing.py`), reads through a few (`reading.py`); every read sees
one snapshot. Bodies run in the event loop and give it up where they want an answer: what they read of memory may change
meanwhile. As on SQLite, statements that a module built once cost least (`quick.py`).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.adapters.postgres import connecting
from shared.adapters.postgres.connecting import C, Limits, translating
from shared.adapters.postgres.quick import QuickConnection
from shared.adapters.postgres.reading import Readers, ReadingConnection
from shared.adapters.postgres.writing import Writer
from shared.errors import Misconfigured, OutcomeUnknown, Unavailable
from shared.ports import Lease
from shared.runtime import leases, logs
from shared.runtime.migrating import migrate

T = TypeVar("T")
log = logs.get("adapters.postgres")

OLDEST: Final = 13
"""The oldest PostgreSQL that still gets fixes; tests run on Debian's 15."""


async def open_store(url: str, migrations: str | None = None, *, limits: Limits | None = None) -> "PostgresStore":
    """Open the database at `url` and bring it to the newest version of the package `migrations`.

    Without `migrations` the caller makes its tables. Raises Unavailable when the server does not answer, Misconfigured
    for a wrong address, credentials, rights or version.
    """
    limits, address = limits or Limits(), connecting.parsed(url)
    where = connecting.place(address)
    writers = connecting.engine(address, limits)
    try:
        with translating(where):
            turn = await _looked_at(writers, where)
            if migrations is not None:
                await asyncio.to_thread(_migrated, address, limits, migrations)
    except BaseException:  # cancelled, too: its connections would stay open
        await writers.dispose()
        raise
    readers = connecting.engine(address, limits, read_only=True)
    return PostgresStore(writers, readers, turn=turn, where=where, limits=limits)


class PostgresStore:
    """See `shared.ports.Store`. Belongs to the event loop it was opened in."""

    def __init__(self, writers: AsyncEngine, readers: AsyncEngine, *, turn: int, where: str, limits: Limits) -> None:
        self._engines = (writers, readers)
        self._where = where
        self._limits = limits
        self._writer = Writer(self._connector(writers, QuickConnection), turn=turn, where=where, limits=limits)
        self._readers = Readers(self._connector(readers, ReadingConnection), where=where, limits=limits)
        self._reads: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def transact(self, body: Callable[[Connection], T]) -> T:
        future = self._writer.submit(body)
        try:
            async with asyncio.timeout(self._limits.transact_s):
                result: T = await future
        except TimeoutError as error:
            if not future.cancelled():
                raise
            raise OutcomeUnknown(f"{self._where} did not commit in time", code="store_failed") from error
        return result

    async def read(self, body: Callable[[Connection], T]) -> T:
        """A caller that is cancelled does not break the connection: the read ends by itself, and in time."""
        if self._closed:
            raise Unavailable(f"{self._where} is closed", code="store_closed")
        task = asyncio.create_task(self._read(body), name="postgres.read")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return await asyncio.shield(task)

    async def read_long(self, body: Callable[[Connection], T]) -> T:
        return await self.read(body)

    async def acquire_lease(
        self, name: str, holder: str, ttl_s: float, now: datetime, *, succeeds: str = ""
    ) -> Lease | None:
        return await self.transact(
            lambda connection: leases.acquire(connection, name, holder, ttl_s, now, succeeds=succeeds)
        )

    async def release_lease(self, lease: Lease) -> None:
        await self.transact(lambda connection: leases.release(connection, lease))

    async def close(self) -> None:
        self._closed = True
        await self._writer.close()
        if self._reads:
            await asyncio.wait(self._reads)
        await self._readers.close()
        for engine in self._engines:
            await engine.dispose()

    def _connector(self, engine: AsyncEngine, kind: type[C]) -> Callable[[], Awaitable[C]]:
        async def connect() -> C:
            with translating(self._where):
                return await connecting.connected(engine, kind)

        return connect

    async def _read(self, body: Callable[[Connection], T]) -> T:
        with translating(self._where):
            return await self._readers.read(body)


async def _looked_at(engine: AsyncEngine, where: str) -> int:
    """Check the server; the key of the writers' turn in this database and schema."""
    connection = await connecting.connected(engine, QuickConnection)
    try:
        answer = await connection.driver.execute(
            "SELECT current_schema(), current_setting('server_version_num')::int / 10000, current_setting('fsync'), "
            "current_setting('synchronous_commit'), current_setting('server_encoding'), pg_is_in_recovery()"
        )
        row = await answer.fetchone()
    finally:
        await connection.end()
    assert row is not None
    schema, version, fsync, synchronous, encoding, standby = row
    _check(where, schema, version, encoding, standby)
    if fsync == "off" or synchronous == "off":
        log.warning("commits_are_not_durable", where=where, fsync=fsync, synchronous_commit=synchronous)
    return int.from_bytes(hashlib.blake2b(f"serai writers {schema}".encode(), digest_size=8).digest(), signed=True)


def _check(where: str, schema: str | None, version: int, encoding: str, standby: bool) -> None:
    if version < OLDEST:
        raise Misconfigured(f"{where} is PostgreSQL {version}; {OLDEST} or newer is needed")
    if schema is None:
        raise Misconfigured(f"{where} has no schema that is on our search_path: CREATE SCHEMA, or mend the address")
    if encoding != "UTF8":
        raise Misconfigured(f"{where} has the encoding {encoding}; make the database with ENCODING 'UTF8'")
    if standby:
        raise Unavailable(f"{where} is a standby that cannot be written to; name the primary", code="store_failed")


def _migrated(address: URL, limits: Limits, migrations: str) -> None:
    """In a thread: a migration has all the time that it needs, and Alembic can do one at a time only."""
    with connecting.alone(address, limits) as connection:
        try:
            migrate(connection, migrations)
        except Misconfigured as error:
            where = connecting.place(address)
            raise Misconfigured(f"{where} cannot be used: {error.what}", code=error.code) from error
