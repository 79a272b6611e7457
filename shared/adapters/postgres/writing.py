"""Transactions on one PostgreSQL database, many of them sharing one commit, all of them one after another.

Used by `store.PostgresStore`. What a transaction costs is the wait for the disk and for the network, so bodies that
wait while a commit runs go together into the next one, and what they write is on its way without a wait for each
statement (`quick.py`). That goes well nearly always; where a body has to be undone, or a statement of one was refused,
the whole group is run again, one body after the other, each behind its own savepoint.

All writers of a database, in whatever process, take turns: a transaction holds an advisory lock from its begin to its
commit. Hence transactions are serialisable without conflicts, a lease that was checked is good until the commit, and
positions that a sequence gives become visible in their order: no reader sees n+1 before n. A copy that is stopped
within its turn loses it by the server's idle-in-transaction time-out. Measured against parallel serialisable
transactions: docs/decisions/010-writers-of-a-postgresql-database-take-turns.md.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection
from sqlalchemy.util import await_only, greenlet_spawn

from shared.adapters.postgres.connecting import (
    Limits,
    cut,
    driver_error,
    end,
    is_gone,
    may_succeed_again,
    translated,
)
from shared.adapters.postgres.quick import QuickConnection
from shared.adapters.sqlite_writer import consumed
from shared.errors import OutcomeUnknown, SeraiError, Unavailable

GROUP_LIMIT: Final = 256
GROUP_S: Final = 0.03
"""A group takes in no further body after 256 of them or 30 ms, so that nobody waits long for others' work."""
LOOK_AGAIN_S: Final = 1.0
TRIES: Final = 4
"""Runs of one group when others (an operator's shell, a migration) make it fail by deadlock or conflict."""

_HALF: Final = 0xFFFF_FFFF
_END_SILENT: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND datname = current_database() AND classid = {high} AND objid = {low} "
    "AND wait_event = 'ClientRead' AND clock_timestamp() - state_change > interval '{idle_s} seconds'"
)
"""`idle_in_transaction_session_timeout` sees no session that sent statements and does not yet want their outcome."""

Body = Callable[[Connection], Any]


class _Again(Exception):
    """Others made the transaction fail; nothing happened."""


class _Carefully(Exception):
    """A body that went together with others is to be undone alone; nothing of the group happened."""


class _NoTurn(Exception):
    """The turn did not come in time; nothing happened, and whoever waits behind would wait as long."""


class _Lost(Exception):
    """The connection is gone, or the transaction as a whole; nothing of the group happened."""


