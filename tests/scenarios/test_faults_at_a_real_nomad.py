"""Faults at a real Nomad under the whole platform: the outcomes of architecture section 3, no attempt twice, no stray.

One region of a server and two clients, reached through a proxy that can cut and answer. Every job's Nomad job may have
one allocation at most; at the end nothing of ours may be left. The count of injected faults and the result are printed.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.embedded.sites import BIO, CLIMATE
from shared.namespaces import namespace_of
from tests import pacing
from tests.between import Between, between
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.world import ENDED, World, a_site, a_world, shell, site_is, until

DRAINED_WORK_ENDS = (1, 11, 1)
"""Since then; before, Nomad itself begins a batch again on another node (docs/sites.md)."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nomad]

QUICK_SERVER = {"server": {"heartbeat_grace": "1s", "min_heartbeat_ttl": "1s", "event_buffer_size": 20}}
NO_LEADER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\nConnection: close\r\n\r\nNo cluster leader"
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow"


@dataclass
class Stage:
    """The world and its one site. `faults` counts what was done to it."""

    world: World
    nomad: RealNomad
    proxy: Between
    faults: Counter[str] = field(default_factory=Counter)
    jobs: list[str] = field(default_factory=list)

    async def hurt(self, what: str, *calls: Any) -> None:
        """One fault, made in a thread."""
        self.faults[what] += 1
        for call, *given in calls:
            await asyncio.to_thread(call, *given)

    async def submit(self, script: str, **fields: Any) -> str:
        self.jobs.append(await self.world.alice.submit(shell(script, **fields)))
        return self.jobs[-1]

    async def runs(self, script: str, **fields: Any) -> str:
        job = await self.submit(script, **fields)
        await self.world.alice.sees(job, "running")
        return job

    async def node_of(self, job: str, number: int = 1) -> str:
        """Name of the client that has an attempt."""
        path = f"/v1/job/{job}-{number:03}/allocations?namespace={namespace_of(CLIMATE)}"
        (found,) = await asyncio.to_thread(self.nomad.operator.ask, "GET", path)
        return str(found["NodeName"])

    async def runs_on(self, job: str) -> list[str]:
        """Names of the clients where the first attempt runs."""
        path = f"/v1/job/{job}-001/allocations?namespace={namespace_of(CLIMATE)}"
        found = await asyncio.to_thread(self.nomad.operator.ask, "GET", path)
        return [str(one["NodeName"]) for one in found if one["ClientStatus"] == "running"]

    async def attempt_runs(self, job: str, number: int) -> None:
        async def there() -> bool:
            now = await self.world.alice.job(job)
            return (now.attempt, now.state) == (number, "running")

        await until(there, f"attempt {number} of {job}:\n{await self.world.alice.story(job)}")

    async def over(self, attempt: str) -> None:
        """Wait until nothing of an attempt runs at the site."""

        async def gone() -> bool:
            return attempt not in await asyncio.to_thread(self.nomad.running)

        await until(gone, f"{attempt} is over")

    async def check(self) -> None:
        """Every job has ended, no Nomad job of ours had more than one allocation (but for what Nomad itself moved), and
        nothing is left running.
        """
        states = {job: (await self.world.alice.job(job)).state for job in self.jobs}
        lost = {job: state for job, state in states.items() if state not in ENDED}
        assert not lost

        async def nothing() -> bool:
            return not await asyncio.to_thread(self.nomad.running)

        await until(nothing, "no stray left")
        found = await asyncio.to_thread(self.nomad.operator.ask, "GET", "/v1/allocations?namespace=*")
        moves = await asyncio.to_thread(self.nomad.operator.version) < DRAINED_WORK_ENDS
        ours = [row["JobID"] for row in found if not (moves and (row["DesiredTransition"] or {}).get("Migrate"))]
        twice = {name: n for name, n in Counter(ours).items() if n > 1}
        assert not twice


