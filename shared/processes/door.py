"""The HTTP face of a process from its first moment: while it waits for what it needs, it says what it waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from shared.errors import Misconfigured, Unavailable
from shared.runtime import logs
from shared.runtime.retrying import Backoff

log = logs.get("processes.door")

T = TypeVar("T")


class Door:
    """An ASGI app that is the service's own once `open` was called; before, it tells what is missing."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.waiting: dict[str, str] = {}
        self._app: Any = None

    def open(self, app: Any) -> None:
        """From now on the service answers."""
        self._app = app

    async def until(self, dependency: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, tried with back-off until it does; meanwhile `/readyz` names the culprit.

        Wrong credentials are waited out as well: whoever mends them at the other end need not start us again.
        """
        backoff = Backoff(first_s=0.2, most_s=10.0)
        self.waiting[dependency] = "not asked yet"
        while True:
            try:
                found = await attempt()
            except (Unavailable, Misconfigured) as error:
                wait_s = backoff.next_s()
                self.waiting[dependency] = error.what
                log.warning("waits_for", dependency=dependency, culprit=error.what, again_in_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)
            else:
                self.waiting.pop(dependency, None)
                return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is not None:
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        alive = scope["path"] == "/healthz"
        if alive:
            body: dict[str, Any] = {"status": "ok", "service": self.service}
        elif scope["path"] == "/readyz":
            body = {"status": "starting", "service": self.service, "checks": self.waiting}
        else:
            body = {
                "type": "about:blank", "title": "Starting", "status": 503, "code": "unavailable",
                "detail": f"{self.service} is starting; ask /readyz what it waits for",
            }  # fmt: skip
        kind = b"application/json" if alive or scope["path"] == "/readyz" else b"application/problem+json"
        headers = [(b"content-type", kind)] + ([] if alive else [(b"retry-after", b"2")])
        await send({"type": "http.response.start", "status": 200 if alive else 503, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})