@dataclass(slots=True)
class _Work:
    body: Body
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs bodies one after another, in the order of `submit`, on a connection that nobody else uses.

    `connect` opens one in autocommit mode; `turn` is the advisory lock's key.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[QuickConnection]], *, turn: int, where: str, limits: Limits
    ) -> None:  # fmt: skip
        self._connect = connect
        self._turn = turn
        self._end_silent = _END_SILENT.format(high=turn >> 32 & _HALF, low=turn & _HALF, idle_s=limits.idle_s)
        self._where = where
        self._limits = limits
        self._connection: QuickConnection | None = None
        self._queue: deque[_Work] = deque()
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._closed = False

    def submit(self, body: Body) -> asyncio.Future[Any]:
        """Queue a body; the future is done once its commit is durable. Raises Unavailable when too much is queued."""
        if self._closed:
            raise Unavailable(f"{self._where} is closed", code="store_closed")
        if len(self._queue) >= self._limits.queue:
            raise Unavailable(
                f"{len(self._queue)} transactions already wait for {self._where}", code="store_overloaded"
            )
        work = _Work(body, asyncio.get_running_loop().create_future())
        self._queue.append(work)
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="postgres.writer")
        return work.future

    async def close(self) -> None:
        """Refuse new bodies, finish those that wait, close the connection."""
        self._closed = True
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self._drop()

    # -- one group: begin, bodies, commit, deliver ----------------------------------------------------------------

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._write_group()
        except BaseException as error:
            for work in self._queue:
                _settle(work, Unavailable(f"the writer of {self._where} ended: {error!r}", code="store_failed"))
            self._queue.clear()
            raise
        finally:
            self._task = None

    async def _write_group(self) -> None:
        group: list[_Work] = []
        failure: BaseException | None = None
        try:
            for tries_left in reversed(range(TRIES)):
                try:
                    failure = await self._attempt(group)
                    break
                except _Again as again:
                    if not tries_left:
                        failure = _cause(again, self._where)
                        break
                    await asyncio.sleep(random.uniform(0.005, 0.05))
        except _NoTurn as late:
            failure = _cause(late, self._where)
            group += self._everybody()
        except BaseException as error:
            failure = translated(error, self._where) if isinstance(error, Exception) else error
            group = group or self._everybody()
        for work in group:
            _settle(work, failure)
        if failure is not None and not isinstance(failure, Exception):
            raise failure

    async def _attempt(self, group: list[_Work]) -> Exception | None:
        """Run `group` again, or a new one from the queue, and commit it; why nobody of it knows what happened."""
        try:
            return await self._run(group, careful=False)
        except _Carefully:
            return await self._run(group, careful=True)

    async def _run(self, group: list[_Work], *, careful: bool) -> Exception | None:
        connection = await self._begun(careful)
        watch = asyncio.get_running_loop().call_later(self._limits.group_s, cut, connection.driver)
        try:
            await greenlet_spawn(self._run_bodies, connection, group, careful)
            return await self._commit(connection)
        except (_Lost, psycopg.Error) as error:
            await self._drop()
            return _cause(error, self._where)
        except (_Again, _Carefully):
            await self._roll_back(connection)
            raise
        except BaseException:  # cancelled, too: the transaction in it is nobody's now
            await self._drop()
            raise
        finally:
            watch.cancel()
            self._wait_no_more()

    async def _commit(self, connection: QuickConnection) -> Exception | None:
        """Commit behind everything that is on its way; of that, nobody knows yet whether it went well."""
        if not connection.has_turn:
            await self._come(connection)
        on_its_way = connection.waits
        try:
            await connection.command("COMMIT")
        except psycopg.Error as error:
            if may_succeed_again(error):
                raise _Again from error
            with contextlib.suppress(psycopg.Error):
                await connection.answered()  # the error may have come before COMMIT had its answer
            if on_its_way and connection.driver.pgconn.transaction_status == TransactionStatus.INERROR:
                raise _Carefully from error
            await self._drop()
            return OutcomeUnknown(f"{self._where} did not confirm a commit: {error}", code="store_failed")
        return None

    async def _come(self, connection: QuickConnection) -> None:
        """Wait for our turn: a connection that has died meanwhile must not look like a commit that nobody confirmed."""
        try:
            await connection.answered()
        except psycopg.Error as error:
            if connection.has_turn:
                raise _Carefully from error
            raise _without_turn(connection) from error

    async def _begun(self, careful: bool) -> QuickConnection:
        """A connection on which a transaction was begun and our turn asked for. On a kept one, which may have died
        meanwhile, that is on its way with what the bodies send; `careful` waits for it, as does a new connection.
        """
        if self._connection is not None:
            try:
                return await self._begin_on(self._connection, wait=careful)
            except psycopg.Error:
                gone = is_gone(self._connection.driver)
                await self._drop()
                if not gone:
                    raise
        self._connection = await self._connect()
        try:
            return await self._begin_on(self._connection, wait=True)
        except BaseException:  # cancelled, too: the turn it asked for is nobody's now
            await self._drop()
            raise

    async def _begin_on(self, connection: QuickConnection, *, wait: bool) -> QuickConnection:
        loop = asyncio.get_running_loop()
        self._late = loop.call_later(self._limits.lock_s + 1, self._cut_without_turn, connection)
        self._look = loop.call_later(self._limits.idle_s, self._look_for_silence, connection)
        try:
            await connection.ask_turn(self._turn)
            if wait:
                await connection.answered()
        except BaseException:  # cancelled, too: the timers would cut what comes after
            self._wait_no_more()
            raise
        return connection

    def _wait_no_more(self) -> None:
        for timer in (self._late, self._look):
            if timer is not None:
                timer.cancel()

    def _cut_without_turn(self, connection: QuickConnection) -> None:
        if not connection.has_turn:
            cut(connection.driver)

    def _look_for_silence(self, connection: QuickConnection) -> None:
        """Our turn is long in coming: whoever has it may have been stopped, or cut off, or may yet be."""
        if connection.has_turn:
            return
        again_s = min(LOOK_AGAIN_S, self._limits.idle_s)
        self._look = asyncio.get_running_loop().call_later(again_s, self._look_for_silence, connection)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._silenced(), name="postgres.writer.silence")

    async def _silenced(self) -> None:
        """End the session that has the turn and says nothing. A server that is away shows to whoever waits for it."""
        with contextlib.suppress(SeraiError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(self._limits.connect_s):
                connection = await self._connect()
                try:
                    await connection.command(self._end_silent)
                finally:
                    await end(connection)

    def _everybody(self) -> list[_Work]:
        """All that wait: the database is away for every one of them."""
        waiting = list(self._queue)
        self._queue.clear()
        return waiting

    async def _roll_back(self, connection: QuickConnection) -> None:
        try:
            with contextlib.suppress(psycopg.Error):
                await connection.answered()
            await connection.command("ROLLBACK")
        except psycopg.Error:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await end(connection)

    # -- bodies: within `greenlet_spawn` --------------------------------------------------------------------------

    def _run_bodies(self, connection: QuickConnection, group: list[_Work], careful: bool) -> None:
        """Run the bodies of `group`, or, when it is empty, fill it from the queue."""
        turn = (_CarefulTurn if careful else _Turn)(connection, self._turn, self._where)
        if group:
            for work in group:
                turn.run(work)
            return
        until = None
        while self._queue and len(group) < GROUP_LIMIT and (until is None or time.monotonic() < until):
            group.append(self._queue.popleft())
            turn.run(group[-1])
            until = until or time.monotonic() + GROUP_S  # the first one may have waited for the turn


class _Turn:
    """One transaction while its bodies run. One that must be undone, and is not the first to write, undoes all."""

    def __init__(self, connection: QuickConnection, turn: int, where: str) -> None:
        self._connection = connection
        self._begin = f"BEGIN; SELECT pg_advisory_xact_lock({turn})"
        self._where = where
        self._empty = True

    def run(self, work: _Work) -> None:
        """Run one body. Raises _Again, _Carefully, _NoTurn, _Lost."""
        work.result, work.error = None, None
        before = self._connection.writes
        try:
            self._guard()
            work.result = consumed(work.body(self._connection))
            self._still_ours()
        except Exception as error:
            failed = driver_error(error) is not None
            if failed and not self._connection.has_turn:
                raise _without_turn(self._connection) from error
            if is_gone(self._connection.driver):
                raise _Lost from error
            if may_succeed_again(error):
                raise _Again from error
            if failed or self._connection.writes > before:
                self._undo(error)
            work.error = translated(error, self._where)
        else:
            self._empty = self._empty and self._connection.writes == before

    def _guard(self) -> None:
        """What comes before a body."""

    def _still_ours(self) -> None:
        if self._connection.waits:
            return
        match self._status():
            case TransactionStatus.INERROR:
                raise RuntimeError("a body went on after a statement of it had failed; let the error out")
            case TransactionStatus.IDLE:
                raise RuntimeError("a body must not commit or roll back; the store does")

    def _undo(self, error: Exception) -> None:
        """Undo what the body wrote."""
        if not self._empty:
            raise _Carefully from error
        self._settle_anyhow()
        self._command(self._begin if self._status() == TransactionStatus.IDLE else f"ROLLBACK; {self._begin}")

    def _status(self) -> TransactionStatus:
        return TransactionStatus(self._connection.driver.pgconn.transaction_status)

    def _settle_anyhow(self) -> None:
        """What is on its way is to be undone: how it ended does not matter."""
        with contextlib.suppress(psycopg.Error):
            await_only(self._connection.answered())

    def _command(self, words: str) -> None:
        try:
            await_only(self._connection.command(words))
        except psycopg.Error as error:
            raise (_Again if may_succeed_again(error) else _Lost) from error


class _CarefulTurn(_Turn):
    """Each body has its outcome before the next one begins, and its exception undoes its own writes only."""

    _savepoint = ""

    def _guard(self) -> None:
        """Set a savepoint in front of a body that is not the first; a fresh one may be there."""
        if self._empty:
            return
        if self._savepoint == "":
            self._command("SAVEPOINT body")
        elif self._savepoint == "used":
            self._command("RELEASE SAVEPOINT body; SAVEPOINT body")
        self._savepoint = "used"

    def _still_ours(self) -> None:
        self._connection.settle()
        super()._still_ours()

    def _undo(self, error: Exception) -> None:
        if self._empty:
            super()._undo(error)
            return
        self._settle_anyhow()
        if self._status() == TransactionStatus.IDLE:
            raise _Lost("a body ended the transaction of the whole group")
        self._command("ROLLBACK TO SAVEPOINT body")
        self._savepoint = "fresh"


def _without_turn(connection: QuickConnection) -> Exception:
    """What it means that a statement failed before our turn had come. A connection that was kept is replaced."""
    return _Again() if is_gone(connection.driver) else _NoTurn()


def _cause(error: BaseException, where: str) -> Exception:
    """What the error behind one of ours means to callers; never the bare error of a statement."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    meant = translated(cause, where) if isinstance(cause, Exception) else None
    if isinstance(meant, Unavailable):
        return meant
    return Unavailable(f"{where} did not take the transaction: {cause or error}", code="store_failed")


def _settle(work: _Work, failure: BaseException | None) -> None:
    error = work.error or failure
    if work.future.done():
        return
    if error is None:
        work.future.set_result(work.result)
    elif isinstance(error, Exception):
        work.future.set_exception(error)
    else:
        work.future.cancel()
