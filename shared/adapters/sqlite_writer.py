"""Transactions on one SQLite file, many of them sharing one commit: bodies run in the event loop, commits in a thread.

Used by `sqlite.SqliteStore` and `embedded_bus.EmbeddedBus`. SQLite has one writer at a time, and what a commit costs
is the disk's sync. So bodies that wait while a commit runs go together into the next one, each behind its own
savepoint; an idle writer commits a lonely body at once.

Why not bodies in the thread too: each statement releases the interpreter lock, and a thread gets it back from a busy
event loop late or never. Measured with a saturated loop: 3 transactions/s with bodies in a thread, more than 1,000
this way (docs/decisions/013-transactions-run-in-the-event-loop.md). A body must therefore be short, as the port asks.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Result
from sqlalchemy.exc import DBAPIError

from shared.errors import OutcomeUnknown, Unavailable

GROUP_LIMIT: Final = 256
GROUP_S: Final = 0.02
"""A group takes in no further body after 256 of them or 20 ms, so that nobody waits long for others' work."""
SLICE_S: Final = 0.004
"""After so long the loop's other callbacks get a turn."""
MAKE_WAY_S: Final = 0.001
BEGIN_S: Final = 5.0
"""How long the file may be held by another process (an operator's shell, a backup)."""

_TEMPORARY: Final = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
"""Result codes (sqlite.org/rescode.html) that speak of disk, memory or another process, not of the statement."""

A = TypeVar("A")
T = TypeVar("T")


