"""Routes for users' secrets: set, list by name, delete. A value goes in and never comes out again.

Auth owns them; here they only pass, in memory. Not through the bus: what is told there is kept (decision 038).
"""

import base64
import binascii
from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.gateway import requests
from services.gateway.access import Access
from services.gateway.api import bodies, routing
from services.gateway.input_errors import InputError
from services.gateway.requests import VoName
from shared.contracts.questions import Answer, SecretDelete, SecretList, SecretsTold, SecretTold, SecretWrite
from shared.runtime.questions import Questions

PERMISSION = "secret.manage"
_BODY_LIMIT = 65_536
_INPUT = ("invalid_request", "undecodable", "unsupported_media_type", "too_large", "forbidden")

_VO = Query(description="The VO that the secret belongs to.", pattern=requests.VO_PATTERN)
VoParameter = Annotated[str | None, _VO]


class SecretInput(BaseModel):
    """A secret's value, up to 32 KiB."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    vo: VoName = Field(description="Jobs of this VO may use it; yours only.")
    value: Annotated[str, StringConstraints(max_length=_BODY_LIMIT)] = Field(
        repr=False, description="Never shown.", json_schema_extra={"minLength": 1}
    )
    encoding: Literal["text", "base64"] = Field(default="text", description="How `value` is written: UTF-8 or base64.")


class SecretRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(self, access: Access, auth: Questions) -> None:
        self._access = access
        self._auth = auth

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        shared: dict[str, Any] = {"tag": "secrets", "permission": PERMISSION}
        routing.add(app, "GET", "/v1/secrets", self.list_secrets, answer=SecretsTold, **shared)
        routing.add(
            app, "PUT", "/v1/secrets/{name}", self.put_secret, answer=SecretTold, body="SecretInput",
            problems=(*_INPUT, "secrets_too_large", "too_many_secrets"), **shared,
        )  # fmt: skip
        routing.add(
            app, "DELETE", "/v1/secrets/{name}", self.delete_secret, status=204, problems=("not_found", *_INPUT),
            **shared,
        )  # fmt: skip

    async def list_secrets(self, request: Request, vo: VoParameter = None) -> Response:
        """Names and dates of your secrets, of one VO or of all. Values are never shown, to nobody."""
        caller = await self._access.caller(request)
        asked = SecretList(token=caller.token, vo=vo)
        told = await self._auth.ask("POST", "/internal/secrets:list", SecretsTold, body=asked)
        return _answer(told)

    async def put_secret(self, request: Request, name: str) -> Response:
        """Set a secret of yours, new or anew. Jobs that start from now on get this value; running ones keep theirs."""
        caller = await self._access.caller(request)
        body = await bodies.read_body(request, _BODY_LIMIT * 2)
        given = requests.read(SecretInput, bodies.decode_json(request, body))
        value = base64.b64encode(_bytes_of(given)).decode()
        asked = SecretWrite(token=caller.token, vo=given.vo, name=name, value=value)
        return _answer(await self._auth.ask("PUT", "/internal/secrets", SecretTold, body=asked))

    async def delete_secret(self, request: Request, name: str, vo: Annotated[str, _VO]) -> Response:
        """Delete a secret. Jobs that are still queued and name it will end; running ones keep what they have."""
        caller = await self._access.caller(request)
        asked = SecretDelete(token=caller.token, vo=vo, name=name)
        await self._auth.ask("POST", "/internal/secrets:delete", Answer, body=asked)
        return Response(status_code=204)


def _bytes_of(given: SecretInput) -> bytes:
    if given.encoding == "text":
        return given.value.encode()
    try:
        return base64.b64decode(given.value, validate=True)
    except (binascii.Error, ValueError):
        raise requests.refused([InputError("/value", "is not base64", "leave `encoding` out for text")]) from None


def _answer(told: BaseModel) -> Response:
    body = orjson.dumps(told.model_dump(mode="json"))
    return routing.json_bytes(body, headers={"Cache-Control": "no-store"})
