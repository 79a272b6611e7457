"""The platform on RabbitMQ, PostgreSQL, Consul and Nomad, each service a process, against what those parts do alone.

    python -m bench real slots

Not part of `make bench` without a name: it needs the four parts and takes about fifteen minutes. The parts and services
are those of `make up-real`; the load comes from processes of its own.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2

from bench import ceilings, jobs, machine, occupancy, processes
from bench.follow import Following
from bench.load import Load
from bench.occupancy import Work
from bench.results import Result, of_rounds
from bench.whole_path import follow
from services.auth.dev_issuer import demo_token
from services.embedded.sites import BUILT_IN
from services.local.platform import LocalPlatform, local_platform
from services.local.settings import LocalSettings
from shared.adapters.nomad.local_agent import LocalRegion

IN_FLIGHT: Final = 64
RATE: Final = 5.0
SERVICES: Final = ("gateway", "auth", "scheduler", "monitor")


def measure(quick: bool) -> list[Result]:
    """The parts alone, telling, acceptance, and what a long queue does to others; one after the other."""
    return asyncio.run(_measure(quick))


def measure_slots(quick: bool) -> list[Result]:
    """How many slots the platform keeps busy."""
    return asyncio.run(_measure_slots(quick))


async def _measure(quick: bool) -> list[Result]:
    async with _running() as (up, headers, gateway), _sites(up) as sites:
        registered = await _registered(sites["prague"], quick)
        results = await _parts(up, quick)
        results += await _telling(up, headers, quick)
        results += await _acceptance(up, headers, registered, quick)
        return results + await _backlog(up, gateway, headers, quick)


async def _measure_slots(quick: bool) -> list[Result]:
    async with _running() as (up, _, gateway), _sites(up) as sites:
        return await _occupancy(gateway, sites, quick)


@contextlib.asynccontextmanager
async def _running() -> AsyncIterator[tuple[LocalPlatform, dict[str, str], httpx2.AsyncClient]]:
    """A platform of its own; the headers of a user, and a client that sends them."""
    with processes.folder() as folder:
        folder.chmod(0o711)
        async with local_platform(LocalSettings(data=folder / "real", port=machine.free_port())) as up:
            headers = {"Authorization": f"Bearer {await demo_token(up.issuer, 'alice')}"}
            async with httpx2.AsyncClient(base_url=up.gateway, headers=headers, timeout=60, trust_env=False) as gateway:
                yield up, headers, gateway


@contextlib.asynccontextmanager
async def _sites(up: LocalPlatform) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    """A client of each site's Nomad."""
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(region.caller()) for name, region in _regions(up).items()}


def _regions(up: LocalPlatform) -> dict[str, LocalRegion]:
    """The sites. Raises RuntimeError where one is not a real Nomad."""
    regions = {name: agent for name, agent in up.parts.agents.items() if isinstance(agent, LocalRegion)}
    if len(regions) < len(up.parts.agents) or up.parts.database is None:
        raise RuntimeError("this needs a `nomad` on PATH and Debian's PostgreSQL")
    return regions


# -- the parts alone ----------------------------------------------------------------------------------------------


async def _parts(up: LocalPlatform, quick: bool) -> list[Result]:
    seconds = 0.5 if quick else 5.0
    published, consumed = await ceilings.publish_and_consume(up.parts.environment["SERAI_AMQP_URL"], seconds)
    results = [
        Result(
            "RabbitMQ alone, published",
            published,
            "messages/s",
            "1 kB persistent, quorum queue, confirms, 64 in flight",
        ),
        Result("RabbitMQ alone, consumed", consumed, "messages/s", "the same messages, prefetch 64, single acks"),
    ]
    assert up.parts.database is not None
    for connections in (1, 16):
        rate = await ceilings.commits(up.parts.database.url(), seconds, connections=connections)
        method = "each a row of 1 kB, fsync on"
        results.append(Result(f"PostgreSQL alone, connections: {connections}", rate, "commits/s", method))
    return results


# -- acceptance ---------------------------------------------------------------------------------------------------


async def _registered(nomad: httpx2.AsyncClient, quick: bool) -> list[float]:
    """Nomad's own register rates, before the platform has anything to do: its backlog would slow them."""
    rounds, seconds = _acceptance_rounds(quick)
    return [await ceilings.registers(nomad, seconds) for _ in range(rounds)]


def _acceptance_rounds(quick: bool) -> tuple[int, float]:
    return (1, 1.0) if quick else (3, 5.0)


async def _acceptance(up: LocalPlatform, headers: dict[str, str], theirs: list[float], quick: bool) -> list[Result]:
    rounds, seconds = _acceptance_rounds(quick)
    ours, batched = [], []
    for _ in range(rounds):
        ours.append(await _accepted(Load(f"{up.gateway}/v1/jobs", IN_FLIGHT, seconds, "POST", headers,
                                         jobs.body(jobs.unplaceable())), 1))  # fmt: skip
        batched.append(await _accepted(Load(f"{up.gateway}/v1/jobs:batch", 4, seconds, "POST", headers,
                                            jobs.batch(200, jobs.unplaceable("bench"))), 200))  # fmt: skip
    method = (
        f"{rounds} rounds of {seconds:g} s, Nomad's before, beside an idle platform; {IN_FLIGHT} in flight; "
        "each 202 after the commit in PostgreSQL; jobs that no site has room for, taken in by the scheduler over "
        "RabbitMQ at the same time"
    )
    alone = "one keep-alive client, one request at a time, jobs that no node can run, one server"
    return [
        of_rounds("Nomad alone, registered", theirs, "jobs/s", alone),
        of_rounds("real parts: submissions accepted, single", ours, "jobs/s", method, against=theirs,
                  denominator_is="Nomad's own sequential register rate", goal=("at least", 3)),
        of_rounds("real parts: submissions accepted, batches of 200", batched, "jobs/s", method.replace("64", "4")),
    ]  # fmt: skip


