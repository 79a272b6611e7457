"""Fetches the end of the logs and the declared outputs of attempts that have ended, and keeps them.

What is owed is a row, written with the outcome; it is settled in the transaction that stores what was fetched. So
nothing is lost with the process, and the outcome never waits for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from services.monitor import keeping, kept_store
from services.monitor.changes import Changes, wait
from services.monitor.keeping import KeepingRules, Owed
from services.monitor.kept_store import KeptFile, KeptLog
from services.monitor.settings import MonitorSettings
from shared.errors import Misconfigured, NotFound, Refused, Unavailable
from shared.ports import EngineWatch
from shared.runtime import logs
from shared.runtime.leadership import Leadership
from shared.runtime.transactions import Transactions, Unit

log = logs.get("monitor.collecting")

_LOOK_AGAIN_S = 5.0
_AFTER_S = 0.02
"""The end of an attempt is told first; others that end meanwhile are looked up with it."""

Key = tuple[str, int]


class Collector:
    """Works off what is owed, several attempts at a time, while this copy leads."""

    def __init__(
        self,
        watches: Mapping[str, EngineWatch],
        transactions: Transactions,
        leadership: Leadership,
        changes: Changes,
        settings: MonitorSettings,
        owed: asyncio.Event,
    ) -> None:
        self._watches = watches
        self._transactions = transactions
        self._leadership = leadership
        self._changes = changes
        self._settings = settings
        self._owed = owed
        self._full = False
        """More may be due than is fetched at a time: look again when one of them has ended."""
        self._rules = KeepingRules(
            log_bytes=settings.log_bytes, output_bytes=settings.output_bytes, give_up_s=settings.keep_for_s
        )

    async def run(self) -> None:
        """For ever. Raises Unavailable with the store."""
        await self._leadership.held()
        running: dict[Key, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(_AFTER_S)
                self._owed.clear()
                running = {key: task for key, task in running.items() if not task.done()}
                found, next_due = await self._look()
                for owed in self._fresh(found, running):
                    key = (owed.job_id, owed.attempt)
                    running[key] = group.create_task(self._collect(owed), name=f"monitor.keep:{owed.job_id}")
                await wait(self._owed, self._idle_s(next_due, bool(running)))

    async def _look(self) -> tuple[list[Owed], datetime | None]:
        """What is due, and when the next one is."""
        now, most = self._transactions.clock(), self._settings.keep_concurrency
        return await self._transactions.store.read(lambda connection: kept_store.due(connection, now, most))

    def _fresh(self, found: Sequence[Owed], running: Mapping[Key, Any]) -> list[Owed]:
        """Those that are not being fetched, as many as may be."""
        most = self._settings.keep_concurrency
        self._full = len(found) == most
        return [owed for owed in found if (owed.job_id, owed.attempt) not in running][: most - len(running)]

    def _idle_s(self, next_due: datetime | None, busy: bool) -> float:
        """Until the next one is due; one that is put off wakes us anyway."""
        if next_due is None or busy:
            return _LOOK_AGAIN_S
        return min(_LOOK_AGAIN_S, max(0.0, (next_due - self._transactions.clock()).total_seconds()))

    async def _collect(self, owed: Owed) -> None:
        try:
            await self._keep(owed)
        finally:
            if self._full:
                self._owed.set()

    async def _keep(self, owed: Owed) -> None:
        try:
            async with asyncio.timeout(self._settings.keep_timeout_s):
                tails, files = await self.fetch(owed)
        except (Unavailable, Misconfigured, TimeoutError) as away:
            await self._put_off(owed, getattr(away, "what", "") or "too slow")
            return
        await self._settle(owed, tails, files)

    async def fetch(self, owed: Owed) -> tuple[list[KeptLog], list[KeptFile]]:
        """Tails and outputs of one attempt. Raises Unavailable or Misconfigured when the site cannot be asked."""
        watch = self._watches.get(owed.cluster)
        if watch is None:
            raise Unavailable(f"cluster {owed.cluster} is not in the settings any more")
        tails = [await self._tail(watch, owed, stream) for stream in keeping.STREAMS]
        files = [await self._file(watch, owed, name, path) for name, path in owed.outputs]
        return tails, files

    async def _tail(self, watch: EngineWatch, owed: Owed, stream: str) -> KeptLog:
        data, size = bytearray(), 0
        limit = self._rules.log_bytes
        chunks = cast(Any, watch.logs(owed.allocation, owed.task, stream, offset=limit, from_end=True))
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    data += chunk.data
                    size = max(size, chunk.offset)
        except Refused:
            return KeptLog(stream, 0, b"")
        return KeptLog(stream, *keeping.tail(bytes(data), size, limit))

    async def _file(self, watch: EngineWatch, owed: Owed, name: str, path: str) -> KeptFile:
        try:
            data = await watch.file(owed.allocation, path, self._rules.output_bytes)
        except NotFound:
            return KeptFile(name, problem="missing")
        except Refused as refused:
            return KeptFile(name, problem="too_large" if refused.code == "too_large" else "unreadable")
        return KeptFile(name, len(data), None, data)

    async def _put_off(self, owed: Owed, why: str) -> None:
        now = self._transactions.clock()
        at = keeping.next_try(owed, now, self._rules)
        log.warning("not_kept_yet", job_id=owed.job_id, attempt=owed.attempt, culprit=why, again_at=str(at))
        if at is None:
            await self._settle(owed, [], [KeptFile(name, problem="unreadable") for name, _ in owed.outputs])
            return
        again: datetime = at

        def put_off(unit: Unit) -> None:
            self._leadership.check(unit.connection)
            kept_store.put_off(unit.connection, owed, again)

        await self._transactions.run(put_off)
        self._owed.set()

    async def _settle(self, owed: Owed, tails: list[KeptLog], files: list[KeptFile]) -> None:
        def settle(unit: Unit) -> None:
            self._leadership.check(unit.connection)
            kept_store.settle(unit.connection, owed, tails, files)

        await self._transactions.run(settle)
        self._changes.touch(UUID(owed.job_id))
