"""What a platform costs that nobody uses: memory, CPU, and how long it takes to start."""

import time

from bench import machine, processes
from bench.results import Result, of_rounds


def measure(quick: bool) -> list[Result]:
    """`up` with the built-in three sites, as in the first hour."""
    starts, settle_s, idle_s = (1, 0.5, 1.0) if quick else (5, 5.0, 30.0)
    took = [_started() for _ in range(starts)]
    with processes.folder() as data, processes.platform(data) as up:
        time.sleep(settle_s)
        before, began = machine.cpu_s(up.pid), time.perf_counter()
        time.sleep(idle_s)
        share = (machine.cpu_s(up.pid) - before) / (time.perf_counter() - began) * 100
        memory = machine.rss_mb(up.pid)
    with processes.folder() as data:
        with processes.platform(data):
            pass
        with processes.platform(data) as up:
            again_s = up.took_s
    return [
        Result("idle memory", memory, "MB", f"VmRSS after {settle_s + idle_s:g} s, three sites", goal=("at most", 200)),
        Result("idle CPU", share, "% of a core", f"CPU clock of the process over {idle_s:g} s", goal=("at most", 3)),
        of_rounds(
            "start of a new platform", took, "s", f"process start to the JSON line, {starts} times, fresh folder",
            goal=("at most", 3),
        ),
        Result("start of a platform with its data", again_s, "s", "the same, on a used folder", goal=("at most", 3)),
    ]  # fmt: skip


def _started() -> float:
    with processes.folder() as data, processes.platform(data) as up:
        return up.took_s
