"""`POST /internal/grants` without the framework: every job handed in stands behind it.

The same door and the same route, without the framework's search for both. What is unusual about a question (no JSON,
not understood) is answered by the framework, as everything else.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import Request, Response
from pydantic import ValidationError

from shared.contracts.questions import GrantRequest
from shared.runtime.http import error_response
from shared.runtime.service_identity import Door

PATH: Final = "/internal/grants"
MAY: Final = ("gateway",)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Grants = Callable[[GrantRequest, str], Awaitable[Response]]


class Hot:
    """A middleware of the application."""

    def __init__(self, app: App, *, door: Door, grants: Grants) -> None:
        self._app = app
        self._door = door
        self._grants = grants

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._door.who(request.headers, MAY)
            body = await request.body()
            asked = _asked(request, body)
            if asked is None:
                await self._app(scope, _again(body, receive), send)
                return
            response = await self._grants(asked, request.headers.get("traceparent", ""))
        except Exception as error:
            response = error_response(error)
        await response(scope, receive, send)


def _asked(request: Request, body: bytes) -> GrantRequest | None:
    if request.headers.get("content-type") != "application/json":
        return None
    try:
        return GrantRequest.model_validate_json(body)
    except ValidationError:
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, for somebody else to read."""
    read = False

    async def received() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
