"""A small reverse proxy, as operators put before a gateway: passes on one request of a connection, tells whose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

PIECE = 65_536


@dataclass
class ReverseProxy:
    """`client` is the address that its connections pretend to come from, as it is when one begins."""

    host: str
    port: int
    target: tuple[str, int]
    client: str = "203.0.113.9"

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A request with what the proxy knows of it; then bytes, both ways, to the end."""
        client = self.client
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            there, out = await asyncio.open_connection(*self.target)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()
            return
        out.write(self._told(head, client))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pour(reader, out), _pour(there, writer))
        out.close()
        writer.close()

    def _told(self, head: bytes, client: str) -> bytes:
        """As nginx does with `$proxy_add_x_forwarded_for`: what the client wrote there stays, to the left."""
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        given = [value for name, value in fields if name.lower() == "x-forwarded-for"]
        kept = [(n, v) for n, v in fields if n.lower() not in ("x-forwarded-for", "x-forwarded-proto", "connection")]
        added = [
            ("X-Forwarded-For", ", ".join([*given, client])),
            ("X-Forwarded-Proto", "https"),
            ("Connection", "close"),
        ]
        return (
            "\r\n".join([first, *(f"{name}: {value}" for name, value in kept + added)]).encode("latin-1") + b"\r\n\r\n"
        )


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE):
        into.write(piece)
        await into.drain()
    if into.can_write_eof():
        into.write_eof()


@asynccontextmanager
async def reverse_proxy(host: str, port: int) -> AsyncIterator[ReverseProxy]:
    """A proxy on a free port of loopback, before a server."""
    made = ReverseProxy("127.0.0.1", 0, (host, port))
    server = await asyncio.start_server(made.pass_on, made.host, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
