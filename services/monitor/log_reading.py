"""The bytes of a log: live from the site while the attempt lives, the kept tail afterwards. Asked by `api.py`.

A site's own rotation and Nomad's forgetting are why the kept copy is preferred once it is there. Offsets count from
the beginning of the whole log.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from services.monitor import keeping, kept_store, store
from services.monitor.attempts import AttemptRecord
from services.monitor.changes import Changes, wait
from services.monitor.kept_store import KeptLog
from services.monitor.settings import MonitorSettings
from shared.engine import LogChunk
from shared.errors import NotFound, Unavailable
from shared.ids import AttemptId
from shared.ports import EngineWatch, Store
from shared.runtime import cutting

_LOOK_AGAIN_S = 1.0
_QUIET_BEATS = 2
"""Beats without data after which the log of an ended attempt is taken as drained (nomad-verified.md, i)."""


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """`last` bytes, or everything from `offset` on; with `follow` until the attempt has ended and is drained."""

    attempt: AttemptId
    stream: str
    offset: int = 0
    last: int | None = None
    follow: bool = False


@dataclass(slots=True)
class Place:
    """How far a reader is: `at` bytes of the log of `allocation`; `last` until its first byte was read."""

    at: int
    last: int | None
    allocation: str = ""
    patience_s: float = 0.0


class LogReader:
    """Answers questions about logs; one per process, without state between questions."""

    def __init__(
        self, store: Store, watches: Mapping[str, EngineWatch], changes: Changes, settings: MonitorSettings
    ) -> None:
        self._store = store
        self._watches = watches
        self._changes = changes
        self._settings = settings

    async def read(self, question: LogQuestion) -> AsyncGenerator[bytes]:
        """The bytes; empty pieces show that the question is being answered. Raises NotFound, Unavailable."""
        place = Place(question.offset, question.last)
        with self._changes.watch(question.attempt.job_id) as changed:
            yield b""
            if not question.follow:
                async for data in self._once(question, place):
                    yield data
                return
            async for data in self._follow(question, place, changed):
                yield data

    async def _once(self, question: LogQuestion, place: Place) -> AsyncIterator[bytes]:
        record = await self._record(question)
        kept = await self._kept(question, record)
        if kept is not None:
            yield _rest(kept, place)
            return
        try:
            async for chunk in self._live(question, place, record, follow=False):
                yield chunk.data
        except NotFound:
            return

    async def _follow(self, question: LogQuestion, place: Place, changed: asyncio.Event) -> AsyncIterator[bytes]:
        """Live as long as it lives, then what is kept; goes over to the next allocation of a service."""
        waited_s = 0.0
        while True:
            changed.clear()
            record = await self._record(question)
            if not record.live and (kept := await self._kept(question, record)) is not None:
                yield _rest(kept, place)
                return
            before = place.at
            try:
                async for data in self._while_alive(question, place, record, changed):
                    yield data
                if not record.live and not changed.is_set():
                    return
            except NotFound:
                if not record.live and waited_s >= self._settings.settle_s:
                    return
            except Unavailable:
                if waited_s >= self._settings.log_patience_s:
                    raise
            waited_s = 0.0 if place.at > before else waited_s + _LOOK_AGAIN_S
            await wait(changed, _LOOK_AGAIN_S)

    async def _while_alive(
        self, question: LogQuestion, place: Place, record: AttemptRecord, changed: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """Chunks until the attempt moves (the caller looks again), or has ended and is drained."""
        quiet = 0
        chunks = cast("AsyncGenerator[LogChunk]", self._live(question, place, record, follow=True))
        async with aclosing(chunks):
            while True:
                chunk = await _next_unless(chunks, changed)
                if chunk is None:
                    return
                quiet = 0 if chunk.data else quiet + 1
                yield chunk.data
                if quiet >= _QUIET_BEATS and not (await self._record(question)).live:
                    return

    async def _live(
        self, question: LogQuestion, place: Place, record: AttemptRecord, *, follow: bool
    ) -> AsyncIterator[LogChunk]:
        allocation = keeping.last_allocation(record)
        watch = self._watches.get(record.identity.cluster)
        if allocation is None:
            raise NotFound("nothing of this attempt has started yet", code="no_logs")
        if watch is None:
            raise Unavailable(f"cluster {record.identity.cluster} is not in the settings any more")
        if place.allocation and place.allocation != allocation.id:
            place.at, place.last = 0, None
        place.allocation = allocation.id
        task, from_end = keeping.task_of(allocation), place.last is not None
        offset = place.at if place.last is None else place.last
        chunks = cast(
            "AsyncGenerator[LogChunk]",
            watch.logs(allocation.id, task, question.stream, offset=offset, from_end=from_end, follow=follow),
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.data:
                    place.at, place.last = chunk.offset, None
                yield chunk

    async def _record(self, question: LogQuestion) -> AttemptRecord:
        number = question.attempt.number
        record = await self._store.read(lambda c: store.record_of(c, question.attempt.job_id, number))
        if record is None:
            raise NotFound(f"there is no attempt {number} of this job", code="not_found")
        return record

    async def _kept(self, question: LogQuestion, record: AttemptRecord) -> KeptLog | None:
        if record.live:
            return None
        return await self._store.read(lambda c: kept_store.kept_log(c, question.attempt, question.stream))


async def _next_unless(chunks: AsyncGenerator[LogChunk], changed: asyncio.Event) -> LogChunk | None:
    """The next chunk, None when the attempt has moved first or there are no more."""
    coming = asyncio.ensure_future(anext(chunks, None))
    moving = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait({coming, moving}, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        moving.cancel()
        await cutting.ended(coming)


def _rest(kept: KeptLog, place: Place) -> bytes:
    return keeping.cut(kept.start, kept.data, offset=place.at, last=place.last)
