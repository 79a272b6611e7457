"""The Store on PostgreSQL: one database (or one schema) per service, SQLAlchemy Core over psycopg 3's async driver.

Called by each service's composition root, mostly by way of `shared/adapters/stores.py`. Several copies of a service may
use one database. Writes go through one connection (`writing.py`), reads through a small pool; every read sees one
snapshot. Bodies run in the event loop and give it up at each statement: what they read of memory may change meanwhile.
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.adapters.postgres import connecting
from shared.adapters.postgres.connecting import Driver, Limits, Link, translating
from shared.adapters.postgres.writing import Writer
from shared.adapters.sqlite_writer import consumed
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
    writers = connecting.writers(address, limits)
    try:
        with translating(where):
            turn = await _looked_at(writers, where)
            if migrations is not None:
                await asyncio.to_thread(_migrated, address, limits, migrations)
    except BaseException:
        await writers.dispose()
        raise
    return PostgresStore(writers, connecting.readers(address, limits), turn=turn, where=where, limits=limits)


class PostgresStore:
    """See `shared.ports.Store`. Belongs to the event loop it was opened in."""

    def __init__(self, writers: AsyncEngine, readers: AsyncEngine, *, turn: int, where: str, limits: Limits) -> None:
        self._writers = writers
        self._readers = readers
        self._where = where
        self._limits = limits
        self._writer = Writer(self._connected, turn=turn, where=where, limits=limits)
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
        await self._readers.dispose()
        await self._writers.dispose()

    async def _connected(self) -> Link:
        with translating(self._where):
            return await connecting.link(self._writers)

    async def _read(self, body: Callable[[Connection], T]) -> T:
        """Run a read; once more when its connection, kept from earlier, turns out to be dead."""
        with translating(self._where):
            try:
                return await self._read_once(body)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return await self._read_once(body)

    async def _read_once(self, body: Callable[[Connection], T]) -> T:
        async with self._readers.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Driver = raw.driver_connection  # type: ignore[assignment]  # the engine's driver is psycopg's
            watch = asyncio.get_running_loop().call_later(self._limits.read_s, connecting.cut, driver)
            try:
                return consumed(await connection.run_sync(body))
            finally:
                watch.cancel()


async def _looked_at(engine: AsyncEngine, where: str) -> int:
    """Check the server; the key of the writers' turn in this database and schema."""
    link = await connecting.link(engine)
    try:
        answer = await link.driver.execute(
            "SELECT current_schema(), current_setting('server_version_num')::int / 10000, current_setting('fsync'), "
            "current_setting('synchronous_commit'), current_setting('server_encoding'), pg_is_in_recovery()"
        )
        row = await answer.fetchone()
    finally:
        await link.connection.close()
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
