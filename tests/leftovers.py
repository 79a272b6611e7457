"""Programs that a run of tests started and that outlive it: when it is interrupted, nobody else would end them.

Every program inherits the run's mark in its environment, brokers and databases included.
"""

import contextlib
import os
import select
import signal
import time
import uuid
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

MARK: Final = "SERAI_TEST_RUN"
_PATIENCE_S: Final = 3.0


def mark(environment: MutableMapping[str, str]) -> str | None:
    """Begin a run: its mark. None within another run, which ends what is left itself."""
    if MARK in environment:
        return None
    environment[MARK] = uuid.uuid4().hex
    return environment[MARK]


def end(run: str) -> list[str]:
    """End every program of a run but this one: asked first, killed after 3 s. Their command lines."""
    found = _of(run)
    names = [_name(pid) for pid in found]
    with contextlib.ExitStack() as stack:
        ends = [end for pid in found if (end := _end_of(pid, stack)) is not None]
        _signal(found, signal.SIGTERM)
        until = time.monotonic() + _PATIENCE_S
        while ends and (left := until - time.monotonic()) > 0:
            ended, _, _ = select.select(ends, [], [], left)
            ends = [end for end in ends if end not in ended]
    _signal(_of(run), signal.SIGKILL)
    return names


def _of(run: str) -> list[int]:
    wanted = f"{MARK}={run}".encode()
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and wanted in _read(pid, "environ").split(b"\0")]


def _end_of(pid: int, stack: contextlib.ExitStack) -> int | None:
    """A descriptor that can be read when the process has ended; None when it has already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor


def _name(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:100]


def _read(pid: int, what: str) -> bytes:
    """Nothing of a process that has just ended, or is somebody else's."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
