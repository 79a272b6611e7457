"""The event stream of one cluster, read so that nothing outside ever waits between two reads.

A task of its own reads lines into a queue bounded by memory; the caller takes and parses them. Nomad drops a reader
that falls behind its buffer without a word, and answers a refused subscription with 200 and silence: only the first
`{}` proves anything (reference/nomad-verified.md, a and b). Resuming and gaps are the caller's; so is trying again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from shared.adapters.nomad.http import Lasting, NomadHttp
from shared.adapters.nomad.parsing import line_of
from shared.adapters.nomad.reading import NomadReader
from shared.adapters.nomad.settings import ClusterSettings
from shared.engine import Heartbeat, Line
from shared.errors import SeraiError, Unavailable

_PATH = "/v1/event/stream"
_TOPICS = ("Job", "Evaluation", "Allocation", "Node")


class EventStream:
    """Opens subscriptions to jobs, evaluations, allocations and nodes of all namespaces."""

    def __init__(self, settings: ClusterSettings, http: NomadHttp, reader: NomadReader) -> None:
        self._settings = settings
        self._http = http
        self._reader = reader

    async def lines(self, index: int) -> AsyncIterator[Line | Heartbeat]:
        """As `EngineWatch.stream` promises."""
        queue = LineQueue(self._settings.stream_buffer_bytes)
        pump = asyncio.create_task(self._pump(index, queue), name=f"nomad-stream-{self._settings.name}")
        try:
            first = await self._first(queue)
            yield Heartbeat()
            if isinstance(first, Line):
                yield first
            while True:
                yield self._parsed(await queue.take())
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump

    async def _first(self, queue: "LineQueue") -> Line | Heartbeat:
        try:
            async with asyncio.timeout(self._settings.first_heartbeat_s):
                return self._parsed(await queue.take())
        except TimeoutError:
            await self._reader.ready()
            await self._reader.may_stream()
            raise self._gone(
                f"silent for {self._settings.first_heartbeat_s:g} s after its opening: dropped, or the token may not "
                "read-job in every namespace"
            ) from None

    async def _pump(self, index: int, queue: "LineQueue") -> None:
        """Read until the stream ends; the queue then raises what ended it."""
        topics = tuple(("topic", topic) for topic in _TOPICS)
        params = (*topics, ("namespace", "*"), ("index", str(index)))
        try:
            silence_s = self._settings.silence_s
            async with self._http.open(_PATH, params, silence_s=silence_s, lasting=Lasting.EVENTS) as pieces:
                await _fill(queue, pieces)
            queue.end(self._gone("ended by Nomad"))
        except SeraiError as error:
            queue.end(error)

    def _parsed(self, raw: bytes) -> Line | Heartbeat:
        try:
            return line_of(raw)
        except ValueError as wrong:
            raise self._gone(str(wrong)) from wrong

    def _gone(self, why: str) -> Unavailable:
        return Unavailable(f"cluster {self._settings.name}: event stream {why}", code="nomad_stream")


async def _fill(queue: "LineQueue", pieces: AsyncIterator[bytes]) -> None:
    """Cut pieces into lines. What stands behind the last newline is a line that was cut off: it is dropped."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        queue.put([line for line in lines if line.strip()])


class LineQueue:
    """Lines between the reading task and the caller, bounded by bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._ending: SeraiError | None = None

    def put(self, lines: list[bytes]) -> None:
        """Append. Raises Unavailable beyond the limit: the caller is too slow, and must resume from what it has."""
        self._lines.extend(lines)
        self._bytes += sum(map(len, lines))
        self._wake.set()
        if self._bytes > self._limit:
            raise Unavailable(f"event stream ran {self._bytes} bytes ahead of its reader", code="nomad_stream")

    def end(self, error: SeraiError) -> None:
        """Nothing more will come; `take` raises this after the last line."""
        self._ending = error
        self._wake.set()

    async def take(self) -> bytes:
        """The next line, waiting for it."""
        while not self._lines:
            if self._ending is not None:
                raise self._ending
            self._wake.clear()
            await self._wake.wait()
        line = self._lines.popleft()
        self._bytes -= len(line)
        return line