@dataclass(slots=True)
class _Work(Generic[A]):
    body: Callable[[A], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer(Generic[A]):
    """Runs bodies one after another, in the order of `submit`, on a connection that nobody else uses.

    `raw` is in autocommit mode (`isolation_level=None`) with busy timeout 0; `subject` is what bodies are called
    with, something that writes through `raw`.
    """

    def __init__(self, raw: sqlite3.Connection, subject: A, *, limit: int, name: str) -> None:
        self._raw = raw
        self._subject = subject
        self._limit = limit
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Work[A]] = deque()
        self._group: list[_Work[A]] = []
        self._group_until = 0.0
        self._busy = False
        self._in_thread = False
        self._hurried = False
        self._patience: asyncio.TimerHandle | None = None
        self._refusal: Unavailable | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_orders, name=f"commit-{name}", daemon=True)
        self._thread.start()

    def submit(self, body: Callable[[A], Any], *, patience_s: float = 0.0) -> asyncio.Future[Any]:
        """Queue a body; the future is done once its commit is durable. Raises Unavailable when too much is queued.

        A body for which nobody waits may have patience: it goes along with the next commit, or alone after
        `patience_s`, so that nobody in a hurry waits behind it.
        """
        if self._refusal is not None:
            raise self._refusal
        if len(self._queue) >= self._limit:
            raise Unavailable(
                f"{len(self._queue)} transactions already wait for the database {self._name}", code="store_overloaded"
            )
        future = self._loop.create_future()
        self._queue.append(_Work(body, future))
        self._idle.clear()
        if patience_s == 0.0:
            self._hurry()
        elif not self._busy and self._patience is None:
            self._patience = self._loop.call_later(patience_s, self._hurry)
        return future

    def _hurry(self) -> None:
        """Commit what is queued now, or right after the commit that runs."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._hurried = True
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._run_group)

    async def close(self) -> None:
        """Refuse new bodies, finish those that wait, end the thread. The connection stays open for its owner."""
        if self._refusal is None:
            self._refusal = Unavailable(f"the database {self._name} is closed", code="store_closed")
        if self._queue:
            self._hurry()
        await self._idle.wait()
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- one group: begin, bodies, commit, deliver ----------------------------------------------------------------

    def _run_group(self) -> None:
        self._hurried = False
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._hand_over(self._begin_patiently, self._begun)
        else:
            self._begun(None)

    def _begun(self, error: sqlite3.Error | None) -> None:
        self._group_until = time.monotonic() + GROUP_S
        if error is None:
            self._run_slice()
        else:
            self._group.append(self._queue.popleft())
            self._committed(error)

    def _run_slice(self) -> None:
        """Run what is queued; leave the loop to others for a moment after each slice."""
        until = time.monotonic() + SLICE_S
        try:
            while self._queue and len(self._group) < GROUP_LIMIT:
                self._run_body(self._queue.popleft())
                now = time.monotonic()
                if now >= self._group_until:
                    break
                if now >= until:
                    self._loop.call_soon(self._run_slice)
                    return
        except sqlite3.Error as error:
            self._committed(error)
        else:
            self._hurried = self._hurried or bool(self._queue)
            self._hand_over(self._commit, self._committed)

    def _run_body(self, work: _Work[A]) -> None:
        """Run a body so that its exception undoes its own writes only; the first of a group needs no savepoint."""
        alone = not self._group
        self._group.append(work)
        if not alone:
            self._raw.execute("SAVEPOINT body")
        try:
            work.result = consumed(work.body(self._subject))
            if not self._raw.in_transaction:
                raise RuntimeError("a body must not commit or roll back; the store does")
        except Exception as error:
            work.error = translated(error)
            self._undo(alone)
        else:
            if not alone:
                self._raw.execute("RELEASE body")

    def _undo(self, alone: bool) -> None:
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK" if alone else "ROLLBACK TO body")
        elif not alone:
            raise sqlite3.OperationalError("a failed statement rolled the whole group back")
        self._raw.execute("BEGIN IMMEDIATE" if alone else "RELEASE body")

    def _committed(self, error: sqlite3.Error | None) -> None:
        """Tell everybody of the group; when it failed as a whole, nobody knows what of it is there."""
        group, self._group = self._group, []
        if error is not None:
            self._hurried = bool(self._queue)
            if self._raw.in_transaction:
                self._raw.rollback()
        for work in group:
            _deliver(work, error, self._name)
        if self._hurried and self._queue:
            self._loop.call_soon(self._run_group)
            return
        self._busy = False
        if not self._queue:
            self._idle.set()
        elif self._patience is None:
            self._patience = self._loop.call_later(GROUP_S, self._hurry)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _hand_over(self, order: Callable[[], None], then: Callable[[sqlite3.Error | None], None]) -> None:
        """Run `order` in the thread, then `then` with its error in the loop."""

        def run() -> None:
            error: sqlite3.Error | None = None
            try:
                order()
            except sqlite3.Error as caught:
                error = caught
            self._in_thread = False
            self._loop.call_soon_threadsafe(then, error)

        self._in_thread = True
        self._orders.put(run)
        self._loop.call_later(MAKE_WAY_S, self._make_way)

    def _make_way(self) -> None:
        """While the thread works, let it have the interpreter lock for a moment each millisecond.

        A thread back from the disk wins the lock from a busy loop only by chance; a sleep, however short, is a
        certain chance. Costs nothing when the commit was quicker than a millisecond.
        """
        if self._in_thread:
            time.sleep(1e-6)
            self._loop.call_later(MAKE_WAY_S, self._make_way)

    def _run_orders(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    def _commit(self) -> None:
        self._raw.execute("COMMIT")

    def _begin_patiently(self) -> None:
        self._raw.execute(f"PRAGMA busy_timeout={int(BEGIN_S * 1000)}")
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        finally:
            self._raw.execute("PRAGMA busy_timeout=0")


def _deliver(work: _Work[Any], error: sqlite3.Error | None, name: str) -> None:
    if error is not None and work.error is None:
        work.error = OutcomeUnknown(f"the database {name} did not commit: {error}", code="store_failed")
    if work.future.done():
        return
    if work.error is None:
        work.future.set_result(work.result)
    else:
        work.future.set_exception(work.error)


def translated(error: Exception) -> Exception:
    """`error`, or Unavailable when it speaks of the disk or of another process rather than of the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _TEMPORARY:
        return Unavailable(f"the database does not serve: {cause}", code="store_failed")
    return RuntimeError(f"a body raised {error!r}") if isinstance(error, StopIteration) else error


def consumed(result: T) -> T:
    """`result`, refused when it is a cursor that is still open: it would hold the snapshot for ever."""
    if isinstance(result, Result):
        raise TypeError("a body must return values, not an open result: call .all(), .first() or .scalar() inside")
    return result
