"""How many connections a cluster sees, whatever is asked of it at a time; and what never waits behind other work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.embedded.agent import EmbeddedAgent
from shared.adapters.nomad import NomadCluster
from shared.adapters.nomad.http import Lasting, NomadHttp
from shared.errors import Unavailable
from tests.ports.engine.conftest import embedded
from tests.ports.engine.connections import asked_for_much_at_a_time
from tests.ports.engine.site import opened

SOON_S = 3.0
SMALL = {"connections": 4, "log_connections": 1}
"""One call of each service at a time."""


async def test_ten_and_one_at_most(tmp_path: Path) -> None:
    agent = EmbeddedAgent(embedded(tmp_path))
    await agent.start()
    try:
        await asked_for_much_at_a_time(agent.address)
    finally:
        await agent.stop()


@asynccontextmanager
async def dawdler() -> AsyncIterator[str]:
    """A cluster that says at once that it is well, begins every other answer, and never ends one. Its address."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            well = b" /v1/agent/health" in request
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + (b"2\r\n\r\n{}" if well else b"9\r\n\r\n{}"))
            await writer.drain()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(talk(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for each in talks:
            each.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@asynccontextmanager
async def a_small_cluster() -> AsyncIterator[NomadCluster]:
    async with dawdler() as address:
        cluster = opened(address, **SMALL)
        try:
            yield cluster
        finally:
            await cluster.aclose()


async def test_load_is_not_taken_for_silence() -> None:
    async with a_small_cluster() as cluster:
        busy = [asyncio.create_task(cluster.watch.job_meta("any", "default")) for _ in range(3)]
        done, _ = await asyncio.wait(busy, timeout=0.2)
        assert not done, "they wait for answers that do not end, and for the connection that waits for them"
        async with asyncio.timeout(SOON_S):
            assert await cluster.healthy()
        for each in busy:
            each.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_followed_logs_keep_neither_calls_nor_the_event_stream_out() -> None:
    async with dawdler() as address:
        http = NomadHttp(opened(address, **SMALL).settings, 1)
        async with asyncio.timeout(2 * SOON_S), http.open("/log", {}, silence_s=9, lasting=Lasting.FOLLOWED_LOG):
            with pytest.raises(Unavailable):
                async with http.open("/another", {}, silence_s=9, lasting=Lasting.FOLLOWED_LOG):
                    pass
            async with http.open("/events", {}, silence_s=9, lasting=Lasting.EVENTS):
                await http.get("/v1/agent/health")
        await http.aclose()


@asynccontextmanager
async def hasty() -> AsyncIterator[str]:
    """A cluster that answers each connection once and then closes it, though it has promised to keep it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_kept_connection_that_the_cluster_has_closed_is_no_fault_of_the_next_call() -> None:
    async with hasty() as address:
        http = NomadHttp(opened(address, **SMALL).settings, 1)
        async with asyncio.timeout(SOON_S):
            for _ in range(20):
                assert (await http.get("/v1/agent/health")).body == b"{}"
        await http.aclose()


async def test_an_answer_that_is_not_read_to_its_end_leaves_its_place_to_the_next() -> None:
    async with dawdler() as address:
        http = NomadHttp(opened(address, **SMALL).settings, 1)
        async with asyncio.timeout(SOON_S):
            for _ in range(3):
                async with http.open("/log", {}, silence_s=9) as pieces:
                    assert await anext(pieces) == b"{}"
            assert (await http.get("/v1/agent/health")).body == b"{}"
        await http.aclose()
