"""A Nomad cluster in memory behind the port EngineWatch: says lines, lists, and can be broken as real ones are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from shared.engine import (
    AllocationSeen,
    EvaluationSeen,
    Heartbeat,
    JobSeen,
    Line,
    Listing,
    LogChunk,
    NodeSeen,
    Presence,
    Seen,
)
from shared.errors import NotFound, Refused, SeraiError, Unavailable
from tests.unit.monitor.builders import node_seen


class Cluster:
    """`buffer` is what late readers still get; `shows` is what a listing shows."""

    def __init__(self) -> None:
        self.index = 0
        self.buffer: list[Line] = []
        self.shows: dict[tuple[str, str], Seen] = {("node", "n1"): node_seen()}
        self.there = frozenset({"default"})
        self.deaf = False
        self.looks = 0
        self.wrong: SeraiError | None = None
        self.stream_wrong: SeraiError | None = None
        self.log: dict[tuple[str, str], bytes] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.listings = 0
        self.subscriptions: list[int] = []
        self._readers: list[asyncio.Queue[Line | None]] = []
        self.grown = asyncio.Event()
        self.may_follow = asyncio.Event()
        self.may_follow.set()
        self.held = asyncio.Event()
        """A follower waits for `may_follow`; other reads are answered only then."""
        self._subscribed = asyncio.Event()
        self._looked = asyncio.Event()

    # -- what happens there ---------------------------------------------------------------------------------------

    def say(self, *seen: Seen, heard: bool = True) -> None:
        """One transaction; `heard` = readers get its line."""
        self.index += 1
        for one in seen:
            self._show(one)
        line = Line(self.index, seen)
        if heard:
            self.buffer.append(line)
            for reader in self._readers:
                reader.put_nowait(line)

    def forget(self, nomad_id: str) -> None:
        """The job is gone, and nobody says so."""
        self.index += 1
        self.shows = {
            key: one for key, one in self.shows.items()
            if not (isinstance(one, JobSeen) and one.id == nomad_id) and getattr(one, "job_id", "") != nomad_id
        }  # fmt: skip

    def drop(self) -> None:
        """Every stream ends."""
        for reader in self._readers:
            reader.put_nowait(None)

    def prune(self, keep: int) -> None:
        self.buffer = self.buffer[-keep:] if keep else []

    def write(self, allocation: str, data: bytes, stream: str = "stdout") -> None:
        self.log[allocation, stream] = self.log.get((allocation, stream), b"") + data
        self.grown.set()

    def _show(self, one: Seen) -> None:
        match one:
            case JobSeen(deleted=True):
                self.shows.pop(("job", one.id), None)
            case JobSeen():
                self.shows["job", one.id] = one
            case NodeSeen():
                self.shows["node", one.id] = one
            case AllocationSeen() | EvaluationSeen():
                self.shows[type(one).__name__, one.id] = one

    async def subscribed(self, index: int, times: int = 1) -> None:
        """Return when somebody has subscribed from this index on, so many times."""
        async with asyncio.timeout(60):
            while self.subscriptions.count(index) < times:
                self._subscribed.clear()
                await self._subscribed.wait()

    async def looked(self, times: int) -> None:
        """Return when its namespaces have been asked for, so many times more."""
        wanted = self.looks + times
        async with asyncio.timeout(60):
            while self.looks < wanted:
                self._looked.clear()
                await self._looked.wait()

    # -- EngineWatch ----------------------------------------------------------------------------------------------

    async def stream(self, index: int) -> AsyncIterator[Line | Heartbeat]:
        self._check(self.stream_wrong)
        self.subscriptions.append(index)
        self._subscribed.set()
        lines = [line for line in self.buffer if line.index >= index] or self.buffer[-1:]
        queue: asyncio.Queue[Line | None] = asyncio.Queue()
        self._readers.append(queue)
        try:
            yield Heartbeat()
            for line in lines:
                yield line
            while (live := await queue.get()) is not None:
                yield live
        finally:
            self._readers.remove(queue)
        raise Unavailable("the stream was dropped", code="nomad_stream")

    async def namespaces(self) -> frozenset[str]:
        self._check()
        self.looks += 1
        self._looked.set()
        if self.deaf:
            raise Unavailable("no answer", code="nomad_unavailable")
        return self.there

    async def listing(self) -> Listing:
        self._check()
        self.listings += 1
        rows = list(self.shows.values())
        return Listing(
            self.index,
            tuple(one for one in rows if isinstance(one, JobSeen)),
            tuple(one for one in rows if isinstance(one, AllocationSeen)),
            tuple(one for one in rows if isinstance(one, EvaluationSeen)),
            tuple(one for one in rows if isinstance(one, NodeSeen)),
        )

    async def presence(self, job_id: str, namespace: str) -> Presence:
        if self.wrong is not None:
            return Presence.UNPROVEN
        return Presence.PRESENT if ("job", job_id) in self.shows else Presence.ABSENT

    async def allocations(self, job_id: str, namespace: str) -> Sequence[AllocationSeen]:
        return [one for one in self.shows.values() if isinstance(one, AllocationSeen) and one.job_id == job_id]

    async def job_meta(self, job_id: str, namespace: str) -> dict[str, str] | None:
        self._check()
        job: Any = self.shows.get(("job", job_id))
        return None if job is None else dict(job.meta)

    async def logs(
        self, allocation: str, task: str, stream: str, *, offset: int = 0, from_end: bool = False, follow: bool = False
    ) -> AsyncIterator[LogChunk]:
        self._check()
        if follow and not self.may_follow.is_set():
            self.held.set()
            await self.may_follow.wait()
        if not self.may_follow.is_set():
            await self.held.wait()
        if (allocation, stream) not in self.log:
            raise NotFound("no logs", code="no_logs")
        data = self.log[allocation, stream]
        at = max(0, len(data) - offset) if from_end else offset
        while True:
            data = self.log[allocation, stream]
            self.grown.clear()
            fresh, at = data[at:], max(at, len(data))
            if fresh or follow:
                yield LogChunk(fresh, at)
            if not follow:
                return
            await self.grown.wait()

    async def file(self, allocation: str, path: str, limit: int) -> bytes:
        self._check()
        data = self.files.get((allocation, path))
        if data is None:
            raise NotFound("no such file", code="no_file")
        if len(data) > limit:
            raise Refused("too large", code="too_large")
        return data

    async def ready(self) -> None:
        self._check()

    def _check(self, *others: SeraiError | None) -> None:
        for wrong in (self.wrong, *others):
            if wrong is not None:
                raise wrong
