"""Keeps what was granted: jobs, idempotency keys and commands in one transaction, before the 202.

Requests whose grants came with one answer go on in the same turn of the event loop; they share a transaction, so that
hundreds of single submissions a second cost about as many transactions as questions for grants. A lonely one waits for
nobody. Each has its own outcome. Called by `submission.py`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from services.gateway import store
from services.gateway.access import Caller
from services.gateway.store import NewJob
from shared.contracts.envelope import Message
from shared.errors import Conflict, SeraiError
from shared.runtime.clock import micros
from shared.runtime.transactions import Transactions, Unit

MOST_JOBS: Final = 64
"""Of one transaction, unless one request alone brings more: its body holds the event loop."""

Outgoing = tuple[NewJob, Message]
"""A job's rows and its command, rendered: what is left is to write them."""


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key with the hash of the request that it came with."""

    value: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request wants kept: its jobs, and `answer` under its key, if it has one."""

    caller: Caller
    key: Key | None
    answer: bytes
    jobs: Sequence[Outgoing]


Outcome = bytes | Conflict | None
"""None = kept. The answer that the key stands for when another request was faster, or Conflict when that was not the
same one: nothing is kept then."""


@dataclass(slots=True)
class _Waiting:
    wanted: Wanted
    outcome: asyncio.Future[bytes | None]


class Keeping:
    """One per process."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._gathered: list[_Waiting] = []
        self._writing: set[asyncio.Task[None]] = set()

    async def keep(self, wanted: Wanted) -> bytes | None:
        """None once everything is durable; the earlier answer when another request with this key was faster.

        Raises Conflict when the key was used for another request, Unavailable with the store.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(wanted, loop.create_future())
        if not self._gathered:
            loop.call_soon(self._begin)  # behind everybody who goes on in this turn of the loop
        self._gathered.append(waiting)
        return await waiting.outcome

    def _begin(self) -> None:
        gathered, self._gathered = self._gathered, []
        for together in _portions(gathered):
            task = asyncio.create_task(self._write(together), name="gateway.keeping")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, together: list[_Waiting]) -> None:
        try:
            await self._keep_or_fail(together)
        finally:
            for each in together:
                each.outcome.cancel()  # has no effect on those that were told

    async def _keep_or_fail(self, together: list[_Waiting]) -> None:
        """Write these in one transaction; where that fails by one of them, and not with the store, each in its own."""
        outcomes: Sequence[bytes | Exception | None]
        try:
            outcomes = await self._transactions.run(lambda unit: keep_all(unit, [each.wanted for each in together]))
        except Exception as error:
            if len(together) > 1 and not isinstance(error, SeraiError):
                for each in together:
                    await self._keep_or_fail([each])
                return
            outcomes = [error] * len(together)
        for each, outcome in zip(together, outcomes, strict=True):
            _tell(each.outcome, outcome)


def _portions(gathered: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """In their order, each with as many as one transaction takes."""
    portions: list[list[_Waiting]] = []
    count = 0
    for each in gathered:
        jobs = len(each.wanted.jobs)
        if not portions or count + jobs > MOST_JOBS:
            portions.append([])
            count = 0
        portions[-1].append(each)
        count += jobs
    return portions


def _tell(waiting: asyncio.Future[bytes | None], outcome: bytes | Exception | None) -> None:
    if waiting.done():
        return
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


def keep_all(unit: Unit, wanted: Sequence[Wanted]) -> list[Outcome]:
    """Write what these requests want kept, within a transaction; what became of each, in order."""
    outcomes = [_claim(unit, each) for each in wanted]
    kept = [job for each, outcome in zip(wanted, outcomes, strict=True) if outcome is None for job in each.jobs]
    if kept:
        store.add_jobs(unit.connection, [new for new, _ in kept])
    for _, message in kept:
        unit.send(message)
    return outcomes


def _claim(unit: Unit, wanted: Wanted) -> Outcome:
    """Write down the key; what it stands for already, if it does."""
    key, caller = wanted.key, wanted.caller
    if key is None or store.keep_answer(
        unit.connection, caller.issuer, caller.subject, key.value, key.request_hash, wanted.answer, micros(unit.now)
    ):
        return None
    try:
        return earlier_answer(unit.connection, caller, key)
    except Conflict as conflict:
        return conflict


def earlier_answer(connection: Connection, caller: Caller, key: Key) -> bytes | None:
    """What was answered to this very request before. Raises Conflict when the key was used for another one."""
    used = store.stored_answer(connection, caller.issuer, caller.subject, key.value)
    if used is not None and used.request_hash != key.request_hash:
        raise Conflict(
            "the Idempotency-Key was used for another request; a new request needs a new key",
            code="idempotency_key_reused",
        )
    return None if used is None else used.answer
