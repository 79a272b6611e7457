"""Asking another service: HTTP to its `/internal/...`. A question changes nothing: a failed one is just Unavailable."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import httpx2 as httpx
import orjson
from pydantic import BaseModel, ValidationError

from shared.errors import Conflict, NotFound, Refused, SeraiError, Unavailable
from shared.runtime import ways
from shared.runtime.service_identity import Identity, SharedSecret
from shared.runtime.ways import AnyCopy, Asked, Lost, OverHttpx, Way

A = TypeVar("A", bound=BaseModel)

READ_GRANT_HEADER = "Serai-Read-Grant"


class Questions:
    """A client of one other service. `identity` is what it shows there, a text being a secret that all share.

    `way` leads there; without one, the address does. `transport` lets services of one process talk without a socket.
    """

    def __init__(
        self,
        base_url: str,
        service: str,
        identity: Identity | SharedSecret | str,
        *,
        way: Way | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._service = service
        self._identity = SharedSecret(identity) if isinstance(identity, str) else identity
        self._way = way or (OverHttpx(base_url, transport) if transport else AnyCopy(lambda: (base_url,), service))
        self._timeout_s = timeout_s

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
        told = await self._send(method, path, body, params, read_grant)
        try:
            return answer.model_validate_json(told)
        except ValidationError as error:
            raise Unavailable(f"{self._service} answered {path} in a form that is not understood: {error}") from error

    async def fetch(self, path: str, *, params: dict[str, Any] | None = None, read_grant: str | None = None) -> bytes:
        """The bytes at a path."""
        return await self._send("GET", path, None, params, read_grant)

    async def stream(
        self, path: str, *, params: dict[str, Any] | None = None, read_grant: str | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes at a path as they come; no deadline between chunks. Close the iterator to stop."""
        asked = Asked("GET", path + ways.query(params), self._headers(read_grant), None, None, self._timeout_s)
        try:
            async with self._way.ask(asked) as told:
                if told.status >= 400:
                    raise self._error(told.status, told.headers, await told.read())
                async for piece in told.pieces():
                    yield piece
        except Lost as lost:
            raise self._away(lost) from lost

    async def close(self) -> None:
        await self._way.close()

    async def _send(
        self, method: str, path: str, body: BaseModel | None, params: dict[str, Any] | None, read_grant: str | None
    ) -> bytes:
        headers, content = self._headers(read_grant), None
        if body is not None:
            content, headers["Content-Type"] = body.model_dump_json().encode(), "application/json"
        asked = Asked(method, path + ways.query(params), headers, content, self._timeout_s, self._timeout_s)
        try:
            async with self._way.ask(asked) as told:
                answer = await told.read()
        except Lost as lost:
            raise self._away(lost) from lost
        if told.status >= 400:
            raise self._error(told.status, told.headers, answer)
        return answer

    def _headers(self, read_grant: str | None) -> dict[str, str]:
        headers = self._identity.headers(self._service)
        return headers | {READ_GRANT_HEADER: read_grant} if read_grant else headers

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._service} does not answer: {error}", code="unavailable")

    def _error(self, status: int, headers: Mapping[str, str], answer: bytes) -> SeraiError:
        """The error that a problem document stands for, as if it had been raised here."""
        problem = _problem(answer)
        what = str(problem.get("detail") or f"{self._service} answered {status}")
        code = str(problem.get("code") or "")
        if code == "grant_expired":
            return Unavailable(
                "the authorisation of this question has run out, and auth cannot be asked for another now"
            )
        if status == 404:
            return NotFound(what, code=code)
        if status == 409:
            return Conflict(what, code=code)
        if status < 500 and status != 429:
            return Refused(what, code=code)
        retry_after = headers.get("retry-after", "")
        return Unavailable(what, code=code, retry_after_s=float(retry_after) if retry_after.isdigit() else 1.0)


def _problem(answer: bytes) -> dict[str, Any]:
    try:
        problem = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