async def _accepted(load: Load, jobs_each: int) -> float:
    told = await asyncio.to_thread(processes.load, load)
    if set(told["statuses"]) != {"202"}:
        raise RuntimeError(f"submissions were answered {told['statuses']}")
    return float(told["requests"]) * jobs_each / float(told["seconds"])


async def _backlog(
    up: LocalPlatform, gateway: httpx2.AsyncClient, headers: dict[str, str], quick: bool
) -> list[Result]:
    """What the jobs just accepted do to others: until all are taken in, and while they wait and are told why."""
    began = time.perf_counter()
    await _taken_in(gateway)
    took_s = time.perf_counter() - began
    told = await _told(up, headers, 2.0 if quick else 15.0)
    waiting = "with all jobs of the acceptance rounds waiting"
    return [
        Result("real parts: last acceptance until all are taken in", took_s, "s", "no job is `accepted` any more"),
        Result("real parts: 202 to succeeded, p50, beside a long queue", told["to_end"]["p50_ms"], "ms", waiting),
    ]  # fmt: skip


async def _taken_in(gateway: httpx2.AsyncClient) -> None:
    """Wait until the scheduler has everything."""
    async with asyncio.timeout(600):
        while await _accepted_still(gateway):  # noqa: ASYNC110  (a measurement may look)
            await asyncio.sleep(0.2)


async def _accepted_still(gateway: httpx2.AsyncClient) -> bool:
    answer = await gateway.get("/v1/jobs", params={"state": "accepted", "limit": 1})
    return bool(answer.raise_for_status().json()["items"])


# -- telling ------------------------------------------------------------------------------------------------------


async def _told(up: LocalPlatform, headers: dict[str, str], seconds: float) -> dict[str, Any]:
    """Jobs that the sites run at once, and what a reader of both streams noted. Raises RuntimeError if one failed."""
    body = jobs.body(jobs.job("bench-{n}", metadata={}))
    regions = _regions(up).values()
    following = Following(
        up.gateway, headers, RATE, seconds, body, agents=[region.address for region in regions],
        agent_tokens=[region.token for region in regions],
        agent_ca=next((region.trusted["ca_file"] for region in regions if region.trusted), ""),
    )  # fmt: skip
    told = await asyncio.to_thread(follow, following)
    if told["not_ended"] or told["gaps"] or set(told["ended"]) != {"job.succeeded"}:
        raise RuntimeError(f"not every job succeeded: {told['ended']}, {told['not_ended']} open, {told['gaps']} gaps")
    return told


async def _telling(up: LocalPlatform, headers: dict[str, str], quick: bool) -> list[Result]:
    seconds = 2.0 if quick else 30.0
    await _told(up, headers, 2.0)  # warm
    before = _cpu(up)
    told = await _told(up, headers, seconds)
    spent = {name: after - before[name] for name, after in _cpu(up).items()}
    method = (
        f"/bin/true by raw_exec, {RATE:g} jobs/s for {seconds:g} s; one process reads the sites' event streams and "
        f"GET /v1/events and notes when the bytes of each come; {told['told_all']['n']} attempt events"
    )
    every, count = told["told_all"], told["submitted"]
    return [
        Result("real parts: Nomad's stream to SSE client, p50", every["p50_ms"], "ms", method, goal=("at most", 15)),
        Result("real parts: Nomad's stream to SSE client, p99", every["p99_ms"], "ms", method),
        Result("real parts: 202 to succeeded, p50", told["to_end"]["p50_ms"], "ms", method),
        Result("real parts: 202 to succeeded, p99", told["to_end"]["p99_ms"], "ms", method),
        *(Result(f"real parts: CPU a job: {name}", spent[name] / count * 1e3, "ms/job",
                 "CPU clock of the service's process over the same run, idle costs included") for name in SERVICES),
    ]  # fmt: skip


def _cpu(up: LocalPlatform) -> dict[str, float]:
    """CPU seconds of each service, all its copies."""
    spent = dict.fromkeys(SERVICES, 0.0)
    for name, kept in up.supervisor.kept.items():
        assert kept.process is not None
        spent[name.rpartition("-")[0]] += machine.cpu_s(kept.process.pid)
    return spent


# -- occupancy ----------------------------------------------------------------------------------------------------


async def _occupancy(gateway: httpx2.AsyncClient, sites: dict[str, httpx2.AsyncClient], quick: bool) -> list[Result]:
    slots = {site.name: int(site.cores) for site in BUILT_IN}
    every = sum(slots.values())
    work = Work(2 * every, 4.0, 6.0) if quick else Work(4 * every, 60.0, 170.0)
    # The plain client first, which is the harder order: to the platform its jobs are the work of others, and room that
    # they leave must be known in time.
    plain = await occupancy.by_plain_client(sites, work, slots)
    ours = await occupancy.by_platform(gateway, sites, work)
    method = (
        f"{work.count} jobs of {work.sleep_s:g} s with one core each for {every} cores at three sites; mean over the "
        f"{work.window_s:g} s from the first start, read from Nomad's task events"
    )
    return [
        Result("plain client: busy slots", plain, "slots", method, denominator=every, denominator_is="all slots"),
        Result("real parts: busy slots", ours, "slots", method, denominator=plain,
               denominator_is="the same jobs posted straight at the sites", goal=("at least", 0.95)),
    ]  # fmt: skip
