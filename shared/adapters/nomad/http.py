"""Asynchronous HTTP towards one cluster: what `reading`, `stream`, `logs` and `files` stand on.

python-nomad hides the headers, pages and heartbeats that reading needs (reference/nomad.md, 9). This knows deadlines,
trust and errors of HTTP, and nothing of jobs.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx2
import orjson

from shared.adapters.nomad.answers import error_of
from shared.adapters.nomad.policies import needed
from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.trust import context_of, trouble
from shared.adapters.token_file import Token
from shared.errors import Misconfigured, SeraiError, Unavailable

LOST = (httpx2.HTTPError, ssl.SSLError)
"""A refusal to trust us comes with the first byte that is read, past the handshake: httpx2 lets it through as it is."""

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


class NomadHttp:
    """Pools to one cluster: one for calls with an end, and one for each kind of what stays open."""

    def __init__(self, settings: ClusterSettings, calls: int) -> None:
        self._settings = settings
        self._context = context_of(settings)
        self._token = Token(settings.token.get_secret_value(), settings.token_file)
        self._calls = self._client(calls)
        self._lasting = {
            Lasting.EVENTS: self._client(1), Lasting.FOLLOWED_LOG: self._client(settings.log_connections),
        }  # fmt: skip

    def _client(self, connections: int) -> httpx2.AsyncClient:
        settings = self._settings
        return httpx2.AsyncClient(
            base_url=settings.address,
            headers={"Accept-Encoding": "identity"},
            auth=self._signed,
            params={"region": settings.region} if settings.region else None,
            verify=self._context,
            trust_env=False,
            timeout=httpx2.Timeout(settings.call_timeout_s, connect=settings.connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S
            ),
        )

    def _signed(self, request: httpx2.Request) -> httpx2.Request:
        request.headers.update(self._token.headers("X-Nomad-Token"))
        return request

    @property
    def _extensions(self) -> dict[str, Any]:
        name = self._settings.tls_server_name
        return {"sni_hostname": name} if name else {}

    async def get(self, path: str, params: Params | None = None, *, timeout_s: float | None = None) -> Answer:
        """One GET. Raises NotFound, Refused, Misconfigured or Unavailable."""
        deadline = timeout_s or self._settings.call_timeout_s
        try:
            async with asyncio.timeout(deadline):
                response = await self._calls.get(path, params=params, extensions=self._extensions)
        except TimeoutError as late:
            raise self._unavailable(path, f"no answer within {deadline:g} s") from late
        except LOST as lost:
            raise self._lost(path, lost) from lost
        if not response.is_success:
            raise self._refused(path, response.status_code, response.text)
        return _answer(response)

    @asynccontextmanager
    async def open(
        self, path: str, params: Params, *, silence_s: float, lasting: Lasting | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a body as they come, at most `silence_s` apart; errors as for `get`, at any piece.

        One that is not `lasting` is a call like others, and waits for a connection as long as they do.
        """
        client = self._lasting[lasting] if lasting else self._calls
        patience_s = 1.0 if lasting else self._settings.call_timeout_s
        timeout = httpx2.Timeout(silence_s, connect=self._settings.connect_timeout_s, pool=patience_s)
        request = client.build_request("GET", path, params=params, timeout=timeout, extensions=self._extensions)
        try:
            response = await client.send(request, stream=True)
        except LOST as lost:
            raise self._lost(path, lost) from lost
        try:
            if not response.is_success:
                raise self._refused(path, response.status_code, await _text(response))
            yield self._pieces(path, response)
        finally:
            await response.aclose()

    async def _pieces(self, path: str, response: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_raw():
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
        for client in (self._calls, *self._lasting.values()):
            await client.aclose()


async def _text(response: httpx2.Response) -> str:
    try:
        return (await response.aread()).decode(errors="replace")
    except LOST as lost:
        return f"(text lost: {lost})"


def _answer(response: httpx2.Response) -> Answer:
    headers = response.headers
    return Answer(
        body=response.content,
        index=int(headers.get("X-Nomad-Index") or 0),
        known_leader=headers.get("X-Nomad-KnownLeader") == "true",
        next_token=headers.get("X-Nomad-NextToken") or "",
    )
