"""Asking one of several copies: in turn, at the next one when nothing was asked yet, and never twice."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest

from shared.errors import Unavailable
from shared.processes.balancing import AnyCopy
from shared.runtime.questions import Questions

pytestmark = pytest.mark.fast

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class ACopy:
    """A listener on loopback that writes down what is asked and answers with fixed bytes; empty = hangs up."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.asked.append(head.split("\r\n")[0])
                self.hosts.extend(line[6:] for line in head.split("\r\n") if line.lower().startswith("host:"))
                writer.write(self.answer)
                await writer.drain()
                if not self.answer:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def copy(answer: bytes = OK) -> AsyncIterator[ACopy]:
    made = ACopy(answer)
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


@contextlib.contextmanager
def nobody() -> "contextlib.AbstractContextManager[str]":  # type: ignore[misc]  # what the decorator makes of it
    """An address that is taken and refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def client(*addresses: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=AnyCopy(lambda: addresses, "scheduler"), base_url="http://scheduler")


async def test_copies_take_turns() -> None:
    async with copy() as first, copy() as second, client(first.url, second.url) as asking:
        for number in range(4):
            await asking.get(f"/{number}")
    assert first.asked == ["GET /0 HTTP/1.1", "GET /2 HTTP/1.1"]
    assert second.asked == ["GET /1 HTTP/1.1", "GET /3 HTTP/1.1"]
    assert set(first.hosts) == {first.url.removeprefix("http://")}


async def test_a_copy_that_refuses_connections_is_passed_over() -> None:
    with nobody() as gone:
        async with copy() as other, client(gone, other.url) as asking:
            for number in range(4):
                assert (await asking.post(f"/{number}", content=b"")).status_code == 200
    assert len(other.asked) == 4


async def test_a_request_that_was_sent_is_never_sent_again() -> None:
    async with copy(b"") as hangs_up, copy() as other, client(hangs_up.url, other.url) as asking:
        with pytest.raises(httpx2.TransportError):
            await asking.get("/1")
    assert hangs_up.asked == ["GET /1 HTTP/1.1"]
    assert other.asked == []


async def test_an_answer_is_an_answer_even_when_the_copy_is_busy() -> None:
    async with copy(BUSY) as busy, copy() as other, client(busy.url, other.url) as asking:
        assert (await asking.get("/1")).status_code == 503
    assert other.asked == []


async def test_when_nobody_can_be_reached_every_copy_that_was_tried_is_named() -> None:
    with nobody() as one, nobody() as two:
        questions = Questions(
            "http://scheduler", "scheduler", "hush", transport=AnyCopy(lambda: [one, two], "scheduler")
        )
        with pytest.raises(Unavailable) as caught:
            await questions.fetch("/internal/x")
        await questions.close()
    assert one in caught.value.what and two in caught.value.what
    assert "scheduler does not answer" in caught.value.what


async def test_where_no_copy_is_known_that_is_said() -> None:
    async with client() as asking:
        with pytest.raises(httpx2.ConnectError, match="no healthy copy of scheduler is known"):
            await asking.get("/1")


async def test_a_copy_that_comes_later_is_asked() -> None:
    known: list[str] = []
    async with (
        copy() as late,
        httpx2.AsyncClient(transport=AnyCopy(lambda: known, "auth"), base_url="http://auth") as asking,
    ):
        with pytest.raises(httpx2.ConnectError):
            await asking.get("/1")
        known.append(late.url)
        assert (await asking.get("/2")).status_code == 200
