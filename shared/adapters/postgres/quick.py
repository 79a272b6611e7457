"""Compiled statements (`shared/adapters/quick.py`) on psycopg's async driver, many of them in one round trip.

What costs is the way to the server and back, for both ends. So a statement that gives no rows is sent without waiting
for its outcome (the driver's pipeline mode): that comes with the next rows or count that somebody asks for, at the
latest with the commit. An error may thus show late, in another statement or another body; `writing.py` knows.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.util import await_only, greenlet_spawn

from shared.adapters import quick
from shared.adapters.quick import NO_COLUMNS, Plan, QuickResult

Driver = psycopg.AsyncConnection[Any]
Cursor = psycopg.AsyncCursor[Any]

_NOT_PLANNED: Final = "a statement of Core's own"


class QuickConnection(quick.QuickConnection):
    """A connection as bodies see it. Made, and used by bodies, within `greenlet_spawn`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        driver = self.connection.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        self.driver: Driver = driver
        self.writes = 0
        """Statements so far that may have written something."""
        self.reads = 0
        self._pipeline: contextlib.AbstractAsyncContextManager[Any] | None = None
        self._asked: list[_Asked] = []
        """Questions that nobody has looked at yet."""
        self._turn: Cursor | None = None

    def ask(self, query: Any, given: Mapping[str, Any] | None = None) -> Callable[[], Sequence[Any]]:
        """As `shared.runtime.sql.asked`: sent along with what else is on its way."""
        plan = self._plan(query, given or {}, False)
        if plan is None or plan.types is None:
            rows: Sequence[Any] = self.execute(query, given or {}).all()
            return lambda: rows
        self.before_ask()
        try:
            asked = _Asked(self, plan, await_only(self._send(plan.sql, plan.values(given or {}), False)))
        except psycopg.Error as error:
            raise self.error(error, plan.sql) from error
        self._asked.append(asked)
        return asked.look

    def run(self, plan: Plan, values: list[Any], *, many: bool) -> QuickResult:
        try:
            if plan.writes:
                self.writes += 1
            if plan.types is None:
                return _Sent(self, await_only(self._send(plan.sql, values, many)))
            self.reads += 1
            cursor, found = await_only(self._fetch(plan.sql, values))
        except psycopg.Error as error:
            raise self.error(error, plan.sql) from error
        return self.rows(plan, found, cursor)

    def settle(self) -> None:
        """Wait for the outcome of everything sent. Raises the first error of it, as SQLAlchemy's."""
        try:
            await_only(self.answered())
        except psycopg.Error as error:
            raise self.error(error, _NOT_PLANNED) from error

    def before_ask(self) -> None:
        """A question is about to be sent."""
        self.reads += 1

    def before_core(self) -> None:
        """Core is about to run a statement by itself: it wants its answer at once, and nobody knows what it does."""
        self.settle()
        self.writes += 1
        self.reads += 1

    def error(self, error: psycopg.Error, sql: str) -> Exception:
        """What SQLAlchemy makes of an error of the driver."""
        return DBAPIError.instance(sql, None, error, psycopg.Error, dialect=self.dialect)

    # -- outside of bodies ----------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether something was sent whose outcome nobody has asked for."""
        return self._pipeline is not None

    @property
    def has_turn(self) -> bool:
        """Whether the server has answered that the turn asked for by `ask_turn` is ours."""
        return self._turn is None or self._turn.pgresult is not None

    async def ask_turn(self, turn: int) -> None:
        """Send the words that begin a transaction and ask for a turn, an advisory lock; nothing is waited for."""
        await self._send("BEGIN", [], False)
        self._turn = await self._send("SELECT pg_advisory_xact_lock(%s)", [turn], False)

    async def command(self, words: str) -> None:
        """Run a word of ours, such as COMMIT, behind everything that was sent, and wait for it all."""
        await self.driver.execute(words, prepare=False)
        await self.answered()

    async def answered(self) -> None:
        """Wait for the outcome of everything sent. Raises the driver's first error of it."""
        pipeline, self._pipeline = self._pipeline, None
        asked, self._asked = self._asked, []
        if pipeline is not None:
            await pipeline.__aexit__(None, None, None)
        for each in asked:
            await each.fetch()

    async def end(self) -> None:
        """Close it, whatever its state is; nothing that was sent is waited for."""
        with contextlib.suppress(psycopg.Error):
            await self.answered()
        with contextlib.suppress(psycopg.Error, SQLAlchemyError):
            await greenlet_spawn(self.invalidate)
        with contextlib.suppress(psycopg.Error, SQLAlchemyError):
            await greenlet_spawn(self.close)

    # -- the driver -----------------------------------------------------------------------------------------------

    async def _send(self, sql: str, values: list[Any], many: bool) -> Cursor:
        if self._pipeline is None:
            pipeline = self.driver.pipeline()
            await pipeline.__aenter__()
            self._pipeline = pipeline
        cursor = self.driver.cursor()
        if many and len(values) > 1:
            await cursor.executemany(sql, values)
        else:
            await cursor.execute(sql, values[0] if many else values, prepare=True)
        return cursor

    async def _fetch(self, sql: str, values: list[Any]) -> tuple[Cursor, list[Any]]:
        cursor = self.driver.cursor()
        await cursor.execute(sql, values, prepare=True)
        return cursor, await cursor.fetchall()


class _Asked:
    """A question that is on its way, or answered."""

    def __init__(self, connection: QuickConnection, plan: Plan, cursor: Cursor) -> None:
        self._connection = connection
        self._plan = plan
        self._cursor = cursor
        self._found: Sequence[Any] | None = None

    def look(self) -> Sequence[Any]:
        """Its rows; waits for them where they have not come."""
        if self._found is None:
            try:
                await_only(self.fetch())
            except psycopg.Error as error:
                raise self._connection.error(error, self._plan.sql) from error
        assert self._found is not None
        return self._found

    async def fetch(self) -> None:
        """Wait for them."""
        if self._found is None:
            self._found = self._connection.rows(self._plan, await self._cursor.fetchall(), self._cursor).all()


class _Sent(QuickResult):
    """Of a statement that gives no rows. Whoever wants the count waits for it."""

    def __init__(self, connection: QuickConnection, cursor: Cursor) -> None:
        super().__init__(NO_COLUMNS, (), -1)
        self._connection = connection
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        self._connection.settle()
        return self._cursor.rowcount

    @rowcount.setter
    def rowcount(self, count: int) -> None:
        """The driver's cursor knows it."""
