"""Asking another service: HTTP to its `/internal/...`. A question changes nothing: a failed one is just Unavailable.

Straight to the transport: redirects, cookies and logins, which a client adds, would be half of what a question costs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx2 as httpx
from pydantic import BaseModel, ValidationError

from shared.errors import Conflict, NotFound, Refused, SeraiError, Unavailable
from shared.runtime.service_identity import Identity, SharedSecret

A = TypeVar("A", bound=BaseModel)

READ_GRANT_HEADER = "Serai-Read-Grant"
_ENDLESS: Final = httpx.Timeout(5.0, read=None).as_dict()


class Questions:
    """A client of one other service. `identity` is what it shows there, a text being a secret that all share.

    `transport` lets embedded services talk without a socket.
    """

    def __init__(
        self,
        base_url: str,
        service: str,
        identity: Identity | SharedSecret | str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._service = service
        self._identity = SharedSecret(identity) if isinstance(identity, str) else identity
        self._base_url = base_url.rstrip("/")
        self._transport = transport or httpx.AsyncHTTPTransport(trust_env=False)
        self._timeout = httpx.Timeout(timeout_s, connect=2.0).as_dict()

    async def ask(
        self,
        method: str,
        path: str,
        answer: type[A],
        *,
        body: BaseModel | None = None,
        params: dict[str, Any] | None = None,
        read_grant: str | None = None,
    ) -> A:
        """One question, one answer. Raises what the problem document says, or Unavailable when there is none."""
        response = await self._send(method, path, body, params, read_grant)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise Unavailable(f"{self._service} answered {path} in a form that is not understood: {error}") from error

    async def fetch(self, path: str, *, params: dict[str, Any] | None = None, read_grant: str | None = None) -> bytes:
        """The bytes at a path."""
        return (await self._send("GET", path, None, params, read_grant)).content

    async def stream(
        self, path: str, *, params: dict[str, Any] | None = None, read_grant: str | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes at a path as they come; no deadline between chunks. Close the iterator to stop."""
        request = self._request("GET", path, self._headers(read_grant), params, timeout=_ENDLESS)
        try:
            async with self._answer(request) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise self._error(response)
                async for chunk in response.aiter_raw():
                    yield chunk
        except httpx.TransportError as error:
            raise self._away(error) from error

    async def close(self) -> None:
        await self._transport.aclose()

    async def _send(
        self, method: str, path: str, body: BaseModel | None, params: dict[str, Any] | None, read_grant: str | None
    ) -> httpx.Response:
        headers = self._headers(read_grant)
        content = None
        if body is not None:
            content, headers["Content-Type"] = body.model_dump_json().encode(), "application/json"
        request = self._request(method, path, headers, params, content, timeout=self._timeout)
        try:
            async with self._answer(request) as response:
                await response.aread()
        except httpx.TransportError as error:
            raise self._away(error) from error
        if response.status_code >= 400:
            raise self._error(response)
        return response

    def _request(
        self, method: str, path: str, headers: dict[str, str], params: dict[str, Any] | None,
        content: bytes | None = None, *, timeout: dict[str, float | None],
    ) -> httpx.Request:  # fmt: skip
        url, told = f"{self._base_url}{path}", {"timeout": timeout}
        return httpx.Request(method, url, params=params, headers=headers, content=content, extensions=told)

    @asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        response = await self._transport.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()

    def _headers(self, read_grant: str | None) -> dict[str, str]:
        headers = self._identity.headers(self._service)
        return headers | {READ_GRANT_HEADER: read_grant} if read_grant else headers

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._service} does not answer: {error!r}", code="unavailable")

    def _error(self, response: httpx.Response) -> SeraiError:
        """The error that a problem document stands for, as if it had been raised here."""
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        what = str(problem.get("detail") or f"{self._service} answered {response.status_code}")
        code = str(problem.get("code") or "")
        if code == "grant_expired":
            return Unavailable(
                "the authorisation of this question has run out, and auth cannot be asked for another now"
            )
        if response.status_code == 404:
            return NotFound(what, code=code)
        if response.status_code == 409:
            return Conflict(what, code=code)
        if response.status_code < 500 and response.status_code != 429:
            return Refused(what, code=code)
        retry_after = response.headers.get("retry-after", "")
        return Unavailable(what, code=code, retry_after_s=float(retry_after) if retry_after.isdigit() else 1.0)
