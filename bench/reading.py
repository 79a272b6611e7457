"""Reads by id against the bare FastAPI route: two servers side by side, the same load on each in turn."""

import time
from typing import Final

from bench import jobs, machine, processes
from bench.load import Load
from bench.results import Result, of_rounds

IN_FLIGHT: Final = 50


def measure(quick: bool) -> list[Result]:
    """`GET /v1/jobs/{id}` as a share of a bare route's rate."""
    rounds, seconds = (1, 0.3) if quick else (6, 4.0)
    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES) as up, processes.bare() as plain:
        url = up.url + a_finished_job(up)
        for _ in range(rounds):
            bare.append(_round(plain[0], plain[1], {}, seconds))
            ours.append(_round(url, up.pid, up.headers(), seconds))
    method = (
        f"{rounds} rounds of {seconds:g} s, bare and gateway in turn, {IN_FLIGHT} keep-alive connections in a closed "
        "loop from another process; a finished job, bearer token checked, span sampling as shipped; both with the "
        "same server settings"
    )
    rates = of_rounds(
        "GET /v1/jobs/{id}, 50 in flight", [each["rate"] for each in ours], "requests/s", method,
        against=[each["rate"] for each in bare], denominator_is="bare FastAPI route", goal=("at least", 0.6),
    )  # fmt: skip
    cpu = of_rounds(
        "GET /v1/jobs/{id}, CPU", [each["cpu_us"] for each in ours], "us/request", f"{method}; CPU of the server",
        against=[each["cpu_us"] for each in bare], denominator_is="bare FastAPI route",
    )  # fmt: skip
    p99 = of_rounds("GET /v1/jobs/{id}, p99", [each["p99_ms"] for each in ours], "ms", method,
                    against=[each["p99_ms"] for each in bare], denominator_is="bare FastAPI route")  # fmt: skip
    return [rates, cpu, p99]


def a_finished_job(up: processes.Up) -> str:
    """The path of a job that has ended."""
    with up.client() as client:
        path = client.post("/v1/jobs", json=jobs.job("bench-read")).raise_for_status().headers["location"]
        until = time.monotonic() + 30
        while client.get(path).raise_for_status().json()["finished_at"] is None:
            if time.monotonic() > until:
                raise TimeoutError("the job to be read did not end")
            time.sleep(0.02)
    return str(path)


def _round(url: str, pid: int, headers: dict[str, str], seconds: float) -> dict[str, float]:
    before = machine.cpu_s(pid)
    told = processes.load(Load(url, IN_FLIGHT, seconds, headers=headers))
    spent = machine.cpu_s(pid) - before
    if set(told["statuses"]) != {"200"}:
        raise RuntimeError(f"{url} answered {told['statuses']}")
    return {"rate": told["rate"], "p99_ms": told["p99_ms"], "cpu_us": spent / told["requests"] * 1e6}
