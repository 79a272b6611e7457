"""The ASGI layer of the edge: whom a request is meant for, who stands in front, foreign pages, unclear paths.

It decides before any route does, and what it refuses has touched nothing. Who may do what is not its business: that is
decided in the routes, on what was routed.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from shared.runtime import logs
from shared.runtime.edge import heads
from shared.runtime.edge.crowd import FULL, Crowd
from shared.runtime.edge.heads import Fault
from shared.runtime.edge.settings import EdgeSettings
from shared.runtime.http import problem_response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_FORWARDED: Final = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
     b"x-forwarded-prefix", b"x-real-ip")
)  # fmt: skip
_NOTED: Final = heads.SINGLE | _FORWARDED | {b"origin"}
_FOR_ANOTHER: Final = "serai.forwarded"
"""In the scope of a request that a trusted proxy passed on."""
_MOST_KNOWN: Final = 256
"""Hosts that need not be judged again, with the address at which they were allowed."""
_CORS_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"
_CORS_HEADERS: Final = (
    b"authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, prefer, traceparent"
)
_CORS_SHOWN: Final = (
    b"etag, location, link, retry-after, ratelimit, ratelimit-policy, preference-applied, www-authenticate"
)
_TWICE: Final = {
    name: Fault("malformed_request", f"there are two {name.decode().title()} headers; send one")
    for name in heads.SINGLE
}  # fmt: skip
_LONG: Final = re.compile(r"[^/]{65,}")
_COMPRESSED: Final = Fault("unsupported_media_type", "compressed bodies are not read here; send it plain")
_NO_HOST: Final = Fault("malformed_request", "send one Host header: the name or address that you mean, and its port")
_PATH: Final = Fault(
    "not_found", "there is nothing under a path with empty, dotted or encoded parts; write it in its plain form"
)
_QUERY: Final = Fault("malformed_request", "there are control characters in the query")

log = logs.get("edge")


class Guard:
    """Stands in front of an app."""

    def __init__(self, app: Asgi, settings: EdgeSettings, crowd: Crowd) -> None:
        self._app = app
        self._crowd = crowd
        self._settings = settings
        self._hosts = set(settings.allowed_hosts)
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._known: dict[bytes, str] = {}

    def allow(self, hosts: Iterable[str]) -> None:
        """Hosts by which the app is known, besides those in the settings."""
        self._hosts |= {host.lower() for host in hosts}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: what passes costs no further layer."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        fault, origin = self._looked_at(scope)
        if origin is not None and origin in self._origins:
            send = _shown_to(origin, send)
            if scope["method"] == "OPTIONS" and fault is None:
                return _preflight(send)
        if fault is not None:
            return _refuse(fault, scope, receive, send)
        if _FOR_ANOTHER in scope:
            return self._counted(scope, receive, send)
        return self._app(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that came through a trusted proxy is its client's, as long as it is answered."""
        client = self._crowd.enter(scope["client"][0])
        if client is None:
            await _refuse(FULL, scope, receive, send, {"Retry-After": "1"})
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._crowd.leave(client)

    def _looked_at(self, scope: Scope) -> tuple[Fault | None, bytes | None]:
        """What is wrong, if anything, and the origin of the page that asks. Forwarded headers are settled here."""
        noted: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _NOTED:
                if name in noted and name in _TWICE:
                    return _TWICE[name], None
                noted[name] = value
        if noted.get(b"content-encoding", b"identity").lower() != b"identity":
            return _COMPRESSED, None
        host = noted.get(b"host")
        if not _FORWARDED.isdisjoint(noted):
            host = self._settle(scope, host)
        return self._host_fault(host, scope) or _target_fault(scope), noted.get(b"origin")

    def _host_fault(self, host: bytes | None, scope: Scope) -> Fault | None:
        if host is None:
            return _NO_HOST
        server = scope.get("server")
        own = str(server[0]) if server else ""
        if self._known.get(host) == own:
            return None
        name = heads.host_name(host)
        if name is None:
            return _NO_HOST
        if not heads.is_allowed(name, self._hosts, own):
            return Fault(
                "misdirected", f"nothing here is called {name[:100]!r}; if it should be, its operators add it to "
                "SERAI_EDGE__ALLOWED_HOSTS",
            )  # fmt: skip
        if len(self._known) < _MOST_KNOWN:
            self._known[host] = own
        return None

    def _settle(self, scope: Scope, host: bytes | None) -> bytes | None:
        """Take over what a trusted proxy says of the client; drop these headers in any case. The host to check."""
        headers = scope["headers"]
        told = [(name, value) for name, value in headers if name in _FORWARDED]
        scope["headers"] = [(name, value) for name, value in headers if name not in _FORWARDED]
        client = scope.get("client")
        if client is None or not heads.is_trusted(client[0], self._settings.trusted_proxies):
            return host
        chain = [value for name, value in told if name == b"x-forwarded-for"]
        scope[_FOR_ANOTHER] = True
        scope["client"] = (heads.forwarded_for(chain, client[0], self._settings.trusted_proxies), 0)
        scheme = next((value for name, value in told if name == b"x-forwarded-proto"), b"")
        if scheme in (b"http", b"https"):
            scope["scheme"] = scheme.decode()
        meant = next((value for name, value in told if name == b"x-forwarded-host"), host)
        if meant is not None and meant != host:
            kept = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", meant), *kept]
        return meant


def _target_fault(scope: Scope) -> Fault | None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if not heads.path_is_plain(raw):
        return _PATH
    query: bytes = scope["query_string"]
    return None if not query or heads.query_is_plain(query) else _QUERY


def _refuse(
    fault: Fault, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
) -> Awaitable[None]:  # fmt: skip
    log.info("request_refused", code=fault.code, method=scope["method"], path=_shown(scope["path"]),
             peer=(scope.get("client") or ("",))[0])  # fmt: skip
    response: Any = problem_response(fault.code, fault.detail, headers=headers)
    refused: Asgi = response
    return refused(scope, receive, send)


def _shown(path: str) -> str:
    """A path for the log. No part of ours is longer than a name; what is could be a token that stands in the wrong
    place."""
    return _LONG.sub("...", path)[:200]


def _shown_to(origin: bytes, send: Send) -> Send:
    """The same answer, readable for a page of this origin."""

    async def shown(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()), (b"access-control-allow-origin", origin), (b"vary", b"Origin"),
                (b"access-control-expose-headers", _CORS_SHOWN),
            ]  # fmt: skip
        await send(message)

    return shown


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", _CORS_METHODS), (b"access-control-allow-headers", _CORS_HEADERS),
        (b"access-control-max-age", b"600"), (b"content-length", b"0"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
