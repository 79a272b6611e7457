"""One process at a time has a bus file: what it keeps in memory would not hear of another's changes.

The lock is the kernel's (`flock`), on a file beside the bus: it is gone with the process, however that ends.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import IO

from shared.errors import Misconfigured, Unavailable


def make_private(path: Path) -> None:
    """Make the file if it is not there, and readable for its owner alone: messages carry grants.

    SQLite gives its companions (`-wal`, `-shm`) the same mode. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


def take(path: Path, what: str = "bus") -> IO[str]:
    """The lock of the file of a `what`, held until closed. Raises Misconfigured naming who has it, or Unavailable."""
    file = path.with_name(f"{path.name}.lock")
    try:
        make_private(file)
        lock = file.open("r+")
    except OSError as error:
        raise Unavailable(f"cannot open the {what} {path}: {error}", code=f"{what}_failed") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = lock.read().strip() or "another process"
        lock.close()
        raise Misconfigured(
            f"the {what} {path} is in use by {holder}; stop that first, or use another data folder: --data FOLDER",
            code=f"{what}_in_use",
        ) from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} ({Path(sys.argv[0]).name or 'python'})\n")
    lock.flush()
    return lock
