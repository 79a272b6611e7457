"""A door for this machine only, in front of an app that gives things away: neighbours and rebound names stay out.

Used by the development issuer. It is a second wall; the first is that the server listens on loopback alone.
"""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.auth.settings import is_loopback
from shared.runtime.http import problem_response


class LoopbackOnly:
    """Answers requests that come from a loopback address and name one in `Host` (against DNS rebinding)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (_peer(scope) and _named(scope)):
            await self._app(scope, receive, send)
            return
        refusal: Any = problem_response("forbidden", "the development issuer answers on this machine only")
        await refusal(scope, receive, send)


def _peer(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and is_loopback(str(client[0]))


def _named(scope: Scope) -> bool:
    host = Headers(scope=scope).get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
