"""Jobs from 202 to `succeeded` at a steady rate, and what CPU each service spends on one."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from bench import jobs, machine, processes
from bench.follow import Following
from bench.processes import Up
from bench.results import Result

RATE: Final = 60.0
SERVICES: Final = ("gateway", "auth", "scheduler", "monitor", "sites", "bus", "runtime")


def measure(quick: bool) -> list[Result]:
    """60 jobs/s for 60 s, none lost, no backlog."""
    seconds = 2.0 if quick else 60.0
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES, sampled=True) as up:
        _warm_up(up, 1.0 if quick else 5.0)
        before, others, began = up.account_now(), machine.busy_s(), time.perf_counter()
        told = follow(Following(up.url, up.headers(), RATE, seconds, jobs.body(jobs.job())))
        spent = difference(up.account_now(), before)
        others = machine.busy_s() - others - spent["process_s"] - told["cpu_s"]
        elsewhere = Result(
            "CPU that others took meanwhile", others / (time.perf_counter() - began), "cores",
            "busy time of the machine, less the platform's and the load's: how far to trust the latencies of this run",
        )  # fmt: skip
        memory = machine.rss_mb(up.pid)
    if told["refused"] or told["not_ended"] or set(told["ended"]) != {"job.succeeded"}:
        raise RuntimeError(
            f"not every job succeeded: {told['ended']}, {told['not_ended']} open, {told['refused']} refused"
        )
    return [*_path_results(told, seconds, memory), elsewhere, *_cpu_results(spent, told["submitted"])]


def follow(what: Following) -> dict[str, Any]:
    """Run `bench.follow` in a process of its own; what it noted."""
    command = [sys.executable, "-m", "bench.follow", json.dumps(asdict(what))]
    done = subprocess.run(
        command, cwd=processes.ROOT, capture_output=True, text=True, check=False,
        timeout=what.seconds + what.settle_s + 60,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"following the jobs failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def difference(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What an account grew by."""
    return {
        key: difference(value, before.get(key, {})) if isinstance(value, dict) else value - before.get(key, 0.0)
        for key, value in after.items()
    }


def cpu_by_service(spent: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds by service, threads included."""
    found = dict.fromkeys(SERVICES, 0.0)
    for service, seconds in spent["services"].items():
        found[service] = found.get(service, 0.0) + seconds
    for thread, seconds in spent["threads"].items():
        found[_owner(thread)] += seconds
    rest = spent["process_s"] - sum(found.values())
    return found | {"runtime": found["runtime"] + max(0.0, rest)}


def _owner(thread: str) -> str:
    """Whose a thread is, by its name: `commit-gateway.sqlite`, `read-monitor_0`, `nomad-lyon_1` (calls to sites)."""
    kind, _, name = thread.partition("-")
    service = name.partition(".")[0].partition("_")[0]
    if kind == "nomad":
        return "scheduler"
    if kind == "agent":
        return "sites"
    return service if kind in ("commit", "read") and service in SERVICES else "runtime"


def _warm_up(up: Up, seconds: float) -> None:
    follow(Following(up.url, up.headers(), RATE / 2, seconds, jobs.body(jobs.job())))


def _path_results(told: dict[str, Any], seconds: float, memory: float) -> list[Result]:
    method = (
        f"mock jobs that end at once, three sites, one at a time each 1/{RATE:g} s for {seconds:g} s from another "
        "process that follows GET /v1/events; every one succeeded"
    )
    first, second = told["to_end_halves"]
    return [
        Result("jobs from 202 to succeeded", told["submitted"] / told["whole_s"], "jobs/s", method,
               goal=("at least", round(RATE * seconds / (seconds + 1), 1))),
        Result("202 to succeeded, p50", told["to_end"]["p50_ms"], "ms", f"{method}; arrival of both at the client"),
        Result("202 to succeeded, p99", told["to_end"]["p99_ms"], "ms", f"{method}; arrival of both at the client"),
        Result("202 to succeeded, p99 of the second half", second["p99_ms"], "ms", "does a backlog grow?",
               denominator=first["p99_ms"], denominator_is="p99 of the first half"),
        Result("jobs open at the last submission", told["backlog_at_last_submission"], "jobs", method,
               goal=("at most", RATE)),
        Result("from the last submission to the last end", told["drained_s"], "s", method),
        Result("202 after the request, p99, at 60 jobs/s", told["accept"]["p99_ms"], "ms", method),
        Result("memory after the run", memory, "MB", "VmRSS of the platform's process"),
    ]  # fmt: skip


def _cpu_results(spent: dict[str, Any], count: int) -> list[Result]:
    whole = spent["process_s"] / count * 1e3
    method = (
        "CPU clock of the process over the run; divided among the services by SIGPROF samples of the main thread and "
        "by each thread's own clock (bench/sampled.py)"
    )
    parts = cpu_by_service(spent)
    return [
        Result("CPU of the whole platform a job", whole, "ms/job", method),
        *(Result(f"CPU a job: {name}", parts[name] / count * 1e3, "ms/job", method, denominator=whole,
                 denominator_is="the whole platform") for name in SERVICES),
    ]  # fmt: skip
