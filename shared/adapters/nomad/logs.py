"""A task's logs as bytes, with honest offsets. Called by `cluster.py` for the port EngineWatch.

Nomad's own offsets are per file and overstated at the end (reference/nomad-verified.md, i): bytes are counted here.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from shared.adapters.nomad.frames import Frame, FrameReader
from shared.adapters.nomad.http import Lasting, NomadHttp
from shared.engine import LogChunk
from shared.errors import NotFound, Refused, Unavailable

_BEAT_S = 1.0
_MISSED_BEATS = 10


class NomadLogs:
    """Reads `stdout` and `stderr` of tasks."""

    def __init__(self, http: NomadHttp) -> None:
        self._http = http

    async def chunks(
        self, allocation: str, task: str, stream: str, *, offset: int = 0, from_end: bool = False, follow: bool = False
    ) -> AsyncIterator[LogChunk]:
        """As `EngineWatch.logs` promises. A `from_end` read gets its place from the first frame, which is that in
        its file: after a rotation (Nomad gives no sizes of earlier files) offsets count from that file's beginning.
        """
        counter = _FromEnd(offset) if from_end else _FromStart(offset)
        async for frame in self._frames(allocation, task, stream, counter, follow):
            yield counter.chunk(frame)

    async def _frames(
        self, allocation: str, task: str, stream: str, counter: "_Counter", follow: bool
    ) -> AsyncIterator[Frame]:
        params = {"task": task, "type": stream, "follow": "true" if follow else "false", **counter.params()}
        frames = FrameReader()
        path = f"/v1/client/fs/logs/{allocation}"
        lasting = Lasting.FOLLOWED_LOG if follow else None
        try:
            async with self._http.open(path, params, silence_s=_BEAT_S * _MISSED_BEATS, lasting=lasting) as pieces:
                async for piece in pieces:
                    for frame in self._cut(frames, piece):
                        yield frame
        except Refused as refused:
            raise NotFound(refused.what, code="no_logs") from refused

    def _cut(self, frames: FrameReader, piece: bytes) -> list[Frame]:
        try:
            return frames.feed(piece)
        except ValueError as wrong:
            raise Unavailable(f"logs of Nomad are not frames: {wrong}", code="nomad_unclear") from wrong


class _Counter(ABC):
    """Where a read begins, and how far it is."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @abstractmethod
    def params(self) -> dict[str, str | int]: ...

    def chunk(self, frame: Frame) -> LogChunk:
        self.offset += len(frame.data)
        return LogChunk(frame.data, self.offset)


class _FromStart(_Counter):
    def params(self) -> dict[str, str | int]:
        return {"origin": "start", "offset": self.offset}


class _FromEnd(_Counter):
    """Nomad takes `origin=end&offset=0` for "everything": ask for one byte and drop it."""

    def __init__(self, back: int) -> None:
        super().__init__(0)
        self._back = max(back, 1)
        self._drop = 1 if back == 0 else 0
        self._placed = False

    def params(self) -> dict[str, str | int]:
        return {"origin": "end", "offset": self._back}

    def chunk(self, frame: Frame) -> LogChunk:
        data = frame.data
        if data and not self._placed:
            self._placed = True
            self.offset = max(0, frame.offset - len(data)) + self._drop
            data = data[self._drop :]
        return super().chunk(Frame(data))
