"""The frames of Nomad's `fs/logs`: flat JSON objects one after another, without separators. Pure and incremental.

Called by `logs.py`. A heartbeat is `{}`. A frame's own Offset is not reliable (reference/nomad-verified.md, i), so
readers count the bytes of Data.
"""

import base64
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Frame:
    """One chunk of one log file; without data it is a heartbeat. `offset` is Nomad's word for the place behind it."""

    data: bytes = b""
    file: str = ""
    offset: int = 0


class FrameReader:
    """Cuts a byte stream into frames, whatever the pieces in which it comes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are complete now. Raises ValueError when the stream is not one of frames."""
        self._rest += piece
        frames: list[Frame] = []
        start, end = 0, self._rest.find(b"}") + 1
        while end:
            frames.append(_frame(bytes(self._rest[start:end])))
            start, end = end, self._rest.find(b"}", end) + 1
        del self._rest[:start]
        return frames


def _frame(raw: bytes) -> Frame:
    found = orjson.loads(raw)
    return Frame(base64.b64decode(found.get("Data") or ""), found.get("File") or "", found.get("Offset") or 0)
