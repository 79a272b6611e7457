"""One suite, two registries: in memory always, on a real Consul with two WAN-joined datacenters where there is one."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.adapters.consul.throwaway import ThrowAwayConsul, datacenters, installed
from tests.ports.registry.worlds import World, addresses, in_memory, on_consul
from tests.simulated_time import Loops, loops

MISSING = "no consul on PATH and no CONSUL_BIN: the registry is not tested on a real Consul"


def pytest_asyncio_loop_factories(config: pytest.Config) -> Loops:
    """In memory nothing is outside the process, so its time is simulated wherever nothing else is run."""
    return loops(simulated=config.option.markexpr == "fast")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def two_datacenters() -> AsyncIterator[dict[str, str]]:
    """Addresses of dc1 and dc2, for tests that harm neither: they live as long as the session."""
    if installed() is None:
        pytest.skip(MISSING)
    async with datacenters(["dc1", "dc2"]) as agents:
        yield addresses(agents)


@pytest.fixture
async def own_datacenters() -> AsyncIterator[dict[str, ThrowAwayConsul]]:
    """dc1 and dc2 of the test alone, to be killed and frozen."""
    if installed() is None:
        pytest.skip(MISSING)
    async with datacenters(["dc1", "dc2"]) as agents:
        yield agents


@pytest.fixture(
    params=[pytest.param("memory", marks=pytest.mark.fast), pytest.param("consul", marks=pytest.mark.consul)]
)
def behind(request: pytest.FixtureRequest) -> dict[str, str] | None:
    """The addresses of the agents, None for the registry in memory."""
    agents: dict[str, str] | None = None if request.param == "memory" else request.getfixturevalue("two_datacenters")
    return agents


@pytest.fixture
async def world(behind: dict[str, str] | None) -> AsyncIterator[World]:
    async with in_memory() if behind is None else on_consul(behind) as made:
        yield made


@pytest.fixture
async def consul_world(two_datacenters: dict[str, str]) -> AsyncIterator[World]:
    async with on_consul(two_datacenters) as made:
        yield made
