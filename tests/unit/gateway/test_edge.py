"""H1 to H10: attacks on the HTTP edge, sent byte by byte to the gateway behind a real socket.

Wherever it can be, the attack carries a job that would be taken in if the trick worked; after each test nothing may be
left behind: no row, no message, no question to auth that would have granted it.
"""

import asyncio
import gzip
import io
import json
import logging
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import func, select

from services.gateway import store
from shared.runtime import logs
from tests import pacing
from tests.unit.gateway.world import World, a_file, a_world
from tests.wire import Answer, Served, Wire, request, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = orjson.dumps(a_file())
TOKEN = "Authorization: Bearer alice"
JSON = "Content-Type: application/json"
SUBMIT = request("POST", "/v1/jobs", TOKEN, JSON, body=JOB)
TIMES: dict[str, Any] = {"head_s": 0.2, "body_s": 0.3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with a_world(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(world: World) -> AsyncIterator[Served]:
    """The gateway as it is served, with the bounds as shipped."""
    async with served(world.service.app) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left_behind(world: World) -> AsyncIterator[None]:
    world.auth.grant_questions.clear()
    yield
    for table in (store.jobs, store.labels, store.idempotency, store.runtime.outbox):
        count = select(func.count()).select_from(table)
        rows = await world.store.read(lambda connection: connection.execute(count).scalar())  # noqa: B023
        assert rows == 0, f"{table.name} has rows"
    assert world.bus.published == []
    assert world.auth.grant_questions == []


async def refused(gateway: Served, *sent: bytes) -> Answer:
    """The answer to an attack; there must be one, and it must be a problem document."""
    answer = await gateway.ask(*sent)
    assert answer is not None, "no answer"
    assert answer.header("content-type") == "application/problem+json", answer
    return answer


# -- H1, H2: one reading of a request -----------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["Bearer alice", "Bearer carol", "Basic YTpi"])
async def test_h1_two_authorization_headers_are_one_too_many(gateway: Served, again: str) -> None:
    sent = request("POST", "/v1/jobs", TOKEN, f"Authorization: {again}", JSON, body=JOB)
    assert (await refused(gateway, sent)).status == 400


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(JOB), JOB)
POST = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN}\r\n{JSON}\r\n".encode()
SMUGGLED: dict[str, bytes] = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
    "two lengths": POST + b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n" % len(JOB) + JOB,
    "the same length twice": POST + b"Content-Length: %d\r\n" % len(JOB) * 2 + b"\r\n" + JOB,
    "a list of lengths": POST + b"Content-Length: %d, %d\r\n\r\n" % (len(JOB), len(JOB)) + JOB,
    "a length with a sign": POST + b"Content-Length: +%d\r\n\r\n" % len(JOB) + JOB,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + JOB,
    "a length in hex": POST + b"Content-Length: 0x%x\r\n\r\n" % len(JOB) + JOB,
    "a length without end": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + JOB,
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "an encoding nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "compressed chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked, then not": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "a vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + CHUNKED,
    "a folded header": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "lines that end in LF": (POST + b"Transfer-Encoding: chunked\r\n\r\n").replace(b"\r\n", b"\n") + CHUNKED,
    "a bare CR": POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "NUL in a header": POST + b"X: a\0b\r\nContent-Length: %d\r\n\r\n" % len(JOB) + JOB,
    "a header without a name": POST + b": x\r\nContent-Length: %d\r\n\r\n" % len(JOB) + JOB,
    "a space in a name": POST + b"X Y: z\r\nContent-Length: %d\r\n\r\n" % len(JOB) + JOB,
    "chunks in HTTP/1.0": POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "HTTP/0.9": b"GET /v1/jobs\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("160301020001"),
    "a method that nobody knows": SUBMIT.replace(b"POST", b"PXST"),
    "a tunnel": request("CONNECT", "127.0.0.1:22", TOKEN),
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
async def test_h2_what_two_readers_could_read_differently_is_refused(gateway: Served, name: str) -> None:
    answer = await refused(gateway, SMUGGLED[name])
    assert (answer.status, answer.header("connection")) in ((400, "close"), (413, "close"))


