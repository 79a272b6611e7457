"""H5: how much one address may have open, byte by byte on real sockets, with and without a proxy in front."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.runtime.edge.crowd import client_of
from tests.wire import Served, Wire, request, served

MOST = 3
PROXY: dict[str, Any] = {"trusted_proxies": ("127.0.0.1/32",)}


class Slow:
    """An app whose every answer waits until it may go."""

    def __init__(self) -> None:
        self.go, self.waiting = asyncio.Event(), 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.waiting += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def has(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.waiting < count:
                await asyncio.sleep(0)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def gateway(slow: Slow) -> AsyncIterator[Served]:
    async with served(slow, open_of_address=MOST) as made:
        yield made


@pytest.fixture
async def behind(slow: Slow) -> AsyncIterator[Served]:
    async with served(slow, open_of_address=MOST, **PROXY) as made:
        yield made


def forwarded(address: str) -> bytes:
    return request("GET", "/", f"X-Forwarded-For: {address}")


async def test_h5_one_address_has_so_many_connections_and_no_more(gateway: Served, slow: Slow) -> None:
    slow.go.set()
    held = [await gateway.connect() for _ in range(MOST)]
    for wire in held:
        wire.send(request("GET", "/"))
        assert (answer := await wire.answer()) is not None and answer.status == 204
    refused = await gateway.ask(request("GET", "/"))
    assert refused is not None and (refused.status, refused.code) == (429, "too_many_requests")
    assert (refused.header("retry-after"), refused.header("connection")) == ("1", "close")
    held[0].send(request("GET", "/"))
    assert (answer := await held[0].answer()) is not None and answer.status == 204, "those that are open go on"
    await held[0].close()
    assert await served_again(gateway)


async def served_again(gateway: Served) -> bool:
    """Once the other side has noticed that a connection is gone."""
    async with asyncio.timeout(10):
        while (answer := await gateway.ask(request("GET", "/"))) is None or answer.status != 204:
            await asyncio.sleep(0)
    return True


async def test_h5_silent_connections_count_too(gateway: Served, slow: Slow) -> None:
    for _ in range(MOST):
        await gateway.connect()
    refused = await gateway.ask(request("GET", "/"))
    assert refused is not None and refused.status == 429
    assert slow.waiting == 0, "the app was never asked"


async def test_h5_a_stranger_does_not_get_more_by_naming_others(gateway: Served) -> None:
    for number in range(MOST):
        (await gateway.connect()).send(forwarded(f"203.0.113.{number}"))
    refused = await gateway.ask(forwarded("203.0.113.77"))
    assert refused is not None and refused.status == 429


async def test_h5_behind_a_proxy_each_client_has_so_many_requests_and_the_proxy_any(behind: Served, slow: Slow) -> None:
    mine: list[Wire] = []
    for _ in range(MOST):
        mine.append(await behind.connect())
        mine[-1].send(forwarded("203.0.113.9"))
    await slow.has(MOST)
    refused = await behind.ask(forwarded("198.51.100.1, 203.0.113.9"))
    assert refused is not None and (refused.status, refused.header("retry-after")) == (429, "1")
    others = [await behind.connect() for _ in range(2 * MOST)]
    for number, wire in enumerate(others):
        wire.send(forwarded(f"203.0.113.{100 + number}"))
    await slow.has(3 * MOST)
    slow.go.set()
    for wire in (*mine, *others):
        assert (answer := await wire.answer()) is not None and answer.status == 204
    mine[0].send(forwarded("203.0.113.9"))
    assert (answer := await mine[0].answer()) is not None and answer.status == 204, "its requests have ended"


async def test_h5_what_breaks_off_is_not_counted_for_ever(behind: Served, slow: Slow) -> None:
    for _ in range(MOST):
        wire = await behind.connect()
        wire.send(forwarded("203.0.113.9"))
        await wire.close()
    slow.go.set()
    async with asyncio.timeout(10):
        while (answer := await behind.ask(forwarded("203.0.113.9"))) is None or answer.status != 204:
            await asyncio.sleep(0)


async def test_h5_no_bound_is_no_bound(slow: Slow) -> None:
    slow.go.set()
    async with served(slow, open_of_address=0) as gateway:
        for _ in range(50):
            assert (answer := await gateway.ask(request("GET", "/"))) is not None and answer.status == 204


@pytest.mark.fast
@pytest.mark.parametrize(("one", "other", "same"), [
    ("203.0.113.9", "203.0.113.9", True), ("203.0.113.9", "203.0.113.10", False),
    ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True), ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ("::ffff:203.0.113.9", "203.0.113.9", True), ("fe80::1%eth0", "fe80::2%eth0", True), ("nobody", "nobody", True),
])  # fmt: skip
def test_h5_whoever_has_one_address_of_a_network_has_all_of_it(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same
