"""A real Nomad of three servers under the whole platform: leadership moves, the majority is lost and comes back."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from services.embedded.sites import BIO, CLIMATE
from shared.namespaces import namespace_of
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.world import World, a_site, a_world, shell, site_is

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nomad]

SERVERS = ("first", "second", "third")


@pytest.fixture(scope="module")
def nomad() -> Iterator[RealNomad]:
    names = (namespace_of(CLIMATE), namespace_of(BIO))
    with real_nomad(name="prague", servers=SERVERS, namespaces=names) as region:
        yield region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(nomad: RealNomad, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The platform knows the first server only."""
    folder, quick = tmp_path_factory.mktemp("three"), {"probe_interval_s": 0.5, "probe_timeout_s": 2}
    async with a_world(folder, a_site("prague"), mock=False, agents={"prague": nomad}, monitor=quick) as up:
        yield up


async def test_a_leadership_that_moves_costs_nothing(world: World, nomad: RealNomad) -> None:
    alice, ask = world.alice, nomad.operator.ask
    running = await alice.submit(shell("sleep 4"))
    await alice.sees(running, "running")
    for _ in range(2):
        peers = (await asyncio.to_thread(ask, "GET", "/v1/operator/raft/configuration"))["Servers"]
        other = next(peer["ID"] for peer in peers if not peer["Leader"])
        await asyncio.to_thread(ask, "PUT", f"/v1/operator/raft/transfer-leadership?id={other}")
        job = await alice.submit(shell("echo hello"))
        assert (await alice.sees(job, "succeeded")).attempt == 1
    assert (await alice.sees(running, "succeeded")).attempt == 1


async def test_without_a_leader_the_site_is_unreachable_and_what_was_asked_meanwhile_happens_once(
    world: World, nomad: RealNomad
) -> None:
    alice = world.alice
    running = await alice.submit(shell("sleep 15"))
    await alice.sees(running, "running")
    for name in SERVERS[1:]:
        await asyncio.to_thread(nomad.kill, name)
    waiting = await alice.submit(shell("echo hello"))
    await site_is(alice, "prague", reachable=False)
    assert (await alice.job(running)).state == "running"
    for name in SERVERS[1:]:
        await asyncio.to_thread(nomad.begin, name)
    await site_is(alice, "prague", reachable=True)
    for job in (waiting, running):
        assert (await alice.sees(job, "succeeded")).attempt == 1
        path = f"/v1/job/{job}-001/allocations?namespace={namespace_of(CLIMATE)}"
        assert len(await asyncio.to_thread(nomad.operator.ask, "GET", path)) == 1
