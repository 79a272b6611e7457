"""Speaking HTTP to a served service byte by byte, as no client library would let one.

Tests of the HTTP edge say what is sent to the letter, and read what comes back without believing anything.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.runtime.edge import EdgeSettings
from shared.runtime.serving import HttpServer

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came over the wire; `headers` in lower case, in order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for given, value in self.headers if given == name), None)

    @property
    def code(self) -> str:
        """The code of the problem document."""
        return str(orjson.loads(self.body)["code"])

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(slots=True)
class Wire:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def answer(self) -> Answer | None:
        """The next answer, or None when the other side has closed the connection without one."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            length = int(dict(pairs).get("content-length", "0"))
            return Answer(int(first.split(" ")[1]), pairs, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        """Wait for the other side to close; whether nothing else came before."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return not await self.reader.read()
            except ConnectionError:
                return True

    async def close(self) -> None:
        self.writer.close()


@dataclass(slots=True)
class Served:
    """A service behind a real socket."""

    host: str
    port: int
    open: list[Wire] = field(default_factory=list)

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        wire = Wire(reader, writer)
        self.open.append(wire)
        return wire

    async def ask(self, *parts: bytes) -> Answer | None:
        """Send bytes on a fresh connection; the first answer."""
        wire = await self.connect()
        wire.send(*parts)
        return await wire.answer()


@asynccontextmanager
async def served(app: Any, **edge: Any) -> AsyncIterator[Served]:
    """An app behind the edge on a free port of loopback; `edge` are its settings."""
    port = _free_port()
    server = HttpServer(app, "127.0.0.1", port, drain_s=1, edge=EdgeSettings(**edge))
    await server.start()
    found = Served("127.0.0.1", port)
    try:
        yield found
    finally:
        for wire in found.open:
            await wire.close()
        await server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request(method: str, target: str, *headers: str, body: bytes = b"", host: str | None = "127.0.0.1") -> bytes:
    """A request to the letter: nothing is encoded, completed or checked; a Content-Length only if there is a body."""
    lines = [f"{method} {target} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
