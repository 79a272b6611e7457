"""Hands in jobs at a steady rate and follows them, in a process of its own; both ends of every latency on one clock.

    python -m bench.follow '{"url": ..., "headers": {...}, "agents": [...], "rate": 60, "seconds": 60, "body": ...}'

Times are noted when bytes arrive here: the 202 of each job, each event of the SSE stream `GET /v1/events`, and, when
`agents` are given, each line of the sites' own event streams. Prints one JSON object.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2 as httpx
import uvloop

from bench.results import quantile

_FINAL: Final = frozenset({"job.succeeded", "job.failed", "job.cancelled", "job.rejected"})
_OF_LINE: Final = {"pending": "starting", "running": "running", "complete": "succeeded"}
"""Which attempt event a first allocation line of this client status becomes."""


@dataclass(slots=True)
class Following:
    """`settle_s`: how long to wait for the last jobs after the last submission."""

    url: str
    headers: dict[str, str]
    rate: float
    seconds: float
    body: str
    agents: list[str] = field(default_factory=list)
    agent_tokens: list[str] = field(default_factory=list)
    agent_ca: str = ""
    settle_s: float = 30.0


@dataclass(slots=True)
class Noted:
    """Moments (perf_counter seconds) by job id, and by (job id, attempt status)."""

    accepted: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    ended: dict[str, tuple[str, float]] = field(default_factory=dict)
    told: dict[tuple[str, str], float] = field(default_factory=dict)
    lines: dict[tuple[str, str], float] = field(default_factory=dict)
    refused: int = 0
    gaps: int = 0


async def run(what: Following) -> dict[str, Any]:
    noted = Noted()
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with (
        httpx.AsyncClient(
            base_url=what.url, headers=what.headers, timeout=30, trust_env=False, limits=limits
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        reading = [group.create_task(_events(client, noted), name="sse")]
        tokens = what.agent_tokens or [""] * len(what.agents)
        reading += [
            group.create_task(_agent(address, token, what.agent_ca, noted), name=address)
            for address, token in zip(what.agents, tokens, strict=True)
        ]
        await asyncio.sleep(0.5)
        start = time.perf_counter()
        await _submit(client, what, noted, start)
        submitted_at = time.perf_counter()
        backlog = _open(noted)
        until = submitted_at + what.settle_s
        while _open(noted) and time.perf_counter() < until:  # noqa: ASYNC110  (a measurement may look)
            await asyncio.sleep(0.01)
        drained_s = time.perf_counter() - submitted_at
        for task in reading:
            task.cancel()
    return _report(what, noted, start, submitted_at, backlog, drained_s)


def _open(noted: Noted) -> int:
    return sum(id not in noted.ended for id in noted.accepted)


async def _submit(client: httpx.AsyncClient, what: Following, noted: Noted, start: float) -> None:
    """One job each 1/rate seconds, whatever became of those before."""
    async with asyncio.TaskGroup() as group:
        for number in range(round(what.rate * what.seconds)):
            await asyncio.sleep(max(0.0, start + number / what.rate - time.perf_counter()))
            group.create_task(_one(client, what.body.replace("{n}", str(number)), noted))


async def _one(client: httpx.AsyncClient, body: str, noted: Noted) -> None:
    asked = time.perf_counter()
    answer = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code != 202:
        noted.refused += 1
        return
    id = answer.headers["location"].rpartition("/")[2]
    noted.asked[id], noted.accepted[id] = asked, time.perf_counter()


async def _events(client: httpx.AsyncClient, noted: Noted) -> None:
    async with client.stream("GET", "/v1/events", timeout=None) as response:
        response.raise_for_status()
        kind = ""
        async for at, line in _lines(response):
            if line.startswith("event: "):
                kind = line[7:]
                noted.gaps += kind == "gap"
            elif line.startswith("data: ") and kind.startswith(("job.", "attempt.")):
                _note_event(noted, kind, json.loads(line[6:])["data"], at)


def _note_event(noted: Noted, kind: str, data: dict[str, Any], at: float) -> None:
    id = data["job_id"]
    if kind in _FINAL:
        noted.ended.setdefault(id, (kind, at))
    elif kind.startswith("attempt."):
        noted.told.setdefault((id, kind[8:]), at)


async def _agent(address: str, token: str, ca_file: str, noted: Noted) -> None:
    """The site's own event stream, as its Nomad API gives it."""
    url, asked = f"{address}/v1/event/stream", {"topic": "Allocation", "index": "0", "namespace": "*"}
    headers = {"X-Nomad-Token": token} if token else {}
    verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
    async with (
        httpx.AsyncClient(timeout=None, trust_env=False, verify=verify, headers=headers) as client,
        client.stream("GET", url, params=asked) as response,
    ):
        response.raise_for_status()
        async for at, line in _lines(response):
            for event in json.loads(line).get("Events") or [] if line else []:
                allocation = event["Payload"]["Allocation"]
                status = _OF_LINE.get(allocation["ClientStatus"])
                if status is not None:
                    noted.lines.setdefault((allocation["JobID"][:36], status), at)


async def _lines(response: httpx.Response) -> AsyncIterator[tuple[float, str]]:
    """Lines with the moment at which their last bytes came."""
    rest = b""
    async for chunk in response.aiter_raw():
        at = time.perf_counter()
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield at, line.decode()


def _report(
    what: Following, noted: Noted, start: float, submitted_at: float, backlog: int, drained_s: float
) -> dict[str, Any]:
    to_end = {id: noted.ended[id][1] - at for id, at in noted.accepted.items() if id in noted.ended}
    halves = [[took for id, took in to_end.items() if (noted.accepted[id] - start < what.seconds / 2) is first]
              for first in (True, False)]  # fmt: skip
    lags: dict[str, list[float]] = {}
    for key, line_at in noted.lines.items():
        if key in noted.told:
            lags.setdefault(key[1], []).append(noted.told[key] - line_at)
    ends = [at for _, at in noted.ended.values()]
    kinds = [kind for kind, _ in noted.ended.values()]
    return {
        "submitted": len(noted.accepted), "refused": noted.refused, "gaps": noted.gaps,
        "submit_s": submitted_at - start,
        "whole_s": max(ends, default=submitted_at) - start, "ended": {kind: kinds.count(kind) for kind in set(kinds)},
        "not_ended": _open(noted), "backlog_at_last_submission": backlog, "drained_s": drained_s,
        "accept": _of([noted.accepted[id] - at for id, at in noted.asked.items()]),
        "to_end": _of(list(to_end.values())), "to_end_halves": [_of(half) for half in halves],
        "told": {status: _of(found) for status, found in lags.items()},
        "told_all": _of([lag for found in lags.values() for lag in found]),
        "cpu_s": time.process_time(),
    }  # fmt: skip


def _of(seconds: list[float]) -> dict[str, float]:
    """Quantiles in milliseconds."""
    return {
        "n": len(seconds), "p50_ms": quantile(seconds, 0.5) * 1e3, "p99_ms": quantile(seconds, 0.99) * 1e3,
        "max_ms": max(seconds, default=float("nan")) * 1e3,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Following(**json.loads(sys.argv[1]))))))
