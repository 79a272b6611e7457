"""Several sites on one Nomad cluster, told apart by datacenter and node pool: watched once, all else is by site."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.embedded.sites import BIO, CLIMATE
from shared.namespaces import namespace_of
from tests.between import Between, between
from tests.ports.engine.connections import HALF, MOST
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.test_progress import REPORT
from tests.scenarios.world import World, a_site, a_world, shell, site_is, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLUSTER = "czechia"
PLACES: Mapping[str, Mapping[str, str]] = {
    "prague": {"datacenter": "dc1"},
    "brno": {"datacenter": "dc2"},
    "brno-gpu": {"datacenter": "dc2", "node_pool": "gpu"},
}
CORES = {"prague": 2, "brno": 1, "brno-gpu": 4}
RULES = {"vanish_few": 2, "vanish_window_s": 2}


@dataclass
class Stage:
    """The world and its one cluster, whatever runs it; `nodes_of` names the nodes that an attempt was given.

    `proxy`, where there is one, stands between: it counts connections.
    """

    world: World
    nodes_of: Callable[[str], Awaitable[list[str]]]
    proxy: Between | None = None


def sites() -> list[dict[str, Any]]:
    return [a_site(name, cluster=CLUSTER, cores=CORES[name], **place) for name, place in PLACES.items()]


@asynccontextmanager
async def _embedded(folder: Path) -> AsyncIterator[Stage]:
    async with a_world(folder, *sites(), mock=False, monitor=RULES) as world:

        async def nodes_of(attempt: str) -> list[str]:
            rows = [alloc.row for alloc in world.agents[CLUSTER].region.state.allocs.values()]
            return [row["NodeName"] for row in rows if row["JobID"] == attempt]

        yield Stage(world, nodes_of)


@dataclass(frozen=True, slots=True)
class Counted:
    """The cluster behind the proxy, asked over as many connections as services of their own have: the embedded platform
    has more.
    """

    address: str

    def trusting(self) -> Mapping[str, Any]:
        return {"connections": 2 * HALF}


@asynccontextmanager
async def _real(folder: Path, nomad: RealNomad) -> AsyncIterator[Stage]:
    calls = {"calls_per_cluster": HALF - 1}
    async with (
        between(nomad.address) as proxy,
        a_world(
            folder, *sites(), mock=False, agents={CLUSTER: Counted(proxy.address)}, monitor=RULES, scheduler=calls
        ) as world,
    ):

        async def nodes_of(attempt: str) -> list[str]:
            path = f"/v1/job/{attempt}/allocations?namespace={namespace_of(CLIMATE)}"
            return [row["NodeName"] for row in await asyncio.to_thread(nomad.operator.ask, "GET", path)]

        yield Stage(world, nodes_of, proxy)


@pytest.fixture(scope="module")
def nomad() -> Iterator[RealNomad]:
    """A client for each site."""
    each = {
        name: {
            "datacenter": place["datacenter"],
            "client": {"cpu_total_compute": CORES[name] * 1000, "node_pool": place.get("node_pool", "default")},
        }
        for name, place in PLACES.items()
    }
    names = (namespace_of(CLIMATE), namespace_of(BIO))
    with real_nomad(name=CLUSTER, clients=tuple(PLACES), each=each, namespaces=names) as region:
        yield region


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.nomad)]
)
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("one-cluster")
    if request.param == "embedded":
        async with _embedded(folder) as made:
            yield made
    else:
        async with _real(folder, request.getfixturevalue("nomad")) as made:
            yield made


def at(site: str, script: str = "true", **fields: Any) -> dict[str, Any]:
    return shell(script, placement={"sites": {"allow": [site]}}, **fields)


async def test_each_site_offers_its_own_nodes_and_takes_its_own_jobs(stage: Stage) -> None:
    alice = stage.world.alice
    shown = {name: await site_is(alice, name, cores_total=CORES[name]) for name in PLACES}
    assert {site["cluster"] for site in shown.values()} == {CLUSTER}
    for site in PLACES:
        job = await alice.submit(at(site))
        assert (await alice.sees(job, "succeeded")).site == site
        assert await stage.nodes_of(f"{job}-001") == [site]


async def test_the_cluster_is_watched_once(stage: Stage) -> None:
    tasks = [task for service in stage.world.up.services for task in service.tasks if task.startswith("watch.")]
    assert tasks == [f"watch.{CLUSTER}"]
    if agent := stage.world.agents.get(CLUSTER):
        assert len(agent.streams) == 1


async def test_a_job_at_any_of_them_may_tell_of_its_progress(stage: Stage) -> None:
    """The cluster signs what a job shows as its own, and speaks for all of its sites."""
    if CLUSTER not in stage.world.agents:
        pytest.skip("the proxy before it has another address than the one that signs")
    alice = stage.world.alice
    for site in PLACES:
        job = await alice.submit(at(site, f"{sys.executable} -c '{REPORT}'"))
        await alice.sees(job, "succeeded")
        assert "job.progress" in [event.kind for event in await alice.timeline(job)], site


async def test_verdicts_are_by_site(stage: Stage) -> None:
    """Brno is full and Prague cordoned; neither is said of the others."""
    alice, olga = stage.world.alice, stage.world.olga
    full = (await alice.runs(at("brno", "exec sleep 1000", resources={"cpu": 1, "memory": 32, "disk": 10}))).id
    await olga.serai.cordon("prague", "new switch")
    waiting = await alice.submit(shell("true", placement={"sites": {"allow": ["brno", "prague"]}}))

    async def told() -> bool:
        verdicts = await alice.verdicts(waiting)
        return (verdicts.get("brno"), verdicts.get("prague")) == ("cpu_busy", "cordoned")

    await until(told, f"{await alice.verdicts(waiting)}")
    big = await alice.submit(shell("true", resources={"cpu": 3, "memory": 32, "disk": 10}))
    assert (await alice.sees(big, "succeeded")).site == "brno-gpu", "the only one that is large enough"
    await olga.serai.uncordon("prague")
    assert (await alice.sees(waiting, "succeeded")).site == "prague"
    await alice.serai.cancel(full)
    await alice.sees(full, "cancelled")


async def test_under_load_all_of_them_together_hold_no_more_connections_than_one(stage: Stage) -> None:
    """Jobs for each site, their logs kept at their end, listings twice a second: ten connections and the stream.

    Within one process both services ask how the cluster is over one; auth has one, for the cluster's keys.
    """
    if stage.proxy is None:
        pytest.skip("counted at the real one; tests/ports/engine/test_connections.py counts at an embedded agent")
    alice = stage.world.alice
    jobs = [await alice.submit(at(site, f"echo {number}")) for number in range(12) for site in PLACES]
    for job in jobs:
        await alice.sees(job, "succeeded")
    assert stage.proxy.most <= MOST


async def test_a_token_that_sees_nothing_is_no_death_although_few_vanish_at_each_site(stage: Stage) -> None:
    """Two may vanish and be believed: one at each of three sites of one cluster are three."""
    world, alice = stage.world, stage.world.alice
    if CLUSTER not in world.agents:
        pytest.skip("tokens are narrowed at a real Nomad in test_a_real_nomad_with_tokens.py")
    jobs = [(await alice.runs(at(site, "exec sleep 1000"))).id for site in PLACES]
    for job in jobs:
        await world.fault(CLUSTER, "forget-job", job=f"{job}-001")
    for site in PLACES:
        await site_is(alice, site, suspect=True)
    assert [((await alice.job(job)).state, (await alice.job(job)).attempt) for job in jobs] == [("running", 1)] * 3
    for job in jobs:
        await alice.serai.cancel(job)
        await alice.sees(job, "cancelled")
    for site in PLACES:
        await site_is(alice, site, suspect=False)


async def test_a_node_that_goes_takes_its_own_site_only_and_the_cluster_all_of_them(stage: Stage) -> None:
    world, alice = stage.world, stage.world.alice
    if CLUSTER not in world.agents:
        pytest.skip("what a real Nomad's faults look like is in test_faults_at_a_real_nomad.py")
    await world.fault(CLUSTER, "lose-node", node="brno", after=0.1)
    await site_is(alice, "brno", cores_total=0, reachable=True)
    assert [(await alice.site(name))["cores_total"] for name in ("prague", "brno-gpu")] == [2, 4]
    await world.fault(CLUSTER, "return-node", node="brno")
    await site_is(alice, "brno", cores_total=1)
    await world.go_away(CLUSTER)
    for name in PLACES:
        await site_is(alice, name, reachable=False, health="critical")
    await world.come_back(CLUSTER)
    for name in PLACES:
        await site_is(alice, name, reachable=True, health="passing")
