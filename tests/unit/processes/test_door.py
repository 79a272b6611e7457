"""The HTTP face of a process while it starts: alive from the first moment, ready when what it needs has come."""

import asyncio
from typing import Any

import httpx2
import pytest

from shared.errors import Misconfigured, Unavailable
from shared.processes.door import Door

pytestmark = [pytest.mark.fast, pytest.mark.looptime]


class Dependency:
    """Fails in the given ways, one after the other, and then is there."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "found"


async def service(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the service"})


def visitor(door: Door) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(door), base_url="http://serai")


async def until_waiting_for(door: Door, dependency: str, culprit: str) -> None:
    async with asyncio.timeout(60):
        while door.waiting.get(dependency) != culprit:
            await asyncio.sleep(0)


async def test_a_process_is_alive_and_not_ready_before_anything_is_there() -> None:
    async with visitor(Door("monitor")) as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok", "service": "monitor"})
    assert (ready.status_code, ready.json()) == (503, {"status": "starting", "service": "monitor", "checks": {}})


async def test_readiness_names_what_is_waited_for() -> None:
    door = Door("monitor")
    waiting = asyncio.create_task(door.until("bus", Dependency(*[Unavailable("RabbitMQ refuses us")] * 100)))
    await until_waiting_for(door, "bus", "RabbitMQ refuses us")
    async with visitor(door) as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
        other = await client.get("/v1/jobs")
    waiting.cancel()
    assert alive.status_code == 200
    assert (ready.status_code, ready.json()["checks"]) == (503, {"bus": "RabbitMQ refuses us"})
    assert other.status_code == 503 and other.headers["retry-after"] == "2"
    assert other.headers["content-type"] == "application/problem+json"
    assert "/readyz" in other.json()["detail"]


@pytest.mark.parametrize("failure", [Unavailable("is away"), Misconfigured("wrong password")])
async def test_the_door_opens_by_itself_when_the_dependency_comes(failure: Exception) -> None:
    door, database = Door("auth"), Dependency(failure, failure, failure)

    async def start() -> None:
        assert await door.until("database", database) == "found"
        door.open(service)

    starting = asyncio.create_task(start())
    await until_waiting_for(door, "database", str(failure))
    async with visitor(door) as client:
        assert (await client.get("/readyz")).json()["checks"] == {"database": str(failure)}
        async with asyncio.timeout(60):
            await starting
        assert (await client.get("/readyz")).text == "the service"
    assert database.asked == 4 and door.waiting == {}


async def test_a_dependency_that_stays_away_is_asked_ever_more_rarely() -> None:
    door, database = Door("auth"), Dependency(*[Unavailable("is away")] * 1000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await door.until("database", database)
    assert 60 <= database.asked <= 130


async def test_a_mistake_of_ours_is_not_waited_out() -> None:
    with pytest.raises(KeyError):
        await Door("auth").until("database", Dependency(KeyError("x")))
