"""A TCP proxy between an adapter and a server: it lets through, cuts, refuses, or answers itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Between:
    """Where the adapter is sent. `answer` is sent to every new connection instead of what the server would say."""

    def __init__(self, target: str) -> None:
        place = urlsplit(target)
        self._target = place.hostname or "", place.port or 80
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.answer = b""
        self.connections = 0
        self.most = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nobody listens any more, and what was open ends."""
        assert self._server is not None
        self._server.close()
        self.drop()

    def drop(self) -> None:
        """What is open ends; new connections go on."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self.connections += 1
        self.most = max(self.most, len(self._open))
        try:
            if self.answer:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
            else:
                await self._join(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        try:
            ways = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        finally:
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()


@asynccontextmanager
async def between(target: str) -> AsyncIterator[Between]:
    """A proxy that listens; closed at the end."""
    proxy = Between(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.cut()
