"""Our own services on a real Consul: copies register with checks, and the others find the healthy ones."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.adapters.consul import ConsulAgent, ConsulServices, Copy
from shared.adapters.consul.throwaway import ThrowAwayConsul, free_ports, installed
from shared.errors import Misconfigured, Unavailable
from shared.runtime.serving import HttpServer
from tests.ports.registry.conftest import MISSING
from tests.ports.registry.worlds import Registered, settings

pytestmark = pytest.mark.consul


class Door:
    """Answers `/readyz` with 200 or 503."""

    def __init__(self) -> None:
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/readyz"
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def agent_in(folder: Path) -> AsyncIterator[ThrowAwayConsul]:
    if installed() is None:
        pytest.skip(MISSING)
    agent = await ThrowAwayConsul.start(folder / "dc1")
    try:
        yield agent
    finally:
        await agent.stop()


@asynccontextmanager
async def services_at(agent: ThrowAwayConsul, *copies: Copy, **more: Any) -> AsyncIterator[ConsulServices]:
    """A process that follows auth, with these copies kept registered."""
    client = ConsulAgent(settings(agent.address, **more))
    services = ConsulServices(client, follow=("auth",), look_s=0.2)
    tasks = [asyncio.create_task(services.run()), *(asyncio.create_task(services.keep(copy)) for copy in copies)]
    try:
        yield services
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()


@asynccontextmanager
async def a_copy(instance: str) -> AsyncIterator[tuple[Door, Copy]]:
    door = Door()
    server = HttpServer(door, "127.0.0.1", free_ports(1)[0])
    await server.start()
    try:
        yield door, Copy("auth", instance, server.address, check_s=0.1, check_timeout_s=1)
    finally:
        await server.stop()


async def until(
    services: ConsulServices, good: Callable[[tuple[str, ...]], bool], within_s: float = 30
) -> tuple[str, ...]:
    async with asyncio.timeout(within_s):
        while not good(services.addresses("auth")):
            await asyncio.sleep(0)
    return services.addresses("auth")


async def told(services: ConsulServices, *, well: bool, within_s: float = 20) -> None:
    """Return when `ready` says so."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await services.ready()
            except Unavailable:
                if not well:
                    return
            else:
                if well:
                    return
            await asyncio.sleep(0)


async def test_copies_find_each_other_while_they_are_healthy(tmp_path: Path) -> None:
    async with (
        agent_in(tmp_path) as agent, a_copy("auth-1") as (door, one), a_copy("auth-2") as (_, two),
        services_at(agent, one, two) as services,
    ):  # fmt: skip
        both = tuple(sorted((one.url, two.url)))
        assert await until(services, lambda found: len(found) == 2) == both
        await services.ready()
        door.status = 503
        assert await until(services, lambda found: len(found) == 1) == (two.url,)
        door.status = 200
        assert await until(services, lambda found: len(found) == 2) == both


async def test_where_no_copy_is_healthy_all_are_told(tmp_path: Path) -> None:
    async with agent_in(tmp_path) as agent, a_copy("auth-1") as (door, one):
        door.status = 503
        async with services_at(agent, one) as services:
            assert await until(services, bool) == (one.url,)


async def test_a_copy_that_stops_is_not_sent_to_any_more(tmp_path: Path) -> None:
    async with (
        agent_in(tmp_path) as agent, a_copy("auth-1") as (_, one), a_copy("auth-2") as (_, two),
        services_at(agent, two) as services,
    ):  # fmt: skip
        await services.register(one)
        await until(services, lambda found: len(found) == 2)
        await services.withdraw(one)
        await until(services, lambda found: found == (two.url,))
        await services.withdraw(one)


async def test_while_consul_is_away_the_last_known_copies_are_told_and_after_it_we_register_again(
    tmp_path: Path,
) -> None:
    async with agent_in(tmp_path) as agent, a_copy("auth-1") as (_, one), services_at(agent, one) as services:
        await until(services, bool)
        await agent.kill()
        await told(services, well=False)
        assert services.addresses("auth") == (one.url,)
        agent.forget()
        await agent.restart()
        await told(services, well=True)
        assert await until(services, bool) == (one.url,)
        behind = Registered({"dc1": agent.address})
        assert await behind.get("dc1", "/v1/agent/services")


async def test_a_forged_copy_outside_our_networks_is_left_out_and_logged_once(tmp_path: Path) -> None:
    async with agent_in(tmp_path) as agent, a_copy("auth-1") as (_, one):
        behind = Registered({"dc1": agent.address})
        async with services_at(agent, one) as services:
            await until(services, bool)
            with capture_logs() as lines:
                for port in (80, 80, 81):
                    await behind.register(
                        "dc1", "x", ID="forged", Name="serai-auth", Address="198.51.100.9", Port=port, Meta={}
                    )
                await behind.register("dc1", "x", ID="true", Name="serai-auth", Address="127.0.0.9", Port=9, Meta={})
                assert await until(services, lambda found: len(found) == 2) == (one.url, "http://127.0.0.9:9")
            ignored = [line["address"] for line in lines if line["event"] == "address_ignored"]
            assert len(ignored) == len(set(ignored)) <= 2 and set(ignored) <= {"198.51.100.9:80", "198.51.100.9:81"}


async def test_what_cannot_be_is_refused_in_words() -> None:
    client = ConsulAgent(settings("http://127.0.0.1:1"))
    services = ConsulServices(client, follow=("auth",))
    with pytest.raises(Misconfigured, match="write http"):
        Copy("auth", "auth-1", "auth:8081/x")
    with pytest.raises(Misconfigured, match="not followed"):
        services.addresses("monitor")
    with pytest.raises(Unavailable, match="has not told where auth is"):
        await services.known("auth", within_s=0.05)
    await services.withdraw(Copy("auth", "auth-1", "http://127.0.0.1:8081"))
    await client.aclose()