CHUNKS: dict[str, bytes] = {
    "no number": b"zz\r\n" + JOB + b"\r\n0\r\n\r\n",
    "a negative number": b"-1\r\n" + JOB + b"\r\n0\r\n\r\n",
    "a number in hex notation": b"0x10\r\n" + JOB + b"\r\n0\r\n\r\n",
    "a number without end": b"f" * 40 + b"\r\n" + JOB,
    "too short": b"2\r\n" + JOB + b"\r\n0\r\n\r\n",
    "ended by LF": CHUNKED.replace(b"\r\n", b"\n"),
    "space before the number": b" " + CHUNKED,
}


@pytest.mark.parametrize("name", CHUNKS)
async def test_h2_chunks_that_make_no_sense(gateway: Served, name: str) -> None:
    answer = await refused(gateway, POST, b"Transfer-Encoding: chunked\r\n\r\n", CHUNKS[name])
    assert (answer.status, answer.header("connection")) == (400, "close")


async def test_h2_a_request_hidden_behind_a_refused_one_is_not_answered(gateway: Served) -> None:
    wire = await gateway.connect()
    wire.send(SMUGGLED["length and chunks"], SUBMIT, SUBMIT)
    answer = await wire.answer()
    assert answer is not None
    assert answer.status == 400
    assert await wire.closed()


async def test_h2_a_refusal_never_takes_the_place_of_an_earlier_answer(gateway: Served) -> None:
    wire = await gateway.connect()
    wire.send(request("GET", "/v1/jobs", TOKEN), SMUGGLED["two lengths"])
    first = await wire.answer()
    assert first is not None
    assert (first.status, first.json) == (200, {"items": [], "next": None})
    assert await wire.closed()


async def test_h2_what_comes_as_a_trailer_is_no_header(gateway: Served) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    body = CHUNKED[:-2] + f"{TOKEN}\r\n\r\n".encode()
    assert (await refused(gateway, head, b"Transfer-Encoding: chunked\r\n\r\n", body)).status == 401


async def test_h2_nobody_is_upgraded_and_what_follows_an_upgrade_is_not_read(gateway: Served) -> None:
    for protocol in ("h2c", "websocket"):
        wire = await gateway.connect()
        wire.send(request("GET", "/v1", "Connection: Upgrade", f"Upgrade: {protocol}"), SUBMIT)
        answer = await wire.answer()
        assert answer is not None
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await wire.closed()


# -- H3: whom it is meant for -------------------------------------------------------------------------------------

HOSTS: dict[str, tuple[list[str], int]] = {
    "none": ([], 400),
    "empty": (["Host:"], 400),
    "two": (["Host: 127.0.0.1", "Host: evil.example"], 400),
    "the same twice": (["Host: 127.0.0.1", "Host: 127.0.0.1"], 400),
    "a foreign name": (["Host: evil.example"], 421),
    "a foreign name with our port": (["Host: evil.example:8080"], 421),
    "loopback as a part of a name": (["Host: 127.0.0.1.evil.example"], 421),
    "localhost as a part of a name": (["Host: localhost.evil.example"], 421),
    "an address of somebody else": (["Host: 192.0.2.7"], 421),
    "a path in it": (["Host: 127.0.0.1/v1/jobs"], 400),
    "a query in it": (["Host: 127.0.0.1?x="], 400),
    "a user in it": (["Host: alice@127.0.0.1"], 400),
    "a list": (["Host: 127.0.0.1, evil.example"], 400),
    "a space": (["Host: 127.0.0.1 evil.example"], 400),
    "no port": (["Host: 127.0.0.1:http"], 400),
    "a port too high": (["Host: 127.0.0.1:65536"], 400),
    "an address that is none": (["Host: [::1::1]"], 400),
}