@pytest.fixture(scope="module")
def nomad() -> Iterator[RealNomad]:
    names = (namespace_of(CLIMATE), namespace_of(BIO))
    with real_nomad(name="prague", clients=("one", "two"), namespaces=names, server=QUICK_SERVER) as region:
        yield region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(nomad: RealNomad, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A node may be away for 4 s; the monitor lists every 30 s unless something makes it list."""
    told = {
        "scheduler": {"node_grace_s": 4, "namespaces_s": 1},
        "monitor": {"relist_interval_s": 30, "probe_interval_s": 0.2, "probe_timeout_s": 1, "namespaces_interval_s": 1},
    }
    folder = tmp_path_factory.mktemp("real")
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(between(nomad.address))
        agents = {"prague": proxy}
        up = await stack.enter_async_context(a_world(folder, a_site("prague"), mock=False, agents=agents, **told))
        made = Stage(up, nomad, proxy)
        yield made
        await made.check()
    faults = ", ".join(f"{count} x {what}" for what, count in sorted(made.faults.items()))
    print(
        f"\nfaults at a real Nomad: {made.faults.total()} injected ({faults}); "
        f"{len(made.jobs)} jobs, none lost, no attempt twice, no stray left"
    )


async def test_a_server_that_is_killed_and_started_again_costs_no_job_anything(stage: Stage) -> None:
    job = await stage.runs("sleep 8")
    await stage.hurt("server killed", (stage.nomad.kill, "server"))
    await site_is(stage.world.alice, "prague", reachable=False)
    assert (await stage.world.alice.job(job)).state == "running"
    await stage.hurt("server started", (stage.nomad.begin, "server"))
    await site_is(stage.world.alice, "prague", reachable=True)
    ended = await stage.world.alice.sees(job, "succeeded")
    assert ended.attempt == 1


async def test_a_server_that_hangs_for_a_while_costs_no_job_anything(stage: Stage) -> None:
    """Its connections stay open and nothing comes: half-open, as a machine that swaps."""
    job = await stage.runs("sleep 6")
    await stage.hurt("server frozen", (stage.nomad.freeze, "server"))
    await site_is(stage.world.alice, "prague", reachable=False)
    waiting = await stage.submit("echo hello")
    await stage.hurt("server thawed", (stage.nomad.freeze, "server", False))
    for each in (job, waiting):
        assert (await stage.world.alice.sees(each, "succeeded")).attempt == 1


async def test_an_agent_that_is_killed_and_started_again_still_has_its_task(stage: Stage) -> None:
    job = await stage.runs("sleep 6")
    node = await stage.node_of(job)
    await stage.hurt("agent killed and back", (stage.nomad.kill, node), (stage.nomad.begin, node))
    ended = await stage.world.alice.sees(job, "succeeded")
    assert ended.attempt == 1


async def test_a_node_that_is_away_for_longer_than_its_grace_gives_the_job_up_and_its_task_is_ended(
    stage: Stage,
) -> None:
    job = await stage.runs("sleep 1000")
    node = await stage.node_of(job)
    await stage.hurt("node lost", (stage.nomad.kill, node))
    await stage.attempt_runs(job, 2)
    assert await stage.node_of(job, 2) != node
    assert "disconnected" in await stage.world.alice.attempt(job, 1)
    assert "node_lost" in await stage.world.alice.reasons(job)
    await stage.hurt("node back", (stage.nomad.begin, node))
    await stage.over(f"{job}-001")
    assert (await stage.world.alice.job(job)).state == "running"
    await stage.world.alice.serai.cancel(job)
    await stage.world.alice.sees(job, "cancelled")


async def test_a_drained_job_moves_and_it_costs_no_retry(stage: Stage) -> None:
    job = await stage.runs("sleep 1000")
    name = await stage.node_of(job)
    node = stage.nomad.node(name)["ID"]
    drain = {"DrainSpec": {"Deadline": 1_000_000_000}}
    await stage.hurt("node drained", (stage.nomad.operator.ask, "POST", f"/v1/node/{node}/drain", drain))
    if await asyncio.to_thread(stage.nomad.operator.version) < DRAINED_WORK_ENDS:

        async def elsewhere() -> bool:
            return await stage.runs_on(job) not in ([], [name])

        await until(elsewhere)
        assert (await stage.world.alice.job(job)).attempt == 1
    else:
        await stage.attempt_runs(job, 2)
        assert "drained" in await stage.world.alice.reasons(job)
        assert await stage.node_of(job, 2) != name
    back = {"DrainSpec": None, "MarkEligible": True}
    await asyncio.to_thread(stage.nomad.operator.ask, "POST", f"/v1/node/{node}/drain", back)
    await stage.world.alice.serai.cancel(job)
    await stage.world.alice.sees(job, "cancelled")


async def test_a_job_that_somebody_purged_has_vanished_and_runs_again(stage: Stage) -> None:
    job = await stage.runs("sleep 3")
    path = f"/v1/job/{job}-001?purge=true&namespace={namespace_of(CLIMATE)}"
    await stage.hurt("job purged", (stage.nomad.operator.ask, "DELETE", path))
    ended = await stage.world.alice.sees(job, "succeeded")
    assert ended.attempt == 2


async def test_what_nomad_collects_as_garbage_has_its_end_already(stage: Stage) -> None:
    job = await stage.submit("echo done")
    await stage.world.alice.sees(job, "succeeded")
    living = await stage.runs("sleep 4")
    await stage.hurt("garbage collected", (stage.nomad.operator.ask, "PUT", "/v1/system/gc"))
    assert (await stage.world.alice.sees(living, "succeeded")).attempt == 1
    assert (await stage.world.alice.job(job)).state == "succeeded"


@pytest.mark.parametrize(("what", "answer"), [("429", TOO_MANY), ("no cluster leader", NO_LEADER)])
async def test_answers_that_say_not_now_are_waited_out(stage: Stage, what: str, answer: bytes) -> None:
    running = await stage.runs("sleep 5")
    stage.faults[what] += 1
    stage.proxy.answer = answer
    stage.proxy.drop()
    waiting = await stage.submit("echo hello")
    await site_is(stage.world.alice, "prague", reachable=False)
    stage.proxy.answer = b""
    assert (await stage.world.alice.sees(running, "succeeded")).attempt == 1
    assert (await stage.world.alice.sees(waiting, "succeeded")).attempt == 1


async def test_what_the_event_buffer_has_lost_meanwhile_is_listed(stage: Stage) -> None:
    jobs = [await stage.runs("sleep 2") for _ in range(4)]
    stage.faults["cut while the buffer was pruned"] += 1
    await stage.proxy.cut()
    path = f"/v1/jobs?namespace={namespace_of(BIO)}"
    for number in range(30):
        strange = {"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}
        group = {"Name": "g", "Count": 0, "Tasks": [strange]}
        spec = {"ID": f"noise-{number}", "Type": "batch", "Namespace": namespace_of(BIO), "TaskGroups": [group]}
        await asyncio.to_thread(stage.nomad.operator.ask, "POST", path, {"Job": spec})

    async def over() -> bool:
        return not await asyncio.to_thread(stage.nomad.running)

    await until(over)
    await stage.proxy.listen()
    for job in jobs:
        ended = await stage.world.alice.sees(job, "succeeded")
        assert ended.attempt == 1


async def test_cuts_at_random_moments_lose_and_double_nothing(stage: Stage) -> None:
    jobs = [await stage.submit(f"sleep {number % 3}") for number in range(12)]
    for _ in range(6):
        stage.faults["connections cut"] += 1
        stage.proxy.drop()
        await pacing.pause(0.4)
    for job in jobs:
        ended = await stage.world.alice.sees(job, "succeeded")
        assert ended.attempt == 1
        await stage.world.alice.timeline(job)


async def test_a_server_that_lost_its_data_begins_anew_and_what_ran_there_runs_again(stage: Stage) -> None:
    """Smaller indexes, no jobs, other keys; the clients are started again and come to a server that is new to them."""
    job = await stage.runs("sleep 4")
    data = Path(stage.nomad.folder / "server" / "data")
    await stage.hurt(
        "server wiped", (stage.nomad.kill, "server"), (shutil.rmtree, data), (stage.nomad.begin, "server"),
        (stage.nomad.make_namespaces,), *((stage.nomad.kill, name) for name in stage.nomad.clients),
        *((stage.nomad.begin, name) for name in stage.nomad.clients),
    )  # fmt: skip
    ended = await stage.world.alice.sees(job, "succeeded")
    assert ended.attempt == 2
    assert "vanished" in await stage.world.alice.reasons(job)
