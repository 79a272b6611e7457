"""How full three real sites are while more work waits: the platform's placing against a plain client's posting.

Busy slot-seconds are read from Nomad's own allocations (a task's `Started` and `Terminated` events), over a window that
begins with the first start; both sides get the same jobs, more than the sites can run within the window.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from bench import ceilings, jobs

SLEEP: Final = "/bin/sleep"
_NS: Final = 1e9
_SETTLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """So many one-core jobs that sleep for so long; the window is that of measuring. Seconds."""

    count: int
    sleep_s: float
    window_s: float


Sites = Mapping[str, httpx2.AsyncClient]


async def by_platform(gateway: httpx2.AsyncClient, sites: Sites, work: Work) -> float:
    """Slots that the platform keeps busy in the mean."""
    job = jobs.job("bench-occupancy", command=[SLEEP, f"{work.sleep_s:g}"], metadata={},
                   resources={"cpu": 1, "memory": "64MiB", "disk": "20MiB"})  # fmt: skip
    began = time.time_ns()
    answer = (await gateway.post("/v1/jobs:batch", json={"jobs": [job] * work.count})).raise_for_status().json()
    if answer["accepted"] != work.count:
        raise RuntimeError(f"the platform took {answer['accepted']} of {work.count} jobs")
    busy = await _busy(sites, began, work)
    for item in answer["items"]:
        (await gateway.delete(item["location"])).raise_for_status()
    await _until_empty(sites)
    return busy


async def by_plain_client(sites: Sites, work: Work, slots: Mapping[str, int]) -> float:
    """The same, when a client posts every job straight at a site, to each as many as its part of all slots."""
    began, posted = time.time_ns(), list[tuple[httpx2.AsyncClient, str]]()
    for number, site in enumerate(_shared_out(slots, work.count)):
        id = f"bench-occupancy-{number}"
        job = ceilings.batch_job(id, SLEEP, (f"{work.sleep_s:g}",), cpu_mhz=1000, memory_mb=64)
        (await sites[site].put("/v1/jobs", json={"Job": job})).raise_for_status()
        posted.append((sites[site], id))
    busy = await _busy(sites, began, work)
    for client, id in posted:
        (await client.delete(f"/v1/job/{id}", params={"purge": "true"})).raise_for_status()
    await _until_empty(sites)
    return busy


def _shared_out(slots: Mapping[str, int], count: int) -> Sequence[str]:
    """Site of each job: in turn, in proportion to the slots."""
    turn = [site for site, number in slots.items() for _ in range(number)]
    return [turn[number % len(turn)] for number in range(count)]


async def _busy(sites: Sites, began_ns: int, work: Work) -> float:
    """Wait until the window is over; slot-seconds that ran in it, for each second of it."""
    first = await _first_start(sites, began_ns)
    await asyncio.sleep(max(0.0, (first - time.time_ns()) / _NS + work.window_s + 1.0))
    end = first + int(work.window_s * _NS)
    runs = [run for client in sites.values() for run in await _runs(client, began_ns)]
    return sum(max(0, min(ended, end) - started) for started, ended in runs) / _NS / work.window_s


async def _first_start(sites: Sites, began_ns: int) -> int:
    async with asyncio.timeout(_SETTLE_S):
        while True:
            starts = [started for client in sites.values() for started, _ in await _runs(client, began_ns)]
            if starts:
                return min(starts)
            await asyncio.sleep(0.1)


async def _runs(client: httpx2.AsyncClient, began_ns: int) -> list[tuple[int, int]]:
    """Start and end (ns of Unix time; now for one that runs) of every task that started since."""
    answer = await client.get("/v1/allocations", params={"namespace": "*", "task_states": "true"})
    found = []
    for allocation in answer.raise_for_status().json():
        for state in (allocation["TaskStates"] or {}).values():
            times: dict[str, int] = {event["Type"]: event["Time"] for event in state["Events"] or []}
            if times.get("Started", 0) > began_ns:
                found.append((times["Started"], times.get("Terminated", time.time_ns())))
    return found


async def _until_empty(sites: Sites) -> None:
    """Wait until no task runs, so that the next measuring finds the sites as this one did."""
    async with asyncio.timeout(_SETTLE_S):
        while await _alive(sites):  # noqa: ASYNC110  (a measurement may look)
            await asyncio.sleep(0.2)


async def _alive(sites: Sites) -> int:
    answers = [await client.get("/v1/allocations", params={"namespace": "*"}) for client in sites.values()]
    return sum(one["ClientStatus"] in ("pending", "running") for answer in answers for one in answer.json())
