"""Programs that a run of tests started and that outlive it: when it is interrupted, nobody else would end them.

Every program inherits the run's mark in its environment, brokers and databases included.
"""

import os
import signal
import time
import uuid
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from tests import pacing

MARK: Final = "SERAI_TEST_RUN"
_PATIENCE_S: Final = 3.0
_LOOK_S: Final = 0.05


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
    _signal(found, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE_S
    while _of(run) and time.monotonic() < until:
        pacing.hold_the_loop(_LOOK_S)
    _signal(_of(run), signal.SIGKILL)
    return names


def _of(run: str) -> list[int]:
    wanted = f"{MARK}={run}".encode()
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and wanted in _read(pid, "environ").split(b"\0")]


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
