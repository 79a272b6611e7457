"""One suite, two agents: `site` is a cluster under test with helpers that read like the tests' sentences."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent import AgentSettings, EmbeddedAgent
from tests.ports.engine.agents import RealNomad, nomad_binary
from tests.ports.engine.site import SiteUnderTest, of_address

REAL = pytest.param("real", marks=[pytest.mark.nomad])


@pytest.fixture(scope="session")
def real_nomad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNomad]:
    yield from _started(tmp_path_factory, guarded=False)


@pytest.fixture(scope="session")
def guarded_nomad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNomad]:
    yield from _started(tmp_path_factory, guarded=True)


def _started(folders: pytest.TempPathFactory, *, guarded: bool) -> Iterator[RealNomad]:
    if nomad_binary() is None:
        pytest.skip("no nomad on PATH and no NOMAD_BIN: the real Nomad is not tested")
    folder = folders.mktemp("guarded" if guarded else "nomad")
    _open_to_all(folder)
    agent = RealNomad(folder, guarded=guarded)
    try:
        yield agent.start()
    finally:
        agent.stop()


def _open_to_all(folder: Path) -> None:
    """The agent runs as another user, who must be able to walk to its folder."""
    for place in (folder, *folder.parents[:3]):
        if place.owner() != "root" or str(place) == "/tmp":
            break
        place.chmod(0o755)


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
