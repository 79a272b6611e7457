"""A load generator in a process of its own: keep-alive connections, a closed loop on each, next to no parsing.

    python -m bench.load '{"url": ..., "connections": 50, "seconds": 6, "headers": {...}, "method": "GET"}'

A body is sent as given; `{n}` in it or in a header becomes the number of the request. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

from bench.results import quantile


@dataclass(slots=True)
class Load:
    """`requests` bounds the number in all; 0 = as many as `seconds` allow. `rate` paces them (0 = closed loop)."""

    url: str
    connections: int = 50
    seconds: float = 6.0
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    requests: int = 0
    rate: float = 0.0


@dataclass(slots=True)
class Tally:
    sent: int = 0
    took_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


async def run(load: Load) -> dict[str, object]:
    tally = Tally()
    start = time.perf_counter()
    await asyncio.gather(*(_connection(load, tally, start) for _ in range(load.connections)))
    took = time.perf_counter() - start
    return {
        "requests": len(tally.took_s), "seconds": took, "rate": len(tally.took_s) / took,
        "p50_ms": quantile(tally.took_s, 0.5) * 1e3, "p99_ms": quantile(tally.took_s, 0.99) * 1e3,
        "max_ms": max(tally.took_s, default=0) * 1e3, "statuses": tally.statuses,
    }  # fmt: skip


async def _connection(load: Load, tally: Tally, start: float) -> None:
    at = urlsplit(load.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    while (number := _next(load, tally, start)) is not None:
        if load.rate:
            await asyncio.sleep(max(0.0, start + number / load.rate - time.perf_counter()))
        sent = time.perf_counter()
        writer.write(_request(load, at.path + (f"?{at.query}" if at.query else ""), at.netloc, number))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_length(head))
        tally.took_s.append(time.perf_counter() - sent)
        status = int(head[9:12])
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
    writer.close()


def _next(load: Load, tally: Tally, start: float) -> int | None:
    done = tally.sent >= load.requests if load.requests else time.perf_counter() - start >= load.seconds
    if done:
        return None
    tally.sent += 1
    return tally.sent - 1


def _request(load: Load, target: str, host: str, number: int) -> bytes:
    body = load.body.replace("{n}", str(number)).encode()
    headers = {"Host": host, **load.headers}
    if body:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).replace("{n}", str(number))
    return f"{load.method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    if at < 0:
        raise ValueError(f"no Content-Length in {head[:300]!r}")
    return int(head[at + 15 : head.index(b"\r\n", at)])


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Load(**json.loads(sys.argv[1]))))))
