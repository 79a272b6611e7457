"""Log reading as Nomad serves it: frames or plain bytes, from either end, following or not.

Reads the task's log files; `files.py` and the API give it an allocation that is known to the client.
"""

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

CHUNK = 64 * 1024
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of a log is wanted."""

    task: str
    stream: str
    origin: str
    offset: int
    follow: bool
    plain: bool


def log_files(directory: Path, task: str, stream: str) -> list[Path]:
    """The rotated files that still exist, oldest first."""
    prefix = f"{task}.{stream}."
    found = [
        (int(p.name.removeprefix(prefix)), p)
        for p in directory.glob(f"{prefix}*")
        if p.name.removeprefix(prefix).isdigit()
    ]
    return [path for _, path in sorted(found)]


def start_at(files: list[Path], query: LogQuery) -> tuple[int, int]:
    """Index of the first file and the offset in it. `origin=end&offset=0` means everything, as in Nomad."""
    sizes = [path.stat().st_size for path in files]
    total = sum(sizes)
    place = max(query.offset, 0)
    if query.origin == "end":
        place = max(total - place, 0) if place else 0
    for number, size in enumerate(sizes):
        if place < size:
            return number, place
        place -= size
    return (max(len(files) - 1, 0), (sizes[-1] if sizes else 0) + place)


async def read(
    directory: Path, query: LogQuery, heartbeat_s: float, over: Callable[[], bool] = lambda: False
) -> AsyncIterator[bytes]:
    """The bytes of the answer, chunk by chunk; endless when following, until `over()`."""
    files = log_files(directory, query.task, query.stream)
    number, offset = start_at(files, query) if files else (0, 0)
    loop = asyncio.get_running_loop()
    last = loop.time()
    while not over():
        files = log_files(directory, query.task, query.stream)
        if number < len(files):
            data = _chunk(files[number], offset)
            if data:
                offset += len(data)
                last = loop.time()
                yield data if query.plain else frame(files[number].name, data, offset)
                continue
            if number + 1 < len(files):
                number, offset = number + 1, 0
                continue
        if not query.follow:
            return
        if loop.time() - last >= heartbeat_s:
            last = loop.time()
            if not query.plain:
                yield b"{}"
        await asyncio.sleep(min(POLL_S, heartbeat_s))


def _chunk(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK)


def frame(name: str, data: bytes, offset: int) -> bytes:
    """A stream frame; Offset is the place after its data."""
    return orjson.dumps({"Data": base64.b64encode(data).decode(), "File": f"alloc/logs/{name}", "Offset": offset})


def rotate(directory: Path, task: str, stream: str, max_bytes: int, max_files: int) -> None:
    """Keep a stream within its bounds. Blocking.

    The task holds the newest file open, so what is in it is copied away and the file goes on, empty, under the next
    number. A line written between copy and emptying is lost, as with logrotate's copytruncate.
    """
    files = log_files(directory, task, stream)
    if files and files[-1].stat().st_size >= max_bytes:
        live = files[-1]
        number = int(live.name.rpartition(".")[2])
        copy = live.with_name(f".{live.name}.rotating")
        shutil.copyfile(live, copy)
        following = live.with_name(f"{task}.{stream}.{number + 1}")
        live.rename(following)
        copy.rename(live)
        os.truncate(following, 0)
        files.append(following)
    for old in files[: max(len(files) - max_files, 0)]:
        old.unlink(missing_ok=True)