@pytest.mark.parametrize("name", HOSTS)
async def test_h3_a_request_that_is_not_clearly_for_us(gateway: Served, name: str) -> None:
    headers, status = HOSTS[name]
    answer = await refused(gateway, request("POST", "/v1/jobs", *headers, TOKEN, JSON, body=JOB, host=None))
    assert answer.status == status
    assert b"Location" not in answer.body


@pytest.mark.parametrize(
    "target", ["http://evil.example/v1/jobs", "http://127.0.0.1/v1/jobs", "//evil.example/v1/jobs"]
)
async def test_h3_an_address_in_the_request_line(gateway: Served, target: str) -> None:
    assert (await refused(gateway, request("POST", target, TOKEN, JSON, body=JOB))).status in (400, 404)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:80", "localhost."]
)
async def test_h3_newcomers_reach_it_by_every_name_of_their_own_machine(gateway: Served, host: str) -> None:
    answer = await gateway.ask(request("GET", "/v1", host=host))
    assert answer is not None
    assert answer.status == 200


async def test_h3_operators_name_the_hosts(world: World) -> None:
    async with served(world.service.app, allowed_hosts=("jobs.example.org", "*.serai.example")) as gateway:
        for host, status in (("jobs.example.org", 200), ("a.serai.example", 200), ("serai.example", 421)):
            answer = await gateway.ask(request("GET", "/v1", host=host))
            assert answer is not None
            assert answer.status == status, host


# -- H4: paths ----------------------------------------------------------------------------------------------------

