"""`serai-platform` with an account of where its CPU goes: by service, and by function.

    python -m bench.sampled FILE up --mock ...      (kill -USR1: writes the account so far to FILE)

A timer of the process's CPU time (SIGPROF, each 5 ms) looks at the main thread's stack; each look counts for the CPU
time that the thread used since the one before, so the sum is exact and only its division is sampled. Other threads
(commits, long reads, spans) are asked for their own CPU clocks and go by their names. Whose a stack is, in this order:
the outermost frame in a service's own code (`services/<service>/`; the embedded agents are `sites`), the name of the
task (`scheduler.relay`), the database whose writer runs, else `runtime` (loop, HTTP parsing, spans).
"""

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Final

INTERVAL_S: Final = 0.005
_SERVICE: Final = re.compile(r"/services/(auth|scheduler|monitor|gateway|embedded/agent)/")
_TASK: Final = re.compile(r"^(auth|scheduler|monitor|gateway)\.")
_OWNERS: Final = {"embedded/agent": "sites"}
_SHOWN: Final = re.compile(r"^.*/(services/|shared/|bench/|site-packages/|lib/python3\.\d+/)")
_KEPT: Final = r"\1"


class Account:
    """CPU seconds of the main thread, by service, by function that was running, and by (service, function of ours)."""

    def __init__(self) -> None:
        self.services: defaultdict[str, float] = defaultdict(float)
        self.own: defaultdict[str, float] = defaultdict(float)
        self.lines: defaultdict[str, float] = defaultdict(float)
        self._last = time.thread_time()

    def look(self, number: int, frame: FrameType | None) -> None:
        """One sample; runs in the main thread."""
        now = time.thread_time()
        spent, self._last = now - self._last, now
        if frame is None:
            return
        frames = _frames(frame)
        service = _service_of(frames)
        self.services[service] += spent
        self.own[_place(frames[0])] += spent
        for place in {f"{service}: {_place(each)}" for each in frames if _is_ours(each)}:
            self.lines[place] += spent

    def write(self, file: Path) -> None:
        """All that was counted since the start, as JSON."""
        threads = {
            thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            for thread in threading.enumerate()
            if thread.ident is not None and thread is not threading.main_thread()
        }
        told = {
            "process_s": time.process_time(), "main_thread_s": time.thread_time(), "services": self.services,
            "threads": threads, "own": self.own, "lines": self.lines,
        }  # fmt: skip
        new = file.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.rename(file)


def _frames(frame: FrameType | None) -> list[FrameType]:
    """Innermost first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _service_of(frames: list[FrameType]) -> str:
    for frame in reversed(frames):
        found = _SERVICE.search(frame.f_code.co_filename)
        if found:
            return _OWNERS.get(found[1], found[1])
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None and (named := _TASK.match(task.get_name())):
        return named[1]
    for frame in frames:
        if frame.f_code.co_filename.endswith("/sqlite_writer.py"):
            name = getattr(frame.f_locals.get("self"), "_name", "")
            if name:
                return str(name).removesuffix(".sqlite")
    return "runtime"


def _is_ours(frame: FrameType) -> bool:
    return "/services/" in frame.f_code.co_filename or "/shared/" in frame.f_code.co_filename


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{_SHOWN.sub(_KEPT, code.co_filename)}:{code.co_qualname}"


def main() -> None:
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    account = Account()
    signal.signal(signal.SIGUSR1, lambda number, frame: account.write(file))
    signal.signal(signal.SIGPROF, account.look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    sys.argv = ["serai-platform", *arguments]
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    from services.__main__ import main as platform

    platform()


if __name__ == "__main__":
    main()
