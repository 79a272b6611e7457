"""Acceptance: durable submissions a second, single and in batches, on this disk and on one that syncs 5 ms slower."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import jobs, machine, processes, slow_disk
from bench.load import Load
from bench.processes import Up
from bench.results import Result, of_rounds
from bench.slow_disk import Disk

IN_FLIGHT: Final = 64
BATCH, BATCHES_IN_FLIGHT = 200, 4
SLOWER_MS: Final = 5.0
KEPT: Final = 2 / 3
"""No more than a third less with slow syncs."""


@dataclass(slots=True)
class Seen:
    """Rates of one platform, round by round: jobs accepted a second."""

    single: list[float] = field(default_factory=list)
    batched: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def measure(quick: bool) -> list[Result]:
    """Single and batched acceptance, and how much of it is left on a slow disk."""
    rounds, seconds = (1, 0.5) if quick else (3, 4.0)
    why_not = slow_disk.missing()
    if why_not:
        print(f"acceptance on a slow disk is left out: {why_not}")
    with processes.folder() as folder:
        disks = {} if why_not else {0.0: Disk(0.0, folder / "sync-0"), SLOWER_MS: Disk(SLOWER_MS, folder / "sync-5")}
        seen, running = _alternating(folder, disks, rounds, seconds)
        results = _results(seen[None], running, rounds, seconds)
        return results + (_slow_results(seen, disks, rounds, seconds) if disks else [])


def _alternating(
    folder: Path, disks: dict[float, Disk], rounds: int, seconds: float
) -> tuple[dict[float | None, Seen], float]:
    """Platforms side by side, one under load at a time; at last, the rate while the accepted jobs run as well."""
    with contextlib.ExitStack() as stack:
        ups: dict[float | None, Up] = {
            None: stack.enter_context(processes.platform(folder / "plain", sites=jobs.SITES))
        }
        ups |= {
            delay: stack.enter_context(processes.platform(folder / f"d{delay}", sites=jobs.SITES, around=disk.command))
            for delay, disk in disks.items()
        }  # fmt: skip
        seen: dict[float | None, Seen] = {delay: Seen() for delay in ups}
        for _ in range(rounds):
            for delay, up in ups.items():
                _single(up, seconds, seen[delay])
                _batched(up, seconds, seen[delay])
        running = _rate(_load(ups[None], jobs.body(jobs.job()), seconds), 1)
    return seen, running


def _load(up: Up, body: str, seconds: float) -> Load:
    return Load(f"{up.url}/v1/jobs", IN_FLIGHT, seconds, "POST", up.headers(), body)


def _single(up: Up, seconds: float, seen: Seen) -> None:
    before = machine.cpu_s(up.pid)
    told = processes.load(_load(up, jobs.body(jobs.unplaceable()), seconds))
    seen.single.append(_accepted(told) / told["seconds"])
    seen.p99_ms.append(told["p99_ms"])
    _drained(up)
    seen.cpu_ms.append((machine.cpu_s(up.pid) - before) / told["requests"] * 1e3)


def _batched(up: Up, seconds: float, seen: Seen) -> None:
    body = jobs.batch(BATCH, jobs.unplaceable("bench"))
    load = Load(f"{up.url}/v1/jobs:batch", BATCHES_IN_FLIGHT, seconds, "POST", up.headers(), body)
    seen.batched.append(_rate(load, BATCH))
    _drained(up)


def _rate(load: Load, jobs_each: int) -> float:
    told = processes.load(load)
    return _accepted(told) * jobs_each / float(told["seconds"])


def _accepted(told: dict[str, object]) -> float:
    statuses = told["statuses"]
    assert isinstance(statuses, dict)
    if set(statuses) != {"202"}:
        raise RuntimeError(f"submissions were answered {statuses}")
    return float(statuses["202"])


def _drained(up: Up) -> None:
    """Wait until the scheduler has taken everything in, so that the next round begins with nothing owed."""
    until = time.monotonic() + 120
    with up.client() as client:
        while client.get("/v1/jobs", params={"state": "accepted", "limit": 1}).raise_for_status().json()["items"]:
            if time.monotonic() > until:
                raise TimeoutError("the scheduler did not take in what was accepted")
            time.sleep(0.05)


def _results(seen: Seen, running: float, rounds: int, seconds: float) -> list[Result]:
    method = (
        f"{rounds} rounds of {seconds:g} s from another process; real tokens and grants; each 202 after the commit "
        "(synchronous=FULL); jobs that no site has room for, which the scheduler takes in at the same time"
    )
    single = f"{method}; {IN_FLIGHT} in flight"
    return [
        of_rounds("submissions accepted, single", seen.single, "jobs/s", single, goal=("at least", 300)),
        of_rounds("submissions accepted, single, p99", seen.p99_ms, "ms", single),
        of_rounds(
            "submission, CPU of the whole platform", seen.cpu_ms, "ms/job", f"{single}; until the scheduler has it"
        ),
        Result(
            "submissions accepted, single, while they run", running, "jobs/s",
            method=f"one round of {seconds:g} s, {IN_FLIGHT} in flight; mock jobs that the sites run at the same time",
        ),
        of_rounds(
            "submissions accepted, batches of 200", seen.batched, "jobs/s", f"{method}; {BATCHES_IN_FLIGHT} in flight",
            goal=("at least", 1000),
        ),
    ]  # fmt: skip


def _slow_results(
    seen: dict[float | None, Seen], disks: dict[float, Disk], rounds: int, seconds: float
) -> list[Result]:  # fmt: skip
    slow, traced = seen[SLOWER_MS], seen[0.0]
    method = (
        f"as above, in the same rounds; strace --seccomp-bpf delays each fsync and fdatasync of the platform by "
        f"{SLOWER_MS:g} ms, against strace without delay; {disks[SLOWER_MS].syncs()} and {disks[0.0].syncs()} calls"
    )
    is_what = "the same under strace without delay"
    return [
        Result(
            "a sync on the slow disk", disks[SLOWER_MS].sync_ms(), "ms", "mean of 20 fdatasync of 4 KiB, same strace",
            denominator=disks[0.0].sync_ms(), denominator_is="under strace without delay",
        ),
        of_rounds("submissions accepted, single, syncs 5 ms slower", slow.single, "jobs/s", method,
                  against=traced.single, denominator_is=is_what, goal=("at least", KEPT)),
        of_rounds("submissions accepted, batched, syncs 5 ms slower", slow.batched, "jobs/s", method,
                  against=traced.batched, denominator_is=is_what, goal=("at least", KEPT)),
        of_rounds("submissions accepted, single, under strace", traced.single, "jobs/s",
                  "strace without delay against no strace: what the tracer costs", against=seen[None].single,
                  denominator_is="without strace"),
    ]  # fmt: skip
