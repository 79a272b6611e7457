"""One suite, two agents: `site` is a cluster under test with helpers that read like the tests' sentences."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent import AgentSettings, EmbeddedAgent
from tests.ports.engine.agents import RealNomad, nomad_binary
from tests.ports.engine.site import SiteUnderTest, of_address

REAL = pytest.param("real", marks=[pytest.mark.nomad])


@pytest.fixture(scope="session")
def real_nomad() -> Iterator[RealNomad]:
    yield from _started(guarded=False)


@pytest.fixture(scope="session")
def guarded_nomad() -> Iterator[RealNomad]:
    yield from _started(guarded=True)


def _started(*, guarded: bool) -> Iterator[RealNomad]:
    """The agent runs as another user: its folder is not pytest's, which every pytest closes to others as it starts."""
    if nomad_binary() is None:
        pytest.skip("no nomad on PATH and no NOMAD_BIN: the real Nomad is not tested")
    with tempfile.TemporaryDirectory(prefix="serai-nomad-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        agent = RealNomad(Path(folder), guarded=guarded)
        try:
            yield agent.start()
        finally:
            agent.stop()


@pytest.fixture(params=["embedded", REAL])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SiteUnderTest]:
    """A cluster with one node of 4000 MHz and 2048 MiB, without ACLs."""
    if request.param == "real":
        async with of_address(request.getfixturevalue("real_nomad").address) as found:
            yield found
        return
    agent = EmbeddedAgent(embedded(tmp_path))
    await agent.start()
    try:
        async with of_address(agent.address) as found:
            yield found
    finally:
        await agent.stop()


@pytest.fixture(params=["embedded", REAL])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """(address, good token) of a cluster with ACLs."""
    if request.param == "real":
        nomad: RealNomad = request.getfixturevalue("guarded_nomad")
        yield nomad.address, nomad.token
        return
    agent = EmbeddedAgent(embedded(tmp_path, token="8f6c2f0e-5e39-4c7e-9e0d-0f3b7a6c1d11"))
    await agent.start()
    try:
        yield agent.address, "8f6c2f0e-5e39-4c7e-9e0d-0f3b7a6c1d11"
    finally:
        await agent.stop()


def embedded(folder: Path, **more: Any) -> AgentSettings:
    return AgentSettings(name="embedded", region="embedded", data_dir=folder / "agent", end_tasks_at_stop=True, **more)
