"""One throw-away PostgreSQL for all tests of a run, started when the first test asks; a schema for each database.

It runs in an event loop of its own in a thread, because every test has another loop. Its databases have a collation
that does not order by bytes, as an operator's may.
"""

import asyncio
import contextlib
import functools
import hashlib
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from shared.adapters.postgres import throwaway

T = TypeVar("T")
MISSING = "no PostgreSQL (postgres and initdb, on PATH or Debian's): the store on PostgreSQL is not tested"
NOT_BYTEWISE = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"


class Server:
    """The running server. `stop` ends it; nothing of it outlives the run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        self._server = self._do(self._stack.enter_async_context(throwaway.server(durable=False)))
        self._database = self._do(self._server.database("tests", NOT_BYTEWISE))

    def schema(self, name: str) -> str:
        """The URL of a schema named after a text of any kind; made when it is new."""
        schema = "s" + hashlib.sha256(name.encode()).hexdigest()[:16]
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")  # type: ignore[arg-type]
        return f"{self._database}?options=-csearch_path%3D{schema}"

    def stop(self) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)


@functools.cache
def _shared() -> Server:
    return Server()


def shared_server() -> Server:
    """The run's server."""
    return _shared()


def stop_shared() -> None:
    """End the run's server if there is one."""
    if _shared.cache_info().currsize:
        _shared().stop()
        _shared.cache_clear()


def schema_of(folder: Path, name: str) -> str:
    """The URL of the database that stands for a file of that name in a folder."""
    return shared_server().schema(str(folder / name))


@contextlib.asynccontextmanager
async def own_server(*, durable: bool = False) -> AsyncIterator[throwaway.ThrowAway]:
    """A server of one test's own, which it may kill."""
    async with throwaway.server(durable=durable) as server:
        yield server
