"""The gateway of a platform on real parts behind a reverse proxy, as operators run it: by its public name, with clients
told apart by what the trusted proxy says, and nobody believed who only says so.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import pytest_asyncio

from serai.client import Serai
from services.auth.dev_issuer import demo_token
from tests import pacing
from tests.doubles.reverse_proxy import ReverseProxy, reverse_proxy
from tests.system.real.marks import REAL
from tests.system.real.whole import Whole, whole

pytestmark = [mark for mark in REAL if mark.name != "asyncio"] + [pytest.mark.asyncio(loop_scope="module")]

NAME: Final = "jobs.example.org"
MOST: Final = 5
EDGE: Final = {
    "SERAI_EDGE__TRUSTED_PROXIES": '["127.0.0.1/32"]', "SERAI_EDGE__OPEN_OF_ADDRESS": str(MOST),
    "SERAI_EDGE__HSTS_S": "600", "SERAI_GATEWAY_PUBLIC_URL": f"https://{NAME}",
}  # fmt: skip
JOB: Final = {
    "name": "behind", "vo": "vo.climate.example", "command": ["true"],
    "resources": {"cpu": 0.1, "memory": 32, "disk": 10},
}  # fmt: skip


class Entrance:
    """The platform, the proxy before its gateway, and alice's token."""

    def __init__(self, platform: Whole, proxy: ReverseProxy, token: str) -> None:
        self.platform, self.proxy, self.token = platform, proxy, token

    def http(self, **headers: str) -> httpx.AsyncClient:
        """A client that means the public name and comes through the proxy, a connection for each request."""
        sent = {"Host": NAME, "Authorization": f"Bearer {self.token}"} | headers
        return httpx.AsyncClient(base_url=self.proxy.address, headers=sent, trust_env=False, timeout=20)

    def log(self, event: str) -> list[dict[str, Any]]:
        """What the gateway's log says of something."""
        lines = (self.platform.up.folder / "logs" / "gateway-1.log").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def entrance(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Entrance]:
    async with whole(tmp_path_factory.mktemp("proxied"), copies=1, **EDGE) as platform:
        where = urlsplit(platform.up.gateway)
        async with reverse_proxy(where.hostname or "", where.port or 0) as proxy:
            yield Entrance(platform, proxy, await demo_token(platform.up.issuer, "alice"))


async def test_a_job_goes_through_and_so_do_its_events(entrance: Entrance) -> None:
    async with entrance.http() as http:
        answer = await http.post("/v1/jobs", json=JOB)
        assert answer.status_code == 202, answer.text
        assert answer.headers["strict-transport-security"] == "max-age=600"
        path = answer.headers["location"]
        seen: list[str] = []
        async with asyncio.timeout(60), http.stream("GET", f"{path}/events") as events:
            async for line in events.aiter_lines():
                seen += [line.removeprefix("event: ")] if line.startswith("event: ") else []
        assert "job.running" in seen or "job.succeeded" in seen
        assert seen[-1] == "end"
        assert (await http.get(path)).json()["state"] == "succeeded"


async def test_only_our_own_names_are_answered(entrance: Entrance) -> None:
    async with entrance.http(Host="evil.example") as http:
        assert (await http.get("/v1")).status_code == 421
    async with entrance.http() as http:
        assert (await http.get("/v1/nothing")).json()["type"] == f"https://{NAME}/problems/not_found"


async def test_the_log_names_the_client_and_not_the_proxy_nor_what_the_client_claims(entrance: Entrance) -> None:
    entrance.proxy.client = "203.0.113.55"
    async with entrance.http(**{"X-Forwarded-For": "198.51.100.1", "Host": "evil.example"}) as http:
        await http.get("/v1/look-for-me")
    async with asyncio.timeout(20):
        while not (told := [line for line in entrance.log("request_refused") if "look-for-me" in line["path"]]):
            await pacing.pause(0.1)
    assert [line["peer"] for line in told] == ["203.0.113.55"]


async def test_a_client_that_holds_too_much_open_keeps_nobody_else_out(entrance: Entrance) -> None:
    """The services ask each other from the proxy's own address meanwhile, which is trusted and not counted."""
    entrance.proxy.client = "203.0.113.66"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(entrance.http())
        for _ in range(MOST):
            stream = await stack.enter_async_context(http.stream("GET", "/v1/events"))
            assert stream.status_code == 200
        refused = await http.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        entrance.proxy.client = "203.0.113.67"
        assert (await http.get("/v1/jobs")).status_code == 200
        async with Serai(entrance.platform.up.gateway, entrance.token) as direct:
            job = await direct.submit(JOB)
            [ended] = await direct.wait([job.id], timeout_s=60)
            assert ended.state == "succeeded"
    entrance.proxy.client = "203.0.113.66"
    async with entrance.http() as http, asyncio.timeout(20):
        while (await http.get("/v1/jobs")).status_code != 200:
            await pacing.pause(0.1)
