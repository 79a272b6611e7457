"""Dead letters of a bus file, read only: also beside the process that has the bus open."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from shared.adapters.embedded_bus import file
from shared.contracts.routes import Queue
from shared.errors import Misconfigured
from shared.ports import DeadLetter
from shared.runtime.clock import moment


async def look(path: Path, queue: Queue, limit: int = 100) -> Sequence[DeadLetter]:
    """What was set aside in a bus file, oldest first. Raises Misconfigured when there is none, Unavailable."""
    return await asyncio.to_thread(_look, path, queue, limit)


def _look(path: Path, queue: Queue, limit: int) -> Sequence[DeadLetter]:
    if not path.exists():
        raise Misconfigured(f"there is no bus in {path.parent}: --data names the data folder of an embedded platform")
    raw = file.connect(path, read_only=True)
    try:
        return letters(raw, queue, limit)
    finally:
        raw.close()


def letters(raw: sqlite3.Connection, queue: Queue, limit: int) -> Sequence[DeadLetter]:
    """The first `limit` dead letters of a queue."""
    found = file.dead(raw, queue.name, limit)
    return [DeadLetter(one.number, queue.name, one.reason, one.message, moment(one.at)) for one in found]
