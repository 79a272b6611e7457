"""One process at a time, by a lock on a file. The kernel gives it back when its holder ends, however it ends."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from serai.errors import BadSettings
from serai.wire import Pace

PATIENCE_S: Final = 30.0
"""Longer than what is done under it: one token request has 15 s."""

BEAT_S: Final = 0.05


@asynccontextmanager
async def held(path: Path, pace: Pace, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """The lock, waited for. Raises BadSettings when the file cannot be made or the holder does not let go."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BadSettings(f"{path}: cannot be made: {error.strerror}") from error
    try:
        give_up_at = pace.clock() + patience_s
        while not _taken(handle):
            if pace.clock() >= give_up_at:
                raise BadSettings(f"{path}: another `serai` has held it for {patience_s:g} s; is one hanging?")
            await pace.sleep(BEAT_S)
        yield
    finally:
        os.close(handle)  # gives the lock back


if sys.platform == "win32":
    import msvcrt

    def _taken(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _taken(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
