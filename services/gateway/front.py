"""The outermost ASGI layer: the two hot routes without a framework, HEAD and OPTIONS everywhere.

`GET /v1/jobs/{id}` is asked so often that it is answered here when nothing unusual is asked: a known caller, a point
read, ready-made bytes. Everything else about it (waiting, problems, its documentation) is the ordinary route's.
`POST /v1/jobs` is that route itself, called without the framework's search for it and for what it depends on.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from services.gateway import store
from services.gateway.access import STANDING, Access
from services.gateway.pacing import Pace
from services.gateway.rates import Standing
from shared.ports import Clock, Store
from shared.runtime import preconditions
from shared.runtime.http import error_response, methods_of, rate_headers
from shared.runtime.telemetry import Tracer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Submit = Callable[[Request], Awaitable[Response]]

_JOBS: Final = "/v1/jobs"
_JOB: Final = re.compile(r"/v1/jobs/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_JSON: Final = (b"content-type", b"application/json")
_CACHE: Final = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization"))


class Front:
    """Wraps the application."""

    def __init__(
        self, app: FastAPI, submit: Submit, access: Access, store: Store, pace: Pace, tracer: Tracer, clock: Clock, *,
        span_every: int, problem_base: str,
    ) -> None:  # fmt: skip
        self._app = app
        self._submit = submit
        self._problem_base = problem_base
        self._access = access
        self._store = store
        self._pace = pace
        self._tracer = tracer
        self._clock = clock
        self._span_every = span_every
        self._reads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        match scope["method"]:
            case "GET" if await self._hot(scope, send):
                return
            case "HEAD":
                await self._head(scope, send)
            case "OPTIONS":
                await self._options(scope, receive, send)
            case "GET":
                await self._app(scope, receive, send)
            case "POST" if scope["path"] == _JOBS and not scope["query_string"]:
                await self._submitted(scope, receive, _telling(scope, send))
            case _:
                await self._app(scope, receive, _telling(scope, send))

    async def _hot(self, scope: Scope, send: Send) -> bool:
        """Answer a plain read of a job by a known caller; False = not answered, nothing sent."""
        found = _JOB.fullmatch(scope["path"])
        if found is None or scope["query_string"]:
            return False
        token, if_none_match = "", None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if token:
                    return False
                token = value.decode("latin-1").removeprefix("Bearer ")
            elif name == b"if-none-match":
                if_none_match = value.decode("latin-1")
            elif name == b"prefer":
                return False
        caller = self._access.fresh(token)
        if caller is None:
            return False
        job_id = found[1]
        row = await self._store.read(lambda connection: store.hot_row(connection, job_id))
        if row is None or not caller.sight.sees(row.vo, row.owner_issuer, row.owner_subject):
            return False
        if not self._pace.read(caller.bucket):
            return False
        self._sampled(job_id)
        await _answer(send, row, unchanged=_has_already(if_none_match, row.version))
        return True

    async def _submitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A job handed in: what the route answers, or the problem that its error stands for."""
        try:
            response = await self._submit(Request(scope, receive))
        except Exception as error:
            response = error_response(error, self._problem_base)
        await response(scope, receive, send)

    def _sampled(self, job_id: str) -> None:
        """One span for every so many reads, made by hand."""
        self._reads += 1
        if self._span_every and self._reads % self._span_every == 0:
            with self._tracer.span("GET /v1/jobs/{job_id}", kind="server") as span:
                span.attributes |= {"serai.job_id": job_id, "serai.sampled_of": self._span_every}

    async def _head(self, scope: Scope, send: Send) -> None:
        """As GET, without the body. Streams end at once."""
        ended = asyncio.Event()

        async def headers_only(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                ended.set()

        async def gone_after_headers() -> MutableMapping[str, Any]:
            await ended.wait()
            return {"type": "http.disconnect"}

        listening = {**scope["asgi"], "spec_version": "2.0"}  # streaming responses then listen for the disconnect
        await self._app({**scope, "method": "GET", "asgi": listening}, gone_after_headers, headers_only)

    async def _options(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Which methods a path takes."""
        methods = set(methods_of(self._app, scope))
        if not methods:
            await self._app(scope, receive, send)
            return
        methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        headers = [(b"allow", ", ".join(sorted(methods)).encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _telling(scope: Scope, send: Send) -> Send:
    """The answer to a change also says how its caller stands with the limit on changes."""

    async def told(message: MutableMapping[str, Any]) -> None:
        standing: Standing | None = scope.get(STANDING)
        if standing is not None and message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            limit = standing.limit
            fields = rate_headers(limit.name, limit.amount, limit.window_s, standing.remaining, standing.full_s)
            told = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
            message["headers"] = [*message["headers"], *(each for each in told if each[0] not in names)]
        await send(message)

    return told


def _has_already(if_none_match: str | None, version: int) -> bool:
    return if_none_match is not None and preconditions.has_already(if_none_match, preconditions.etag(version))


async def _answer(send: Send, row: store.HotRow, *, unchanged: bool) -> None:
    body = b"" if unchanged else bytes(row.body)
    headers = [(b"etag", b'"%d"' % row.version), *_CACHE]
    if not unchanged:
        headers += [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 304 if unchanged else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
