"""HTTP to an ASGI app of the same process, without a socket, chunk by chunk: answers may be endless (logs, events).

Called by the embedded platform and by tests: `Questions(..., transport=InProcessTransport(app))`. httpx's own
ASGITransport collects an answer until it ends, so a log that is followed would never arrive.
"""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx2 as httpx

Asgi = Any
_AHEAD = 16
"""Chunks that the app may be ahead of the reader."""


class InProcessTransport(httpx.AsyncBaseTransport):
    """One app; each request runs as a task of its own and is cancelled when its answer is closed early."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread())
        task = asyncio.create_task(_run(self._app, _scope(request), exchange), name=f"in-process:{request.url.path}")
        try:
            status, headers = await exchange.start
        except BaseException:
            task.cancel()
            raise
        return httpx.Response(status, headers=headers, stream=_Answer(exchange, task))


class _Exchange:
    """The two ends of one request: what the app receives and what it sends."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.start: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self.closed = asyncio.Event()
        self.broken: Exception | None = None

    async def receive(self) -> MutableMapping[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if not self.start.done():
                self.start.set_result((message["status"], list(message.get("headers", []))))
            return
        if message.get("body"):
            await self.chunks.put(message["body"])
        if not message.get("more_body"):
            await self.chunks.put(None)


class _Answer(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, task: "asyncio.Task[None]") -> None:
        self._exchange = exchange
        self._task = task

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._exchange.chunks.get()) is not None:
            yield chunk
        if self._exchange.broken is not None:
            raise httpx.ReadError(f"the answer broke off: {self._exchange.broken!r}")

    async def aclose(self) -> None:
        self._exchange.closed.set()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


async def _run(app: Asgi, scope: dict[str, Any], exchange: _Exchange) -> None:
    """Run the app; one that fails before or within its answer fails the request, not the process."""
    finished = False

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal finished
        await exchange.send(message)
        finished = message["type"] == "http.response.body" and not message.get("more_body")

    try:
        await app(scope, exchange.receive, send)
    except Exception as error:
        if not exchange.start.done():
            exchange.start.set_exception(httpx.ReadError(f"no answer: {error!r}"))
        elif not finished:
            exchange.broken = error
            await exchange.chunks.put(None)
        return
    if exchange.start.done() and not finished:
        exchange.broken = EOFError("it ended before it was whole")
        await exchange.chunks.put(None)


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw], "scheme": request.url.scheme,
        "path": request.url.path, "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query, "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0), "root_path": "",
    }  # fmt: skip
