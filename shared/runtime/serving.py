"""Serving an ASGI app with uvicorn inside our own loop: no signal handlers, a socket bound by us, a clean stop.

Whatever is served stands behind the same edge (`shared.runtime.edge`).
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn

from shared.errors import Misconfigured
from shared.runtime.edge import EdgeSettings
from shared.runtime.edge.crowd import Crowd
from shared.runtime.edge.guard import Guard
from shared.runtime.edge.wire import protocol

SECURITY_HEADERS: Final = (("X-Content-Type-Options", "nosniff"),)
"""With every answer: what is no page is never taken for one. Pages for people carry more of their own."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process decides about signals, not each of its servers."""
        yield


class HttpServer:
    """One app on one address. `start` returns when it answers, `stop` when the last answer is out (or `drain_s`)."""

    def __init__(
        self, app: Any, host: str, port: int, *, drain_s: float = 5.0, max_concurrency: int = 2000,
        edge: EdgeSettings | None = None,
    ) -> None:  # fmt: skip
        edge = edge or EdgeSettings()
        self._host, self._port = host, port
        crowd = Crowd(edge.open_of_address, edge.trusted_proxies)
        self._guard = Guard(app, edge, crowd)
        self._server = _Server(
            uvicorn.Config(
                self._guard, interface="asgi3", log_config=None, access_log=False, lifespan="off",
                http=protocol(edge, crowd), loop="none", ws="none", server_header=False, proxy_headers=False,
                headers=_headers(edge), timeout_graceful_shutdown=int(drain_s), timeout_keep_alive=edge.idle_s,
                limit_concurrency=max_concurrency,
            )
        )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"http://{self._host}:{self._port}"

    def known_as(self, *urls: str) -> None:
        """Further URLs under which the app is reached: their hosts are allowed. Empty ones count nothing."""
        self._guard.allow(host for url in urls if (host := urlsplit(url).hostname))

    async def start(self) -> None:
        """Bind and serve. Raises Misconfigured when the address is taken."""
        listening = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self._port))
            listening.listen()  # at once: two sockets that are only bound may share a port
        except OSError as error:
            listening.close()
            raise Misconfigured(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}; free it or choose another port"
            ) from error
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name=f"http:{self._port}")
        up = asyncio.create_task(self._server.up.wait(), name=f"http-up:{self._port}")
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            up.cancel()
            self._task.result()

    async def stop(self) -> None:
        if self._task is not None:
            self._server.should_exit = True
            await asyncio.wait([self._task])


def _headers(edge: EdgeSettings) -> list[tuple[str, str]]:
    strict = [("Strict-Transport-Security", f"max-age={edge.hsts_s}")] if edge.hsts_s else []
    return [*SECURITY_HEADERS, *strict]
