"""The way to another service: any of its copies in turn, the next one when nothing was asked yet, within its limits."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from shared.errors import Refused, Unavailable
from shared.runtime.questions import Questions
from shared.runtime.ways import AnyCopy, Asked, Lost, NotReached

pytestmark = pytest.mark.fast

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class ACopy:
    """A listener on loopback that writes down what is asked and answers with fixed bytes; empty = hangs up."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self.asked.append(head.split("\r\n")[0])
                self.hosts.extend(line[6:] for line in head.split("\r\n") if line.lower().startswith("host:"))
                if (length := _length(head)) > 0:
                    self.bodies.append(await reader.readexactly(length))
                writer.write(self.answer)
                await writer.drain()
                if not self.answer:
                    break
        writer.close()

    def hang_up(self) -> None:
        """In the middle of whatever was being said."""
        for writer in self._writers:
            writer.close()


def _length(head: str) -> int:
    lines = (line.lower() for line in head.split("\r\n"))
    return next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)


@contextlib.asynccontextmanager
async def copy(answer: bytes = OK, tls: ssl.SSLContext | None = None) -> AsyncIterator[ACopy]:
    made = ACopy(answer)
    server = await asyncio.start_server(made, "127.0.0.1", 0, ssl=tls)
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
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


@contextlib.asynccontextmanager
async def to(*addresses: str, connections: int = 100) -> AsyncIterator[AnyCopy]:
    way = AnyCopy(lambda: addresses, "scheduler", connections=connections)
    try:
        yield way
    finally:
        await way.close()


def asked(method: str = "GET", path: str = "/1", *, body: bytes | None = None, silence_s: float | None = 5) -> Asked:
    return Asked(method, path, {"Serai-Service": "gateway's"}, body, silence_s, 0.01)


async def told(way: AnyCopy, question: Asked) -> tuple[int, bytes]:
    async with way.ask(question) as answer:
        return answer.status, await answer.read()


async def test_copies_take_turns() -> None:
    async with copy() as first, copy() as second, to(first.url, second.url) as way:
        for number in range(4):
            await told(way, asked(path=f"/{number}"))
    assert first.asked == ["GET /0 HTTP/1.1", "GET /2 HTTP/1.1"]
    assert second.asked == ["GET /1 HTTP/1.1", "GET /3 HTTP/1.1"]
    assert set(first.hosts) == {first.url.removeprefix("http://")}
    assert first.connections == 1


async def test_a_copy_that_refuses_connections_is_passed_over() -> None:
    with nobody() as gone:
        async with copy() as other, to(gone, other.url) as way:
            for number in range(4):
                assert (await told(way, asked("POST", f"/{number}", body=b"{}")))[0] == 200
    assert len(other.asked) == 4
    assert other.bodies == [b"{}"] * 4


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_was_sent_is_never_sent_again(method: str) -> None:
    async with copy(b"") as hangs_up, copy() as other, to(hangs_up.url, other.url) as way:
        with pytest.raises(Lost) as lost:
            await told(way, asked(method))
    assert not isinstance(lost.value, NotReached)
    assert hangs_up.asked == [f"{method} /1 HTTP/1.1"]
    assert other.asked == []


async def test_what_may_be_asked_twice_is_asked_once_more_there_when_the_connection_was_closed_just_then() -> None:
    async with copy(b"") as hangs_up, copy() as other, to(hangs_up.url, other.url) as way:
        with pytest.raises(Lost):
            await told(way, asked("GET"))
    assert hangs_up.asked == ["GET /1 HTTP/1.1"] * 2
    assert other.asked == []


async def test_an_answer_is_an_answer_even_when_the_copy_is_busy() -> None:
    async with copy(BUSY) as busy, copy() as other, to(busy.url, other.url) as way:
        assert (await told(way, asked()))[0] == 503
    assert other.asked == []


async def test_nothing_is_followed_kept_or_added() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /2\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with copy(moved) as moving, to(moving.url) as way:
        assert [(await told(way, asked()))[0] for _ in range(2)] == [302, 302]
    names = [{line.split(":")[0].lower() for line in head.split("\r\n")[1:] if line} for head in moving.heads]
    assert names == [{"host", "serai-service"}] * 2


async def test_an_answer_that_does_not_come_or_breaks_off_is_lost() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with copy(half) as silent, to(silent.url) as way:
        with pytest.raises(Lost, match=r"[Tt]imeout"):
            await told(way, asked(silence_s=0.01))
    async with copy(half) as breaking, to(breaking.url) as way:
        pieces = []
        with pytest.raises(Lost):
            async with way.ask(asked(silence_s=None)) as answer:
                async for piece in answer.pieces():
                    pieces.append(piece)
                    breaking.hang_up()
    assert pieces == [b"half"]


async def test_more_questions_than_connections_wait_for_one_and_not_for_ever() -> None:
    async with copy() as one, to(one.url, connections=1) as way:
        async with way.ask(asked()):
            with pytest.raises(Lost, match="no connection came free"):
                await told(way, asked(path="/2"))
        assert (await told(way, asked(path="/3")))[0] == 200
    assert one.asked == ["GET /1 HTTP/1.1", "GET /3 HTTP/1.1"]


async def test_a_certificate_that_nobody_vouches_for_is_no_way() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with copy(tls=context) as stranger, to(stranger.url) as way:
        with pytest.raises(NotReached, match="certificate"):
            await told(way, asked())
    assert stranger.asked == []


async def test_when_nobody_can_be_reached_every_copy_that_was_tried_is_named() -> None:
    with nobody() as one, nobody() as two:
        questions = Questions("http://scheduler", "scheduler", "hush", way=AnyCopy(lambda: [one, two], "scheduler"))
        with pytest.raises(Unavailable) as caught:
            await questions.fetch("/internal/x")
        await questions.close()
    assert one in caught.value.what and two in caught.value.what
    assert "scheduler does not answer" in caught.value.what


@pytest.mark.parametrize(
    ("body", "words"), [(b"[]", "answered 400"), (b"<", "answered 400"), (b'{"detail":"no"}', "no")]
)
async def test_a_refusal_is_raised_whatever_its_body_is(body: bytes, words: str) -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with copy(answer) as refusing:
        questions = Questions(refusing.url, "scheduler", "hush")
        with pytest.raises(Refused, match=words):
            await questions.fetch("/internal/x", params={"after": 3, "name": "a b&c"})
        await questions.close()
    assert refusing.asked == ["GET /internal/x?after=3&name=a+b%26c HTTP/1.1"]


async def test_where_no_copy_is_known_that_is_said() -> None:
    async with to() as way:
        with pytest.raises(NotReached, match="no healthy copy of scheduler is known"):
            await told(way, asked())


async def test_a_copy_that_comes_later_is_asked() -> None:
    known: list[str] = []
    way = AnyCopy(lambda: known, "auth")
    async with copy() as late:
        with pytest.raises(NotReached):
            await told(way, asked())
        known.append(late.url)
        assert (await told(way, asked()))[0] == 200
        await way.close()
