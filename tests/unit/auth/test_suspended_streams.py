"""What the gateway makes of suspensions on open streams, and of requests that carry two tokens."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2 as httpx
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


async def test_h1_two_tokens_in_one_request_are_refused_by_the_gateway(world: World) -> None:
    """On the quick path, where the job and its reader are known already, and on the long one."""
    path = f"/v1/jobs/{await world.submit()}"
    assert (await world.http.get(path, headers=world.as_("alice"))).status_code == 200
    for second in ("bob", "alice", ""):
        headers = httpx.Headers([("Authorization", "Bearer alice"), ("Authorization", f"Bearer {second}")])
        for where in (path, "/v1/jobs", "/v1/whoami"):
            assert (await world.http.get(where, headers=headers)).status_code in (400, 422)
        assert (await world.http.post("/v1/jobs", json={}, headers=headers)).status_code in (400, 422)
    in_both = await world.http.get("/v1/whoami?access_token=alice", headers=world.as_("alice"))
    assert in_both.status_code in (400, 422)
