"""Streamed answers that break off are not taken for whole, and let go of what they held."""

import asyncio
from collections.abc import AsyncGenerator

import anyio
import httpx2
import pytest
from fastapi import FastAPI

from shared.errors import Unavailable
from shared.runtime import cutting
from shared.runtime.cutting import CuttableResponse
from shared.runtime.in_process import InProcessTransport

pytestmark = pytest.mark.fast


class Source:
    """Chunks without end; knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up takes a turn of the loop
            self.closed.set()


async def test_an_answer_that_breaks_off_is_an_error_for_its_reader() -> None:
    async def breaking() -> AsyncGenerator[bytes]:
        yield b"one"
        raise Unavailable("the site is away")

    app = FastAPI()
    app.add_api_route("/", lambda: CuttableResponse(breaking()))
    async with httpx2.AsyncClient(transport=InProcessTransport(app), base_url="http://service") as http:
        got = []
        with pytest.raises(httpx2.ReadError):
            async with http.stream("GET", "/") as answer:
                async for chunk in answer.aiter_raw():
                    got.append(chunk)
        assert got == [b"one"]


async def test_chunks_come_until_the_service_stops_and_the_source_is_closed() -> None:
    stop, source = asyncio.Event(), Source()

    async def stopping() -> None:
        await stop.wait()

    async with asyncio.timeout(20):
        chunks = cutting.until(stopping, source.chunks())
        assert await anext(chunks) == b"one"
        stop.set()
        with pytest.raises(Unavailable):
            await anext(chunks)
    assert source.closed.is_set()


async def test_a_reader_that_goes_away_under_repeated_cancellation_closes_the_source() -> None:
    """A task group of anyio, as the web framework uses, cancels again at every await until the task has ended."""
    source, reading = Source(), asyncio.Event()

    async def never() -> None:
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in cutting.until(never, source.chunks()):
            reading.set()

    async with asyncio.timeout(20), anyio.create_task_group() as group:
        group.start_soon(read)
        await reading.wait()
        await asyncio.sleep(0)
        group.cancel_scope.cancel()
    assert source.closed.is_set()
