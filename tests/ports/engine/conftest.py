"""One suite, three clusters (embedded; real; real with ACLs and TLS): `site` is one, and reads like sentences."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent import AgentSettings, EmbeddedAgent
from shared.adapters.nomad.policies import FINER_SINCE, OLD_SUBMIT, PLAN, Role
from tests.ports.engine.site import SiteUnderTest, of_address, of_region, trusting
from tests.real_nomad import RealNomad, real_nomad

REAL = pytest.param("real", marks=[pytest.mark.nomad])
GUARDED = pytest.param("guarded", marks=[pytest.mark.nomad])


@pytest.fixture(scope="session")
def plain_nomad() -> Iterator[RealNomad]:
    with real_nomad() as region:
        yield region


@pytest.fixture(scope="session")
def guarded_nomad() -> Iterator[RealNomad]:
    """With ACLs and TLS. The site serves any VO whose namespace begins with `vo-`; only this suite asks `plan`."""
    with real_nomad(name="guarded", guarded=True) as region:
        for role in Role:
            region.operator.apply_policy(role, region.operator.policy_for(role, ("default", "vo-*")))
        word = PLAN if region.operator.version() >= FINER_SINCE else OLD_SUBMIT
        plan = [f'namespace "{name}" {{ capabilities = ["{word}"] }}' for name in ("default", "vo-*")]
        region.operator.apply_policy("plan", "\n".join(plan))
        region.tokens[Role.SCHEDULER] = region.operator.make_token("all that is asked here", Role.SCHEDULER, "plan")
        yield region


@pytest.fixture(params=["embedded", REAL, GUARDED])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SiteUnderTest]:
    """A cluster with one node of 4000 MHz and 2048 MiB."""
    async with _site(request, tmp_path) as found:
        yield found


@pytest.fixture(params=["embedded", GUARDED])
async def closed_site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SiteUnderTest]:
    """One whose tasks may read what is their own and nothing else."""
    async with _site(request, tmp_path) as found:
        yield found


@asynccontextmanager
async def _site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SiteUnderTest]:
    if request.param == "guarded":
        async with of_region(request.getfixturevalue("guarded_nomad")) as found:
            yield found
        return
    if request.param == "real":
        async with of_address(request.getfixturevalue("plain_nomad").address) as found:
            yield found
        return
    agent = EmbeddedAgent(embedded(tmp_path))
    await agent.start()
    try:
        async with of_address(agent.address) as found:
            yield found
    finally:
        await agent.stop()


@pytest.fixture(params=["embedded", GUARDED])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """(address, settings with a good token) of a cluster with ACLs."""
    if request.param == "guarded":
        region: RealNomad = request.getfixturevalue("guarded_nomad")
        yield region.address, trusting(region, Role.SCHEDULER) | {"token": region.token}
        return
    good = "8f6c2f0e-5e39-4c7e-9e0d-0f3b7a6c1d11"
    agent = EmbeddedAgent(embedded(tmp_path, token=good))
    await agent.start()
    try:
        yield agent.address, {"token": good}
    finally:
        await agent.stop()


def embedded(folder: Path, **more: Any) -> AgentSettings:
    return AgentSettings(name="embedded", region="embedded", data_dir=folder / "agent", end_tasks_at_stop=True, **more)
