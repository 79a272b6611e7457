"""A load generator in a process of its own: keep-alive connections, a closed loop on each, next to no parsing.

    python -m bench.load '{"url": ..., "connections": 50, "seconds": 6, "headers": {...}, "method": "GET"}'

A body is sent as given; `{n}` in it or in a header becomes the number of the request. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from bench.results import quantile


@dataclass(slots=True)
class Load:
    """`requests` bounds the number in all; 0 = as many as `seconds` allow."""

    url: str
    connections: int = 50
    seconds: float = 6.0
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    requests: int = 0


@dataclass(slots=True)
class Tally:
    start: float
    ended: asyncio.Future[None]
    sent: int = 0
    open: int = 0
    took_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


async def run(load: Load) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    tally = Tally(time.perf_counter(), loop.create_future(), open=load.connections)
    loop.set_exception_handler(lambda _, context: _fail(tally, context))
    at = urlsplit(load.url)
    for _ in range(load.connections):
        await loop.create_connection(lambda: Connection(load, tally), at.hostname or "127.0.0.1", at.port or 80)
    await tally.ended
    took = time.perf_counter() - tally.start
    return {
        "requests": len(tally.took_s), "seconds": took, "rate": len(tally.took_s) / took,
        "p50_ms": quantile(tally.took_s, 0.5) * 1e3, "p99_ms": quantile(tally.took_s, 0.99) * 1e3,
        "max_ms": max(tally.took_s, default=0) * 1e3, "cpu_s": time.process_time(),
        "statuses": {str(status): count for status, count in tally.statuses.items()},
    }  # fmt: skip


class Connection(asyncio.Protocol):
    """One request at a time, the next as soon as the answer is there."""

    def __init__(self, load: Load, tally: Tally) -> None:
        self._load = load
        self._tally = tally
        self._head = _head(load)
        self._got = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not derive from it
        self._next()

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0 or len(self._got) < end + 4 + _length(self._got[:end]):
            return
        tally, status = self._tally, int(self._got[9:12])
        tally.took_s.append(time.perf_counter() - self._sent_at)
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        self._got = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        _fail(self._tally, {"exception": error or ConnectionError("the server closed a connection")})

    def _next(self) -> None:
        load, tally = self._load, self._tally
        assert self._transport is not None
        if tally.sent >= load.requests if load.requests else time.perf_counter() - tally.start >= load.seconds:
            tally.open -= 1
            if not tally.open and not tally.ended.done():
                tally.ended.set_result(None)
            return
        number, tally.sent = tally.sent, tally.sent + 1
        self._sent_at = time.perf_counter()
        self._transport.write(_request(self._head, load.body, number))


def _fail(tally: Tally, context: dict[str, Any]) -> None:
    """End the load: a figure with failures in it is none."""
    if not tally.ended.done():
        tally.ended.set_exception(context.get("exception") or RuntimeError(str(context)))


def _head(load: Load) -> str:
    at = urlsplit(load.url)
    headers = {"Host": at.netloc, **load.headers}
    if load.body:
        headers["Content-Type"] = "application/json"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{load.method} {at.path}{'?' + at.query if at.query else ''} HTTP/1.1\r\n{lines}"


def _request(head: str, body: str, number: int) -> bytes:
    if not body:
        return head.replace("{n}", str(number)).encode() + b"\r\n"
    content = body.replace("{n}", str(number)).encode()
    return head.replace("{n}", str(number)).encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    if at < 0:
        raise ValueError(f"no Content-Length in {head[:300]!r}")
    end = head.find(b"\r\n", at)
    return int(head[at + 15 : end if end > 0 else None])


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Load(**json.loads(sys.argv[1]))))))
