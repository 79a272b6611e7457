"""An open event stream of somebody who is suspended ends within five seconds, not with its next heartbeat."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts.suspensions import TrustState
from tests.unit.gateway.test_streams import queued
from tests.unit.gateway.world import World, a_world

pytestmark = pytest.mark.fast


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def test_a_stream_ends_within_five_seconds_of_a_suspension(world: World) -> None:
    state = {"version": 1}

    async def trust() -> TrustState:
        return TrustState(version=state["version"])

    world.auth.app.add_api_route("/internal/trust", trust)
    world.clock.forward(3)
    job_id = await world.submit()
    async with world.stream("/v1/events") as frames:
        await world.tell(queued(job_id))
        assert (await frames.next()).event == "job.queued"
        del world.auth.contexts["alice"]
        state["version"] = 2
        world.clock.forward(5)
        await world.tell(queued(await world.submit("bob")))
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "unauthenticated"})
