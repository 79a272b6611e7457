"""Reads of one PostgreSQL database, each of one snapshot, on a few connections that are kept.

Used by `store.PostgresStore`. Most reads are one statement, which sees one snapshot by itself: it costs one round trip
instead of the three of a transaction. A body that wants a second statement is run again from its start, within a
transaction; from then on its code is known.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

from shared.adapters.postgres.connecting import Limits, cut, end, is_gone
from shared.adapters.postgres.quick import QuickConnection
from shared.adapters.quick import Plan, QuickResult
from shared.adapters.sqlite_writer import consumed
from shared.errors import Unavailable

T = TypeVar("T")
Body = Callable[[Connection], T]

_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class _OneMore(Exception):
    """A body that runs outside of a transaction wants a second statement."""


class ReadingConnection(QuickConnection):
    """Lets a body run one statement while that is `alone`: outside of a transaction."""

    alone = False
    statements = 0

    def run(self, plan: Plan, values: list[Any], *, many: bool) -> QuickResult:
        self._count()
        return super().run(plan, values, many=many)

    def before_ask(self) -> None:
        self._count()
        super().before_ask()

    def before_core(self) -> None:
        self._count()
        super().before_core()

    def _count(self) -> None:
        self.statements += 1
        if self.alone and self.statements > 1:
            raise _OneMore


class Readers:
    """`connect` opens a connection on which nothing can be written."""

    def __init__(self, connect: Callable[[], Awaitable[ReadingConnection]], *, where: str, limits: Limits) -> None:
        self._connect = connect
        self._where = where
        self._limits = limits
        self._room = asyncio.Semaphore(limits.readers)
        self._idle: list[ReadingConnection] = []
        self._longer: set[CodeType | None] = {None}
        """Code of bodies that need more than one statement, and None: those whose code nobody knows."""

    async def read(self, body: Body[T]) -> T:
        """Run a body. Raises Unavailable when too many wait, or what its statements raise."""
        patience_s = self._limits.connect_s if self._room.locked() else None
        try:
            async with asyncio.timeout(patience_s):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable(f"too many reads wait for {self._where}", code="store_overloaded") from None
        try:
            return await self._somewhere(body)
        finally:
            self._room.release()

    async def close(self) -> None:
        """Close the connections. Nothing is read any more."""
        while self._idle:
            await self._idle.pop().end()

    async def _somewhere(self, body: Body[T]) -> T:
        """On a connection kept from earlier, or, when all of these turn out to be dead, on a new one."""
        while self._idle:
            kept = self._idle.pop()
            try:
                return await self._on(kept, body)
            except (psycopg.Error, DBAPIError):
                if not is_gone(kept.driver):
                    raise
        return await self._on(await self._connect(), body)

    async def _on(self, connection: ReadingConnection, body: Body[T]) -> T:
        watch = asyncio.get_running_loop().call_later(self._limits.read_s, cut, connection.driver)
        try:
            return await self._of_one_moment(connection, body)
        finally:
            watch.cancel()
            if is_gone(connection.driver):
                await end(connection)
            else:
                self._idle.append(connection)

    async def _of_one_moment(self, connection: ReadingConnection, body: Body[T]) -> T:
        code = getattr(getattr(body, "func", body), "__code__", None)
        if code not in self._longer:
            connection.alone, connection.statements = True, 0
            try:
                return await _answered(connection, body)
            except _OneMore:
                self._longer.add(code)
            finally:
                connection.alone = False
        await connection.command(_SNAPSHOT)
        try:
            return await _answered(connection, body)
        finally:
            if not is_gone(connection.driver):
                await connection.command("COMMIT")


async def _answered(connection: ReadingConnection, body: Body[T]) -> T:
    try:
        answer = consumed(await greenlet_spawn(body, connection))
    finally:
        await connection.answered()
    if connection.alone and connection.statements > 1:
        raise _OneMore  # also where the body has swallowed it
    return answer
