"""Connections to one PostgreSQL database: address, time-outs, and what an error of the driver means to a caller.

Used by `store.py` and `writing.py`. Statement, lock and idle-in-transaction time-outs are the server's, so that a copy
that was stopped in the middle of a transaction cannot hold up the others; the rest are ours.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import ConnStatus
from psycopg.types.numeric import Int8BinaryDumper
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from shared.adapters.postgres.quick import Driver, QuickConnection
from shared.errors import Misconfigured, SeraiError, Unavailable

C = TypeVar("C", bound=QuickConnection)

_DRIVER: Final = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Limits:
    """Time-outs in seconds and sizes. `idle_s` bounds how long a stopped leader can hold the writers' turn."""

    connect_s: float = 5.0
    statement_s: float = 15.0
    lock_s: float = 10.0
    idle_s: float = 4.0
    group_s: float = 20.0
    transact_s: float = 30.0
    read_s: float = 30.0
    readers: int = 4
    queue: int = 10_000


def parsed(url: str) -> URL:
    """`postgresql://user:password@host:5432/database` for our driver. Raises Misconfigured."""
    try:
        made = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Misconfigured("the database's address is not a URL like postgresql://user@host:5432/database") from error
    if made.drivername not in ("postgresql", "postgres", _DRIVER):
        raise Misconfigured(f"{made.drivername} is no PostgreSQL address: write postgresql://user@host:5432/database")
    return made.set(drivername=_DRIVER)


def place(url: URL) -> str:
    """The database in words, without its password."""
    return f"PostgreSQL {url.host or 'on this machine'}:{url.port or 5432}/{url.database or url.username or ''}"


def engine(url: URL, limits: Limits, *, read_only: bool = False) -> AsyncEngine:
    """Makes connections, and keeps none: in autocommit mode, so that whoever has one begins and commits by himself."""
    timed = _timed(url, limits, "-c default_transaction_read_only=on" if read_only else "")
    made = create_async_engine(timed, poolclass=NullPool, isolation_level="AUTOCOMMIT", paramstyle="format")

    @event.listens_for(made.sync_engine, "connect")
    def one_width(connection: Any, _record: Any) -> None:
        """Numbers are of one type whatever their size: a prepared statement is one for each combination of types."""
        connection.driver_connection.adapters.register_dumper(int, Int8BinaryDumper)

    @event.listens_for(made.sync_engine, "before_cursor_execute")
    def core(connection: Connection, *_: Any) -> None:
        if isinstance(connection, QuickConnection):
            connection.before_core()

    return made


@contextlib.contextmanager
def alone(url: URL, limits: Limits) -> Iterator[Connection]:
    """One blocking connection within a transaction without time-outs, for migrations: not on the event loop."""
    patient = replace(limits, statement_s=0, lock_s=0, idle_s=0)
    engine = create_engine(_timed(url, patient), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _timed(url: URL, limits: Limits, more: str = "") -> URL:
    server = {
        "statement_timeout": limits.statement_s, "lock_timeout": limits.lock_s,
        "idle_in_transaction_session_timeout": limits.idle_s,
    }  # fmt: skip
    given = url.query.get("options", "")
    words = [given if isinstance(given, str) else " ".join(given)]
    words += [more, *(f"-c {name}={int(seconds * 1000)}" for name, seconds in server.items())]
    defaults = {
        "application_name": "serai", "connect_timeout": str(max(2, int(limits.connect_s))), "keepalives_idle": "5",
        "keepalives_interval": "2", "keepalives_count": "3", "tcp_user_timeout": "10000",
    }  # fmt: skip
    return url.set(query={**defaults, **url.query, "options": " ".join(filter(None, words))})


# -- errors -------------------------------------------------------------------------------------------------------

_AGAIN: Final = ("40001", "40P01")
"""Serialization failure and deadlock (PostgreSQL manual, appendix A): nothing happened, the same again may succeed."""
_TEMPORARY: Final = ("08", "53", "55006", "55P03", "57", "58", "25006", "40", "F0")
"""Classes and codes that speak of the server, of its load or of other clients, not of the statement."""
_OPERATORS: Final = ("28", "3D", "3F", "42501", "0P")
"""Wrong credentials, no such database or schema, missing rights."""

_REFUSALS: Final = ("password", "does not exist", "pg_hba.conf", "permission denied", "certificate")
"""The driver tells no code of a refused connection, only the server's words (in English, unless told otherwise)."""


def driver_error(error: BaseException) -> psycopg.Error | None:
    """The driver's error in `error`, if there is one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def may_succeed_again(error: BaseException) -> bool:
    """Whether the transaction was rolled back because of others, and should be run again."""
    cause = driver_error(error)
    return cause is not None and cause.sqlstate in _AGAIN


def translated(error: Exception, where: str) -> Exception:
    """`error`, or what it means to callers: Unavailable (server, load, network) or Misconfigured (rights, names)."""
    if isinstance(error, SeraiError):
        return error
    if isinstance(error, StopIteration):
        return RuntimeError(f"a body raised {error!r}")
    cause = driver_error(error)
    if cause is None:
        return Unavailable(f"{where} cannot be reached: {error}", code="store_failed") if _lost(error) else error
    state, words = cause.sqlstate or "", _first_line(cause)
    if state.startswith(_OPERATORS) or (not state and any(sign in words for sign in _REFUSALS)):
        return Misconfigured(f"{where} refuses us: {words}; check user, password, database and rights (database_url)")
    if state.startswith(_TEMPORARY) or (not state and isinstance(cause, psycopg.OperationalError)):
        return Unavailable(f"{where} does not serve: {words}", code="store_failed")
    return error


def _lost(error: Exception) -> bool:
    return isinstance(error, OSError)


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def translating(where: str) -> Iterator[None]:
    """Raise what an error means to callers instead of it."""
    try:
        yield
    except Exception as error:
        meant = translated(error, where)
        if meant is error:
            raise
        raise meant from error


# -- one connection -----------------------------------------------------------------------------------------------


async def connected(engine: AsyncEngine, kind: type[C]) -> C:
    """Open a connection. Raises what the driver raises."""
    return await greenlet_spawn(kind, engine.sync_engine)


def is_gone(connection: Driver) -> bool:
    """Whether the connection is closed or broken."""
    return connection.closed or connection.pgconn.status != ConnStatus.OK


async def end(connection: QuickConnection) -> None:
    """Close it, whatever its state is."""
    cut(connection.driver)
    await connection.end()


def cut(connection: Driver) -> None:
    """End a connection whose server does not answer: whoever waits on it gets an error at once.

    Cancelling the wait would ask the silent server to cancel the statement, and wait for its answer.
    """
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
