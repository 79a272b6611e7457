"""Asynchronous HTTP towards one cluster: what `reading`, `stream`, `logs` and `files` stand on.

python-nomad hides the headers, pages and heartbeats that reading needs (reference/nomad.md, 9). This knows deadlines,
trust and errors of HTTP, and nothing of jobs. On aiohttp, because the logs of each ended attempt are two calls
(docs/decisions/046-clusters-are-read-with-aiohttp.md).
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp
import orjson

from shared.adapters.nomad.answers import error_of
from shared.adapters.nomad.policies import needed
from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.trust import context_of, trouble
from shared.adapters.token_file import Token
from shared.errors import Misconfigured, SeraiError, Unavailable

LOST = (aiohttp.ClientError, OSError)
"""A timeout is one too. A refusal to trust us may come with the first byte that is read, past the handshake."""

_IDLE_S = 45.0
"""Less than firewalls remember a connection; more than the pauses between looks, so that few handshakes are needed."""

Params = Mapping[str, str | int] | tuple[tuple[str, str | int], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its body and Nomad's headers (`index` is of the table, `next_token` empty on the last page)."""

    body: bytes
    index: int = 0
    known_leader: bool = False
    next_token: str = ""

    def json(self) -> Any:
        """The body's value. Raises Unavailable where it is cut off or not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as wrong:
            raise Unavailable(f"Nomad's answer is not JSON: {wrong}", code="nomad_unclear") from wrong


class Lasting(StrEnum):
    """What stays open, and has connections of its own: followed logs never keep the event stream out."""

    EVENTS = "events"
    FOLLOWED_LOG = "followed log"


class Pool:
    """So many connections to one cluster; more wait for one of them."""

    def __init__(self, settings: ClusterSettings, context: ssl.SSLContext, connections: int) -> None:
        self._room = asyncio.Semaphore(connections)
        self._connections = connections
        self._settings = settings
        self._context = context
        self._made: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def room(self, patience_s: float) -> AsyncIterator[aiohttp.ClientSession]:
        """A session with a connection that nobody else uses. Raises TimeoutError when none comes free in time."""
        async with asyncio.timeout(patience_s):
            await self._room.acquire()
        try:
            yield self._session()
        finally:
            self._room.release()

    def _session(self) -> aiohttp.ClientSession:
        """Made within the event loop that uses it."""
        if self._made is None:
            self._made = aiohttp.ClientSession(
                base_url=self._settings.address,
                connector=aiohttp.TCPConnector(ssl=self._context, limit=self._connections, keepalive_timeout=_IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._made

    async def aclose(self) -> None:
        """Close its connections; what is open ends."""
        if self._made is not None:
            await self._made.close()


class NomadHttp:
    """Pools to one cluster: one for calls with an end, and one for each kind of what stays open."""

    def __init__(self, settings: ClusterSettings, calls: int) -> None:
        self._settings = settings
        self._token = Token(settings.token.get_secret_value(), settings.token_file)
        self._region = (("region", settings.region),) if settings.region else ()
        context = context_of(settings)
        self._calls = Pool(settings, context, calls)
        self._lasting = {
            Lasting.EVENTS: Pool(settings, context, 1),
            Lasting.FOLLOWED_LOG: Pool(settings, context, settings.log_connections),
        }

    async def get(self, path: str, params: Params | None = None, *, timeout_s: float | None = None) -> Answer:
        """One GET. Raises NotFound, Refused, Misconfigured or Unavailable."""
        deadline = timeout_s or self._settings.call_timeout_s
        try:
            async with asyncio.timeout(deadline):
                async with self._asked(self._calls, path, params or (), deadline, deadline) as response:
                    body = await response.read()
        except LOST as lost:
            if type(lost) is TimeoutError:
                raise self._unavailable(path, f"no answer within {deadline:g} s") from lost
            raise self._lost(path, lost) from lost
        if not response.ok:
            raise self._refused(path, response.status, body.decode(errors="replace"))
        return _answer(response, body)

    @asynccontextmanager
    async def open(
        self, path: str, params: Params, *, silence_s: float, lasting: Lasting | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a body as they come, at most `silence_s` apart; errors as for `get`, at any piece.

        One that is not `lasting` is a call like others, and waits for a connection as long as they do.
        """
        pool = self._lasting[lasting] if lasting else self._calls
        patience_s = 1.0 if lasting else self._settings.call_timeout_s
        async with contextlib.AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._asked(pool, path, params, patience_s, silence_s))
            except LOST as lost:
                raise self._lost(path, lost) from lost
            if not response.ok:
                raise self._refused(path, response.status, await _text(response))
            yield self._pieces(path, response)

    @asynccontextmanager
    async def _asked(
        self, pool: Pool, path: str, params: Params, patience_s: float, silence_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The beginning of an answer. Its connection is closed where the answer is not read to its end."""
        given = (*(params.items() if isinstance(params, Mapping) else params), *self._region)
        timeout = aiohttp.ClientTimeout(sock_connect=self._settings.connect_timeout_s, sock_read=silence_s)
        async with (
            pool.room(patience_s) as session,
            session.get(
                path, params=given, timeout=timeout, headers=self._token.headers("X-Nomad-Token"),
                server_hostname=self._settings.tls_server_name or None, allow_redirects=False,
            ) as response,
        ):  # fmt: skip
            yield response

    async def _pieces(self, path: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in response.content.iter_any():
                yield piece
        except LOST as lost:
            raise self._lost(path, lost) from lost

    def _where(self, path: str) -> str:
        return f"cluster {self._settings.name}: GET {path}"

    def _refused(self, path: str, status: int, text: str) -> SeraiError:
        return error_of(status, text, self._where(path), wrote=False, needs=needed(path))

    def _unavailable(self, path: str, why: str) -> Unavailable:
        return Unavailable(f"{self._where(path)}: {why}", code="nomad_unavailable")

    def _lost(self, path: str, lost: Exception) -> SeraiError:
        if mend := trouble(lost):
            return Misconfigured(f"{self._where(path)}: {lost} ({mend})", code="nomad_tls")
        return self._unavailable(path, f"{type(lost).__name__} {lost}".strip())

    async def aclose(self) -> None:
        """Close all connections; open streams end with Unavailable."""
        for pool in (self._calls, *self._lasting.values()):
            await pool.aclose()


async def _text(response: aiohttp.ClientResponse) -> str:
    try:
        return (await response.read()).decode(errors="replace")
    except LOST as lost:
        return f"(text lost: {lost})"


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    headers = response.headers
    return Answer(
        body=body,
        index=int(headers.get("X-Nomad-Index") or 0),
        known_leader=headers.get("X-Nomad-KnownLeader") == "true",
        next_token=headers.get("X-Nomad-NextToken") or "",
    )
