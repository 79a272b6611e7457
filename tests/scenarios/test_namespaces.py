"""A Nomad namespace for each VO: who is told what while one is missing, and that it is used as soon as it is made."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from services.embedded.sites import BIO, CLIMATE
from shared.namespaces import namespace_of
from tests.scenarios.world import World, a_site, a_world, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The climate VO had a namespace `climate` before; of these sites none has made it."""
    told = {"namespaces": {CLIMATE: "climate"}, "namespaces_s": 0.1}
    sites = a_site("prague"), a_site("lyon")
    quiet = {"relist_interval_s": 600, "namespaces_interval_s": 0.2}
    async with a_world(tmp_path_factory.mktemp("namespaces"), *sites, scheduler=told, monitor=quiet) as up:
        yield up


async def make(world: World, site: str, name: str) -> None:
    """What the site's operator does."""
    async with httpx2.AsyncClient(base_url=world.agents[site].address, trust_env=False) as nomad:
        assert (await nomad.put("/v1/namespace", json={"Name": name})).status_code == 200


async def test_a_job_waits_where_its_namespace_is_missing_and_runs_once_it_is_made(world: World) -> None:
    alice = world.alice
    job = await alice.submit(work("1s"))

    async def told() -> bool:
        return set((await alice.verdicts(job)).values()) == {"namespace_missing"}

    await until(told)
    assert "has no Nomad namespace 'climate'" in (await alice.why(job))["summary"]
    await make(world, "lyon", "climate")
    ended = await alice.sees(job, "succeeded")
    assert ended.site == "lyon"
    assert await alice.since_running(job) == ["running", "succeeded"]


async def test_each_vo_has_its_own(world: World) -> None:
    job = await world.bob.submit(work("0s", at=["prague"], vo=BIO))
    await world.bob.sees(job, "succeeded")
    jobs = world.agents["prague"].region.state.jobs
    assert (namespace_of(BIO), f"{job}-001") in jobs
