"""The Store on SQLite: one file per service, SQLAlchemy Core over the standard library's driver.

Called by each service's composition root: `store = await open_store(folder / "scheduler.sqlite",
migrations="services.scheduler.migrations")`. Transactions and small reads run in the event loop itself, each on a
connection of their own, because a thread hop costs more than the statements; commits run in a thread and are shared
(`sqlite_writer.py`). One process at a time opens a file: several copies of a service are PostgreSQL's. An operator may
read it meanwhile, and write for as long as the writer has patience. The file is for its owner's eyes only.

Statements built once at import run at the driver's speed (`sqlite_quick.py`); those built for each call cost several
times as much, so services build the ones of their hot paths once.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Literal, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from shared.adapters.embedded_bus import ownership
from shared.adapters.sqlite_quick import QuickConnection
from shared.adapters.sqlite_writer import Writer, consumed, translated
from shared.errors import Misconfigured, OutcomeUnknown, SeraiError, Unavailable
from shared.ports import Lease
from shared.runtime import leases
from shared.runtime.leases import check_lease
from shared.runtime.migrating import migrate

__all__ = ["SqliteStore", "check_lease", "open_store"]

T = TypeVar("T")
Synchronous = Literal["FULL", "NORMAL", "OFF"]

BUSY_TIMEOUT_MS: Final = 5000
"""How long a read waits for another process that holds the file; the writer has its own patience."""
QUEUE_LIMIT: Final = 10_000
TRANSACT_DEADLINE_S: Final = 30.0
LONG_READERS: Final = 2


async def open_store(
    path: Path,
    migrations: str | None = None,
    *,
    synchronous: Synchronous = "FULL",
    queue_limit: int = QUEUE_LIMIT,
    busy_s: float = BUSY_TIMEOUT_MS / 1000,
) -> "SqliteStore":
    """Open (or make) the database at `path` and bring it to the newest version of the package `migrations`.

    `synchronous` FULL makes a commit durable before `transact` returns; OFF is for throw-away data. Without
    `migrations` the caller makes its tables. Raises Unavailable when the file cannot be opened or somebody writes to
    it for too long, Misconfigured when another process has it open or its version is unknown.
    """
    owner = await asyncio.to_thread(_owned, path)
    try:
        engine = _engine(path, synchronous, busy_s)
        writer = await asyncio.to_thread(_prepared, engine, path, migrations)
        reader = await asyncio.to_thread(_first_reader, engine, path, writer)
    except BaseException:
        owner.close()
        raise
    return SqliteStore(path, engine, writer, reader, queue_limit, owner)


class SqliteStore:
    """See `shared.ports.Store`. Belongs to the event loop it was opened in."""

    def __init__(
        self, path: Path, engine: Engine, writer: Connection, reader: Connection, queue_limit: int, owner: IO[str]
    ) -> None:  # fmt: skip
        self._owner = owner
        self._engine = engine
        self._write = writer
        self._writer = Writer(driver(writer), writer, limit=queue_limit, name=path.name)
        self._reader: Connection | None = reader
        self._raw_reader = driver(reader)
        self._long = ThreadPoolExecutor(LONG_READERS, thread_name_prefix=f"read-{path.stem}")
        self._local = threading.local()
        self._long_readers: list[Connection] = []

    async def transact(self, body: Callable[[Connection], T]) -> T:
        future = self._writer.submit(body)
        try:
            async with asyncio.timeout(TRANSACT_DEADLINE_S):
                result: T = await future
        except TimeoutError as error:
            if not future.cancelled():
                raise
            raise OutcomeUnknown("the database did not commit in time", code="store_failed") from error
        return result

    async def read(self, body: Callable[[Connection], T]) -> T:
        if self._reader is None:
            raise Unavailable("the database is closed", code="store_closed")
        return _snapshot(self._reader, self._raw_reader, body)

    async def read_long(self, body: Callable[[Connection], T]) -> T:
        if self._reader is None:
            raise Unavailable("the database is closed", code="store_closed")
        return await asyncio.get_running_loop().run_in_executor(self._long, self._read_in_thread, body)

    async def acquire_lease(
        self, name: str, holder: str, ttl_s: float, now: datetime, *, succeeds: str = ""
    ) -> Lease | None:
        return await self.transact(
            lambda connection: leases.acquire(connection, name, holder, ttl_s, now, succeeds=succeeds)
        )

    async def release_lease(self, lease: Lease) -> None:
        await self.transact(lambda connection: leases.release(connection, lease))

    async def close(self) -> None:
        if self._reader is None:
            return
        await self._writer.close()
        await asyncio.to_thread(self._long.shutdown)
        self._write.close()
        self._reader.close()
        self._reader = None
        while self._long_readers:
            self._long_readers.pop().close()
        self._owner.close()

    def _read_in_thread(self, body: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                connection = self._local.connection = _reader(self._engine)
            except Exception as error:
                raise translated(error) from error
            self._long_readers.append(connection)
        return _snapshot(connection, driver(connection), body)


def _snapshot(connection: Connection, raw: sqlite3.Connection, body: Callable[[Connection], T]) -> T:
    """Run `body` within one read transaction: all its statements see the newest commit, and the same one."""
    raw.execute("BEGIN")
    try:
        return consumed(body(connection))
    except Exception as error:
        raise translated(error) from error
    finally:
        if raw.in_transaction:
            raw.execute("COMMIT")


def driver(connection: Connection) -> sqlite3.Connection:
    """The sqlite3 connection under a SQLAlchemy one."""
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


# -- connections --------------------------------------------------------------------------------------------------


def _engine(path: Path, synchronous: Synchronous, busy_s: float) -> Engine:
    def connect() -> sqlite3.Connection:
        raw = sqlite3.connect(
            path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", "temp_store=MEMORY"):
            raw.execute(f"PRAGMA {pragma}")
        raw.execute("PRAGMA busy_timeout=0")
        return raw

    return create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool)


def _owned(path: Path) -> IO[str]:
    """The lock of a file that is only its owner's, in a folder that is too where we make it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = ownership.take(path, "database")
        ownership.make_private(path)
    except OSError as error:
        raise Unavailable(f"cannot open the database {path}: {error}", code="database_failed") from error
    return lock


