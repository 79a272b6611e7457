"""What the gateway makes of suspensions on open streams, and of requests that carry two tokens."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.requests import Request

from shared.contracts.events import JobPlaced
from shared.contracts.suspensions import TrustState
from tests.builders import NOON
from tests.doubles.answering import add
from tests.unit.gateway.test_streams import queued
from tests.unit.gateway.world import CAROL, OTHER_VO, World, a_world, context, job_event

pytestmark = pytest.mark.fast


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


class Trust:
    """What auth says of trust: another version with every suspension."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = 1
        add(world.auth.app, ("GET", "/internal/trust", self.state))
        world.clock.forward(3)

    async def state(self, request: Request) -> TrustState:
        return TrustState(version=self._version)

    def changed(self) -> None:
        """Something was suspended, five seconds ago."""
        self._version += 1
        self._world.clock.forward(5)


async def test_a_stream_ends_within_five_seconds_of_a_suspension(world: World) -> None:
    trust, job_id = Trust(world), await world.submit()
    async with world.stream("/v1/events") as frames:
        await world.tell(queued(job_id))
        assert (await frames.next()).event == "job.queued"
        del world.auth.contexts["alice"]
        trust.changed()
        await world.tell(queued(await world.submit("bob")))
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "unauthenticated"})


async def test_a_stream_tells_nothing_of_a_suspended_membership_although_its_token_is_busy_elsewhere(
    world: World,
) -> None:
    """Another request with the same token learns of the suspension first; the stream must learn of it as well."""
    trust, here = Trust(world), world.auth.contexts["carol"].memberships[0]
    there = here.model_copy(update={"vo": OTHER_VO})
    world.auth.contexts["carol"] = context(CAROL).model_copy(update={"memberships": (here, there)})
    async with world.stream("/v1/events", "carol") as frames:
        await world.tell(queued(await world.submit()))
        assert (await frames.next()).event == "job.queued"
        world.auth.contexts["carol"] = context(CAROL).model_copy(update={"memberships": (there,)})
        trust.changed()
        assert len((await world.http.get("/v1/whoami", headers=world.as_("carol"))).json()["memberships"]) == 1
        other = await world.submit("stranger", vo=OTHER_VO)
        await world.tell(queued(await world.submit()), queued(other))
        assert (await frames.next()).data["data"]["job_id"] == other


async def test_a_stream_ends_when_auth_has_been_away_for_longer_than_reads_go_on_without_it(world: World) -> None:
    async with world.stream("/v1/events") as frames:
        job_id = await world.submit()
        world.auth.away = True
        world.clock.forward(500)
        await world.tell(queued(job_id))
        assert (await frames.next()).event == "job.queued"
        world.clock.forward(200)
        await world.tell(job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "unavailable"})


@pytest.mark.parametrize("why", ["suspended", "expired", "no_manager_any_more", "away"])
async def test_a_followed_log_is_cut_when_its_reader_may_not_read_it_any_more(world: World, why: str) -> None:
    trust, job_id = Trust(world), await world.submit("bob")
    world.owners.log_lines = [b"hello\n"]
    await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    path = f"/v1/jobs/{job_id}/logs?follow=true"
    async with asyncio.timeout(20), world.http.stream("GET", path, headers=world.as_("carol")) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"hello\n"
        match why:
            case "suspended":
                del world.auth.contexts["carol"]
                trust.changed()
            case "expired":
                world.clock.now = NOON + timedelta(hours=1)
            case "no_manager_any_more":
                member = world.auth.contexts["alice"].memberships
                world.auth.contexts["carol"] = world.auth.contexts["carol"].model_copy(update={"memberships": member})
                trust.changed()
            case _:
                world.auth.away = True
                world.clock.forward(700)
        await world.tell(job_event(JobPlaced, job_id, 3, attempt=2, site="prague"))
        with pytest.raises(httpx.TransportError):
            await anext(chunks)


async def test_a_long_poll_is_answered_by_what_its_caller_may_see_when_it_is_answered(world: World) -> None:
    trust, job_id = Trust(world), await world.submit()
    await world.tell(queued(job_id))
    etag = (await world.http.get(f"/v1/jobs/{job_id}", headers=world.as_("alice"))).headers["etag"]
    headers, before = world.as_("carol", **{"Prefer": "wait=30", "If-None-Match": etag}), world.auth.context_questions
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(world.http.get(f"/v1/jobs/{job_id}", headers=headers))
        await world.until(lambda: _asked_since(world, before))
        del world.auth.contexts["carol"]
        trust.changed()
        await world.tell(job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
        assert (await waiting).status_code == 401


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


async def _asked_since(world: World, before: int) -> bool:
    return world.auth.context_questions > before
