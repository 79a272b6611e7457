"""What stays of a job of a run when its platform is gone: its outputs, logs, timeline and the job itself, as files.

`showcase.py` calls it once a job has ended; `serai outputs --to` is the same for one's own jobs.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from serai import grids
from serai.client import LogStream, Serai
from serai.errors import BadSettings, Problem
from serai.values import Event, Job

STREAMS: tuple[LogStream, ...] = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Kept:
    """One file; `size` in bytes."""

    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.path.name} ({self.size:,} bytes)"


async def logs_of(serai: Serai, job: Job) -> dict[str, bytes]:
    """What each attempt printed, by file name; without those that printed nothing or never began."""
    found: dict[str, bytes] = {}
    for attempt in range(1, job.attempt + 1):
        for stream in STREAMS:
            try:
                text = b"".join([chunk async for chunk in serai.logs(job.id, stream=stream, attempt=attempt)])
            except Problem as problem:
                if problem.status != 404:
                    raise
                continue
            if text:
                found[log_name(attempt, stream)] = text
    return found


def log_name(attempt: int, stream: str) -> str:
    """`attempt-2.stderr.txt`."""
    return f"attempt-{attempt}.{stream}.txt"


def output_name(name: str, declared: Sequence[Mapping[str, Any]]) -> str:
    """The output's name, with the ending of the file that the job wrote: `counts` from `counts.json` is that again."""
    path = next((str(each.get("path", "")) for each in declared if each.get("name") == name), "")
    ending = PurePosixPath(path).suffix
    return name if name.endswith(ending) else name + ending


def timeline_text(timeline: Sequence[Event]) -> bytes:
    """The timeline as plain lines."""
    console = Console(file=io.StringIO(), width=10_000, highlight=False, markup=False)
    grids.show(console, grids.timeline_grid(timeline))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().encode()


def save(folder: Path, files: Mapping[str, bytes]) -> list[Kept]:
    """Write the files into the folder, which is made. Raises BadSettings where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise BadSettings(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return [Kept(folder / name, len(content)) for name, content in files.items()]


def job_text(job: Job) -> bytes:
    """The job as the platform showed it last."""
    return json.dumps(job.raw, indent=1, ensure_ascii=False).encode() + b"\n"