ID = "2c6b5729-a62e-461d-9654-c5705ee7d17a"
PATHS = [
    "/v1/../v1/jobs", "/v1/./jobs", "/v1//jobs", "//v1/jobs", "/v1/jobs/", "/v1/%2e%2e/v1/jobs", "/v1/jobs/..",
    "/v1/jobs/%2e%2e", "/v1/jobs/%2E%2E%2Finternal", "/v1%2fjobs", "/v1/jobs%2f", "/v1/jobs/%252e%252e",
    "/v1/jobs/%00", f"/v1/jobs/{ID}%00", f"/v1/jobs/{ID}%0d%0aX:%20y", f"/v1/jobs/{ID}%0a", f"/v1/jobs/{ID}/",
    f"/v1/jobs/{ID}/outputs/..%2f..%2fetc%2fpasswd", f"/v1/jobs/{ID}/outputs/%2e%2e", "/v1/jobs/..\\..",
    "/v1/jobs/%5c..%5c", "/v1/jobs/%c0%ae%c0%ae", "/v1/jobs/%ff", "/v1/jobs/%zz", "/v1/jobs/%", "/v1/jobs/%7f",
    "/v1/jobs;x=y", "/v1/jobs:batch/..", f"/v1/jobs/{ID.upper()}x", "/internal/context", "/v1/internal/jobs",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_h4_a_path_has_one_spelling(gateway: Served, path: str, method: str) -> None:
    body = JOB if method == "PUT" else b""
    answer = await refused(gateway, request(method, path, TOKEN, JSON, body=body))
    assert (answer.status, answer.code) == (404, "not_found")


async def test_h4_a_colon_may_be_encoded(gateway: Served) -> None:
    answer = await refused(gateway, request("POST", "/v1/jobs%3Abatch", TOKEN, JSON, body=b"{}"))
    assert answer.status == 422


@pytest.mark.parametrize("query", ["vo=%00", "label=a%0d%0a:b", "site=%1b[31m", "vo=%7F"])
async def test_h4_no_control_characters_in_a_query(gateway: Served, query: str) -> None:
    assert (await refused(gateway, request("GET", f"/v1/jobs?{query}", TOKEN))).status == 400


@pytest.mark.parametrize("target", ["/v1/jobs?\u00e9", "/v1/jobs/\u00e9", "/v1/jobs?a b", "v1/jobs", "/v1/jobs\x7f"])
async def test_h4_a_target_that_is_none(gateway: Served, target: str) -> None:
    assert (await refused(gateway, request("GET", target, TOKEN))).status in (400, 404)


# -- H5: too much, too slow ---------------------------------------------------------------------------------------

BIG: dict[str, tuple[bytes, int]] = {
    "a long token": (request("GET", "/v1/jobs", "Authorization: Bearer " + "x" * 17_000), 431),
    "many headers": (request("GET", "/v1/jobs", TOKEN, *(f"X-{n}: y" for n in range(100))), 431),
    "much in headers": (request("GET", "/v1/jobs", TOKEN, *(f"X-{n}: {'y' * 9_000}" for n in range(4))), 431),
    "a header without end": (b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 50_000, 431),
    "a name without end": (b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"y" * 50_000, 431),
    "a long query": (request("GET", "/v1/jobs?vo=" + "x" * 9_000, TOKEN), 414),
    "a target without end": (b"GET /" + b"x" * 50_000, 414),
    "a body that says how long it is": (POST + b"Content-Length: 34000000\r\n\r\n{", 413),
    "a body of a job that is too long": (POST + b"Content-Length: 1048577\r\n\r\n{", 413),
}


@pytest.mark.parametrize("name", BIG)
async def test_h5_too_much(gateway: Served, name: str) -> None:
    sent, status = BIG[name]
    assert (await refused(gateway, sent)).status == status


async def test_h5_as_much_as_is_allowed(gateway: Served) -> None:
    token = "Authorization: Bearer " + "x" * (16_384 - 20)
    at_the_bound = request("GET", "/v1/jobs?vo=" + "x" * (8_192 - 12), token, *(f"X-{n}: y" for n in range(98)))
    answer = await gateway.ask(at_the_bound)
    assert answer is not None
    assert answer.status == 401


@pytest.mark.parametrize(
    "piece", [b"1\r\n \r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n", b"1;" + b"x" * 60_000 + b"\r\n \r\n"]
)
async def test_h5_chunks_without_end_are_cut_off(world: World, piece: bytes) -> None:
    """Whether the app reads or not: a route's own limit, or that of the edge, or the clock ends it."""
    async with served(world.service.app, body_bytes=65_536, body_s=0.3) as gateway:
        for path in ("/v1/jobs", "/v1/whoami", "/healthz"):
            wire = await gateway.connect()
            wire.send(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN}\r\n{JSON}\r\n".encode())
            wire.send(b"Transfer-Encoding: chunked\r\n\r\n")
            sending = asyncio.create_task(_send_for_ever(wire, piece))
            answer = await wire.answer()
            sending.cancel()
            assert answer is not None
            assert answer.status == (405 if path != "/v1/jobs" else answer.status)
            assert answer.status in (405, 408, 413)


async def _send_for_ever(wire: Wire, piece: bytes) -> None:
    """Piece by piece, however little the other side likes it."""
    while not wire.writer.is_closing():
        wire.send(piece)
        await pacing.pause(0.01)


SLOW: dict[str, bytes] = {
    "nothing at all": b"",
    "half a request line": b"GET /v1",
    "headers that never end": request("GET", "/v1/jobs", TOKEN)[:-2],
    "a body that never comes": POST + b"Content-Length: 100\r\n\r\n",
    "a body that stops": POST + b"Content-Length: 100\r\n\r\n{",
    "a chunk that stops": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("name", SLOW)
async def test_h5_who_is_too_slow_is_cut_off(world: World, name: str) -> None:
    async with served(world.service.app, **TIMES) as gateway:
        wire = await gateway.connect()
        wire.send(SLOW[name])
        if answer := await wire.answer():
            assert (answer.status, answer.code) == (408, "request_timeout")
        assert (answer is None) == (name == "nothing at all")
        assert await wire.closed()


async def test_h5_a_trickle_of_headers_gains_no_time(world: World) -> None:
    async with served(world.service.app, **TIMES) as gateway:
        wire = await gateway.connect()
        wire.send(b"GET /v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        trickle = asyncio.create_task(_send_for_ever(wire, b"X"))
        answer = await wire.answer()
        trickle.cancel()
        assert answer is not None
        assert answer.status == 408


async def test_h5_who_does_not_read_the_answer_is_cut_off(world: World) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})

    ended = asyncio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        writing = asyncio.create_task(endless(scope, receive, send))
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        writing.cancel()
        ended.set()

    async with served(watched, unread_s=0.2) as gateway:
        wire = await gateway.connect()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(request("GET", "/"))
        async with asyncio.timeout(20):
            await ended.wait()


async def test_h5_others_are_served_while_many_are_slow(world: World) -> None:
    async with served(world.service.app, head_s=5) as gateway:
        slow = [await gateway.connect() for _ in range(200)]
        for wire in slow:
            wire.send(b"GET /v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        answer = await gateway.ask(request("GET", "/v1/jobs", TOKEN))
        assert answer is not None
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", "/v1/jobs:explain"])
async def test_h5_deep_json(gateway: Served, path: str) -> None:
    for deep in (b"[" * 100_000, b'{"a":' * 100_000, b'{"jobs":' + b"[" * 5_000 + b"]" * 5_000 + b"}"):
        assert (await refused(gateway, request("POST", path, TOKEN, JSON, body=deep))).status in (400, 422)


# -- H6, H7: what others claim ------------------------------------------------------------------------------------


async def seen_by_app(*headers: str, **edge: Any) -> dict[str, Any]:
    """What an app behind the edge is told of a request with these headers."""
    told: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.update(client=scope["client"][0], scheme=scope["scheme"], names={n.decode() for n, _ in scope["headers"]})
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(app, **edge) as gateway:
        answer = await gateway.ask(request("GET", "/", *headers))
    assert answer is not None
    return told | {"status": answer.status}


CLAIMS = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example",
          "Forwarded: for=203.0.113.9;host=evil.example", "X-Real-IP: 203.0.113.9")  # fmt: skip


async def test_h6_what_a_stranger_says_of_the_way_it_came_is_dropped() -> None:
    told = await seen_by_app(*CLAIMS)
    assert (told["status"], told["client"], told["scheme"]) == (204, "127.0.0.1", "http")
    assert told["names"] == {"host"}


async def test_h6_a_trusted_proxy_is_believed_up_to_the_first_who_is_not() -> None:
    chain = ("X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.7", "X-Forwarded-Proto: https",
             "X-Forwarded-Host: jobs.example.org")  # fmt: skip
    trust: dict[str, Any] = {"trusted_proxies": ("127.0.0.1/32", "10.0.0.0/8"), "allowed_hosts": ("jobs.example.org",)}
    told = await seen_by_app(*chain, **trust)
    assert (told["status"], told["client"], told["scheme"]) == (204, "203.0.113.9", "https")
    assert told["names"] == {"host"}
    other = await seen_by_app("X-Forwarded-Host: evil.example", **trust)
    assert other["status"] == 421
    nonsense = await seen_by_app(
        "X-Forwarded-For: 203.0.113.9, unknown, 10.0.0.7", "X-Forwarded-Proto: gopher", **trust
    )
    assert (nonsense["client"], nonsense["scheme"]) == ("10.0.0.7", "http")


PRETENDING = ["X-User: carol", "X-VO: vo.other", "X-Remote-User: carol", "traceparent: 00-zz-xx-01",
              "Serai-Read-Grant: read-carol", "X-Forwarded-User: carol"]  # fmt: skip


@pytest.mark.parametrize("header", PRETENDING)
async def test_h6_nobody_becomes_somebody_by_a_header(gateway: Served, header: str) -> None:
    assert (await refused(gateway, request("POST", "/v1/jobs", header, JSON, body=JOB))).status == 401
    answer = await gateway.ask(request("GET", "/v1/whoami", header, TOKEN))
    assert answer is not None
    assert answer.json["principal"]["subject"] == "alice"


FOREIGN = "Origin: https://evil.example"


async def test_h7_pages_of_other_sites_may_not_read_anything(gateway: Served) -> None:
    asked = request("OPTIONS", "/v1/jobs", FOREIGN, "Access-Control-Request-Method: POST",
                    "Access-Control-Request-Headers: authorization, content-type")  # fmt: skip
    for sent in (asked, request("GET", "/v1/jobs", FOREIGN, TOKEN), request("GET", "/v1", "Origin: null")):
        answer = await gateway.ask(sent)
        assert answer is not None
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    simple = request("POST", "/v1/jobs", FOREIGN, TOKEN, "Content-Type: text/plain", body=JOB)
    assert (await refused(gateway, simple)).status == 415


async def test_h7_pages_of_origins_that_operators_named_may_and_nobody_else(world: World) -> None:
    portal = "https://portal.example.org"
    async with served(world.service.app, cors_origins=(portal,)) as gateway:
        before = await gateway.ask(
            request("OPTIONS", "/v1/jobs", f"Origin: {portal}", "Access-Control-Request-Method: POST")
        )
        assert before is not None
        assert (before.status, before.header("access-control-allow-origin")) == (204, portal)
        assert "authorization" in (before.header("access-control-allow-headers") or "")
        for origin, shown in ((portal, portal), (f"{portal}.evil.example", None), ("null", None), ("*", None)):
            answer = await gateway.ask(request("GET", "/v1/jobs", f"Origin: {origin}", TOKEN))
            assert answer is not None
            assert answer.header("access-control-allow-origin") == shown
            assert answer.header("access-control-allow-credentials") is None


async def test_no_answer_is_taken_for_a_page_and_pages_are_shut_in(gateway: Served) -> None:
    for sent in (request("GET", "/v1"), request("GET", "/nothing"), SMUGGLED["two lengths"], request("GET", "/docs")):
        answer = await gateway.ask(sent)
        assert answer is not None
        assert [value for name, value in answer.headers if name == "x-content-type-options"] == ["nosniff"]
        assert answer.header("server") is None
    for path in ("/docs", "/problems", "/problems/not_found"):
        page = await gateway.ask(request("GET", path))
        assert page is not None
        assert page.header("content-security-policy") == "default-src 'self'; frame-ancestors 'none'"
        assert (page.header("x-frame-options"), page.header("referrer-policy")) == ("DENY", "no-referrer")


# -- H8: logs -----------------------------------------------------------------------------------------------------

EVIL = '\r\n{"event": "fake", "level": "info"}\r\n\x1b[2J\x1b[31mroot\u2028\x9b'


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything is logged, as loudly as it can be, and kept here; afterwards logging is as it was."""
    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    said = io.StringIO()
    logs.configure("debug")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    yield said
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


async def test_h8_what_is_sent_never_makes_a_line_of_its_own_in_the_log(gateway: Served, written: io.StringIO) -> None:
    await gateway.ask(request("GET", "/v1/jobs/%0d%0a%7B%22event%22%3A%22fake%22%7D%1b[31m", TOKEN))
    await gateway.ask(request("GET", "/v1/jobs/..%2f%0afake", TOKEN, "User-Agent: \x1b[2J"))
    await gateway.ask(request("POST", "/v1/jobs", TOKEN, JSON, body=orjson.dumps(a_file(name=EVIL, title=EVIL))))
    await gateway.ask(request("GET", "/v1", host="evil\x1b.example"))
    await gateway.ask(request("GET", "/\x1b[31m", TOKEN))
    said = written.getvalue()
    lines = [json.loads(line) for line in said.splitlines()]
    assert len(lines) >= 3, "the check of the check: refusals are logged"
    assert not [line for line in lines if line["event"] == "fake"]
    assert not [char for char in said if (ord(char) < 32 and char != "\n") or ord(char) > 126]


async def test_h8_the_log_for_people_shows_controls_and_does_not_send_them() -> None:
    said = io.StringIO()
    before = structlog.get_config()
    logs.configure("info", pretty=True)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    try:
        logs.get("test").info("seen", title=EVIL, inner={"name": EVIL}, items=[EVIL])
    finally:
        structlog.configure(**before)
    told = said.getvalue()
    assert told.count("\n") == 1
    assert EVIL not in told
    assert "\x1b[2J" not in told
    assert "\x9b" not in told
    assert "\u2028" not in told


# -- H10: compressed requests -------------------------------------------------------------------------------------

BOMB = gzip.compress(b" " * 10_000_000 + JOB)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "identity, gzip", "x"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", f"/v1/jobs/{ID}", "/v1/sites/prague:cordon"])
async def test_h10_compressed_requests_are_not_unpacked(gateway: Served, encoding: str, path: str) -> None:
    method = "PUT" if path.endswith(ID) else "POST"
    sent = request(method, path, TOKEN, JSON, f"Content-Encoding: {encoding}", body=BOMB)
    assert (await refused(gateway, sent)).status == 415


async def test_h10_compressed_bytes_without_saying_so_are_no_json(gateway: Served) -> None:
    assert (await refused(gateway, request("POST", "/v1/jobs", TOKEN, JSON, body=BOMB))).status == 400


async def test_a_connection_lives_on_after_a_refusal(gateway: Served) -> None:
    """Only what nothing can be read behind ends it."""
    wire = await gateway.connect()
    for sent, status in ((request("GET", "/v1/%2e%2e/x"), 404), (request("GET", "/v1"), 200)):
        wire.send(sent)
        answer = await wire.answer()
        assert answer is not None
        assert answer.status == status


# -- whatever comes -----------------------------------------------------------------------------------------------

STRANGER = request("POST", "/v1/jobs", "Authorization: Bearer nobody", JSON, "Idempotency-Key: k", body=JOB)
CHUNKED_STRANGER = STRANGER.replace(b"Content-Length: %d" % len(JOB), b"Transfer-Encoding: chunked")
CHUNKED_STRANGER = CHUNKED_STRANGER.replace(JOB, CHUNKED)
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"%00", b"0\r\n\r\n", b"Host: x\r\n", b"\xff", b"HTTP/1.1",
    b"-1",
)  # fmt: skip


def spoiled(chance: random.Random, sent: bytes) -> bytes:
    """A request with a few bytes lost, doubled, exchanged or put in."""
    made = bytearray(sent)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                del made[place : place + chance.randint(1, 8)]
            case 1:
                made[place:place] = chance.choice(PIECES)
            case 2:
                made[place : place + 1] = bytes([chance.randrange(256)])
            case _:
                made[place:place] = made[max(0, place - chance.randint(1, 40)) : place]
    return bytes(made)


@pytest.mark.parametrize("seed", range(8))
async def test_a_spoiled_request_of_a_stranger_is_refused_whatever_was_done_to_it(world: World, seed: int) -> None:
    """Refused, or cut off when it does not come to an end; never a 5xx, never silence, and others are served."""
    chance = random.Random(seed)
    async with served(world.service.app, head_s=0.2, body_s=0.2, idle_s=1) as gateway:
        sent = [spoiled(chance, chance.choice((STRANGER, CHUNKED_STRANGER))) for _ in range(40)]
        answers = await asyncio.gather(*(gateway.ask(each) for each in sent))
        for request_, answer in zip(sent, answers, strict=True):
            assert answer is None or 400 <= answer.status < 500, (request_, answer)
            assert answer is not None or len(request_.strip()) == 0 or request_[:1] in b"\r\n", request_
        alive = await gateway.ask(request("GET", "/v1"))
        assert alive is not None
        assert alive.status == 200
