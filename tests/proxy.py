"""A TCP proxy on loopback that does to connections what networks and dying machines do: cut, delay, half-open, refuse.

For tests of every part: broker, database, Consul, sites.
"""

import asyncio
import contextlib
from types import TracebackType

from tests import pacing


class Proxy:
    """`async with Proxy(port) as proxy`: listens on `proxy.port`, passes bytes to and from 127.0.0.1:`port`.

    It listens where it is told to (`listen`), or where it likes.

    While `absent`, connections are refused by closing them at once. While `silent`, bytes are swallowed both ways, so
    that a connection is open at one end only as far as anybody can tell. `delay_s` is added to every chunk, each way.
    """

    def __init__(self, port: int, listen: int = 0) -> None:
        self.port = listen
        self.absent = False
        self.silent = False
        self.delay_s = 0.0
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.absent = True
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """End every connection at once, without a word to either side."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.absent:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while chunk := await reader.read(65_536):
                if self.delay_s:
                    await pacing.pause(self.delay_s)
                if not self.silent:
                    writer.write(chunk)
                    await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
