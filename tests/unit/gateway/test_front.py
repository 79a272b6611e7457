"""Jobs are handed in past the framework: what goes wrong there is told as everywhere else."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from services.gateway.front import Front
from shared.errors import Refused, Unavailable
from shared.runtime.in_process import InProcessTransport
from tests.unit.gateway.world import World, a_file

pytestmark = pytest.mark.fast

BASE = "https://serai.example"


def a_front(submit: Callable[[Request], Awaitable[Response]]) -> httpx.AsyncClient:
    nothing = cast(Any, None)
    front = Front(
        FastAPI(), submit, nothing, nothing, nothing, nothing, nothing, span_every=0, problem_base=BASE
    )  # fmt: skip
    return httpx.AsyncClient(transport=InProcessTransport(front), base_url="http://gateway")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("no", code="forbidden"), 403, "forbidden"),
        (Unavailable("away", retry_after_s=7), 503, "unavailable"),
        (ClientDisconnect(), 408, "request_timeout"),
        (ValueError("a secret of ours"), 500, "internal"),
    ],
)
async def test_an_error_is_a_problem_under_the_public_address(error: Exception, status: int, code: str) -> None:
    async def fail(_: Request) -> Response:
        raise error

    async with a_front(fail) as http:
        answer = await http.post("/v1/jobs", json={})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].startswith(BASE)
    assert "secret" not in answer.text
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)


async def test_a_job_handed_in_with_a_parameter_that_nobody_knows_is_refused(world: World) -> None:
    answer = await world.http.post("/v1/jobs?dry_run=1", json=a_file(), headers=world.as_("alice"))
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter")
    assert not world.bus.published


async def test_who_hands_in_a_job_is_told_how_he_stands_with_his_limit(world: World) -> None:
    answer = await world.http.post("/v1/jobs", json=a_file(), headers=world.as_("alice"))
    assert answer.headers["ratelimit-policy"].startswith('"changes"')
    assert "ratelimit" in answer.headers
