"""Rate limits over HTTP: for each principal and each VO, exact, all or nothing, and told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import func, select

from services.gateway import store
from services.gateway.settings import GatewaySettings
from tests.builders import BOB, VO
from tests.unit.gateway.world import OTHER_VO, World, a_file, a_world, context, restarted

pytestmark = pytest.mark.fast
SMALL: dict[str, Any] = {
    "batch_limit": 5, "rate_reads": "4/minute", "rate_changes": "6/minute", "rate_vo_jobs": "8/minute",
    "rate_strangers": "3/minute",
}  # fmt: skip


@asynccontextmanager
async def limited(folder: Path, **settings: Any) -> AsyncIterator[World]:
    async with a_world(folder, **(SMALL | settings)) as world:
        yield world


async def kept(world: World) -> tuple[int, int]:
    """Jobs and messages that are there."""
    counts = [select(func.count()).select_from(table) for table in (store.jobs, store.runtime.outbox)]
    rows = [await world.store.read(lambda c: c.execute(count).scalar_one()) for count in counts]  # noqa: B023
    return rows[0], rows[1]


async def post(world: World, token: str = "alice", **fields: Any) -> httpx.Response:
    return await world.http.post("/v1/jobs", json=a_file(**fields), headers=world.as_(token))


async def batch(world: World, count: int, token: str = "alice", vo: str = VO, **headers: str) -> httpx.Response:
    jobs = {"jobs": [a_file(vo=vo)] * count}
    return await world.http.post("/v1/jobs:batch", json=jobs, headers=world.as_(token, **headers))


async def test_changes_of_a_principal_to_the_last_one(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        answers = [await post(world) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [202] * 6 + [429]
        assert [answer.headers["ratelimit"] for answer in answers[:6]] == [
            f'"changes";r={left};t={full}' for left, full in zip(range(5, -1, -1), range(10, 70, 10), strict=True)
        ]
        assert await kept(world) == (6, 6)
        assert (await post(world, "carol")).status_code == 202


async def test_a_refusal_says_when_to_come_again_and_that_is_true(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        for _ in range(6):
            await post(world)
        refused = await post(world)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "10"
        assert refused.headers["ratelimit-policy"] == '"changes";q=6;w=60'
        assert refused.headers["ratelimit"] == '"changes";r=0;t=10'
        assert "6 in 60 s" in refused.json()["detail"]
        world.clock.forward(9.999)
        assert (await post(world)).status_code == 429
        world.clock.forward(0.001)
        assert (await post(world)).status_code == 202


async def test_each_job_of_a_batch_counts_and_a_batch_is_let_in_whole_or_not(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        assert (await batch(world, 5)).status_code == 202
        refused = await batch(world, 3)
        assert (refused.status_code, refused.headers["ratelimit"]) == (429, '"changes";r=0;t=20')
        assert await kept(world) == (5, 5)
        assert world.auth.grant_questions == [5]
        world.clock.forward(30)
        assert (await batch(world, 3)).status_code == 202


async def test_a_batch_that_was_taken_is_answered_again_without_being_counted_again(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        first = await batch(world, 4, **{"Idempotency-Key": "k"})
        again = await batch(world, 4, **{"Idempotency-Key": "k"})
        assert (again.status_code, again.json()) == (202, first.json())
        assert (await post(world)).status_code == 202
        assert await kept(world) == (5, 5)


async def test_jobs_of_a_vo_whoever_hands_them_in(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        world.auth.contexts["bob"] = context(BOB)
        assert (await batch(world, 5)).status_code == 202
        refused = await batch(world, 4, "bob")
        assert (refused.status_code, refused.headers["ratelimit-policy"]) == (429, '"vo-jobs";q=8;w=60')
        assert VO in refused.json()["detail"]
        assert (await batch(world, 3, "bob")).status_code == 202
        assert (await batch(world, 5, "stranger", OTHER_VO)).status_code in (202, 429)
        assert (await kept(world))[0] == 8


async def test_putting_under_an_id_counts_once(tmp_path: Path) -> None:
    async with limited(tmp_path, rate_vo_jobs="5/minute") as world:
        for _ in range(5):
            path = f"/v1/jobs/{uuid4()}"
            assert (await world.http.put(path, json=a_file(), headers=world.as_("alice"))).status_code == 202
        refused = await world.http.put(f"/v1/jobs/{uuid4()}", json=a_file(), headers=world.as_("alice"))
        assert refused.headers["ratelimit-policy"] == '"vo-jobs";q=5;w=60'
        world.clock.forward(11)  # alice may change something again, the VO has no room for a job yet
        again = [await world.http.put(path, json=a_file(), headers=world.as_(who)) for who in ("alice", "carol")]
        assert [answer.status_code for answer in again] == [200, 429], "of another's id one hears as of a free one"


async def test_reads_quick_and_slow_from_one_purse(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        job = await world.submit()
        paths = [
            f"/v1/jobs/{job}",
            f"/v1/jobs/{job}/spec",
            f"/v1/jobs/{job}",
            "/v1/jobs",
            f"/v1/jobs/{job}",
            "/v1/whoami",
        ]
        answers = [await world.http.get(path, headers=world.as_("alice")) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert answers[4].headers["ratelimit"] == '"reads";r=0;t=15'
        assert (await post(world)).status_code == 202, "changes have a purse of their own"
        assert (await world.http.get("/v1")).status_code == 200, "what is open is open"


async def test_wrong_requests_count_too(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        answers = [
            await world.http.post(
                "/v1/jobs", content=b"{", headers=world.as_("alice", **{"Content-Type": "application/json"})
            )
            for _ in range(7)
        ]
        assert [answer.status_code for answer in answers] == [400] * 6 + [429]
        assert await kept(world) == (0, 0)


async def test_an_address_that_sends_bad_tokens_waits_and_known_users_there_do_not(tmp_path: Path) -> None:
    async with limited(tmp_path) as world:
        await world.submit()
        for number in range(3):
            answer = await world.http.get("/v1/jobs", headers=world.as_(f"guess-{number}"))
            assert answer.status_code == 401
        asked = world.auth.context_questions
        for token in ("guess-9", "carol"):
            assert (await world.http.get("/v1/jobs", headers=world.as_(token))).status_code == 429
        assert world.auth.context_questions == asked, "auth is spared"
        assert (await world.http.get("/v1/jobs", headers=world.as_("alice"))).status_code == 200
        world.clock.forward(20)
        assert (await world.http.get("/v1/jobs", headers=world.as_("carol"))).status_code == 200


async def test_no_limit_where_none_is_wanted(tmp_path: Path) -> None:
    async with a_world(tmp_path, rate_reads="", rate_changes="", rate_vo_jobs="", rate_strangers="") as world:
        job = await world.submit()
        for _ in range(30):
            answer = await world.http.get(f"/v1/jobs/{job}", headers=world.as_("alice"))
            assert answer.status_code == 200
        assert "ratelimit" not in (await post(world)).headers


async def test_each_copy_counts_for_itself(tmp_path: Path) -> None:
    async with limited(tmp_path) as world, restarted(
        tmp_path, world.auth, world.owners, world.bus, world.clock, shared_store=world.store, **SMALL
    ) as other:  # fmt: skip
        for copy in (world, other):
            assert [(await post(copy)).status_code for _ in range(6)] == [202] * 6
            assert (await post(copy)).status_code == 429


def test_a_batch_must_fit() -> None:
    with pytest.raises(ValidationError, match="batch"):
        GatewaySettings(service_token=SecretStr(""), rate_changes="999/minute")
    with pytest.raises(ValidationError, match="100/second"):
        GatewaySettings(service_token=SecretStr(""), rate_reads="often")