def _prepared(engine: Engine, path: Path, migrations: str | None) -> Connection:
    """The writer's connection, with the migrations applied in one transaction."""
    try:
        connection = QuickConnection(engine)
        driver(connection).execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    except Exception as error:
        raise _unopened(path, error) from error
    try:
        if migrations is not None:
            _migrated(connection, path, migrations)
        driver(connection).execute("PRAGMA busy_timeout=0")
    except BaseException as error:
        driver(connection).rollback()
        connection.close()
        if isinstance(error, Exception):
            raise _unopened(path, error) from error
        raise
    return connection


def _migrated(connection: Connection, path: Path, migrations: str) -> None:
    raw = driver(connection)
    raw.execute("BEGIN IMMEDIATE")
    try:
        migrate(connection, migrations)
    except Misconfigured as error:
        raise Misconfigured(f"the database {path} cannot be used: {error.what}", code=error.code) from error
    raw.execute("COMMIT")


def _first_reader(engine: Engine, path: Path, writer: Connection) -> Connection:
    try:
        return _reader(engine)
    except Exception as error:
        writer.close()
        raise _unopened(path, error) from error


def _unopened(path: Path, error: Exception) -> Exception:
    """What an error while opening means to the caller."""
    meant = translated(error)
    if isinstance(meant, SeraiError):
        return meant if meant is error else Unavailable(f"cannot open {path}: {meant}", code="store_failed")
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.DatabaseError) and "not a database" in str(cause):
        return Misconfigured(f"{path} is no SQLite database; move it away, or name another file")
    return Unavailable(f"cannot open the database {path}: {error}", code="store_failed")


def _reader(engine: Engine) -> Connection:
    connection = QuickConnection(engine)
    connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.exec_driver_sql("PRAGMA query_only=ON")
    return connection
