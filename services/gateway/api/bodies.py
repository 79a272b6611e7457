"""Reading requests within limits: bodies never larger than allowed, JSON only, no parameter that nobody knows."""

import re
from typing import Any, Final

import orjson
from fastapi import Request
from fastapi.routing import APIRoute

from services.gateway.input_errors import nearest
from services.gateway.keeping import Key
from services.gateway.submission import request_hash
from shared.errors import Refused
from shared.runtime.http import NotUnderstood

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


async def read_body(request: Request, limit: int) -> bytes:
    """The body, never more than `limit` bytes of it. Raises Refused (code `too_large`)."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def decode_json(request: Request, body: bytes) -> Any:
    """The JSON value of a body. Raises Refused (`unsupported_media_type`, `undecodable`)."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower()
    if media_type.strip().lower() != "application/json" or (charset and charset not in ("charset=utf-8",)):
        given = request.headers.get("content-type", "")[:80] or "none"
        raise Refused(f"the content type is {given}; send application/json", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused("compressed bodies are not supported; send plain JSON", code="unsupported_media_type")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(f"the body is not valid JSON: {error}", code="undecodable") from error


def idempotency_key(request: Request, body: bytes) -> Key | None:
    """The request's Idempotency-Key, if it has one. Raises Refused when it is not 1 to 255 visible characters."""
    value = request.headers.get("idempotency-key")
    if value is None:
        return None
    if not _KEY.fullmatch(value):
        raise Refused(
            "the Idempotency-Key must be 1 to 255 visible ASCII characters; a UUID is a good one",
            code="invalid_request",
            details={"errors": [{"pointer": "", "detail": "header Idempotency-Key: 1 to 255 visible characters"}]},
        )
    return Key(value, request_hash(request.method, request.url.path, body))


async def known_parameters(request: Request) -> None:
    """A dependency of every route. Raises NotUnderstood (code `unknown_parameter`): a slip is told, never ignored.

    Asynchronous although it waits for nothing: FastAPI would hand a plain function to a thread at every request.
    """
    route = request.scope.get("route")
    known = {field.alias for field in route.dependant.query_params} if isinstance(route, APIRoute) else set()
    for name in request.query_params:
        if name not in known:
            hint = nearest(name, known)
            raise NotUnderstood(
                f"unknown query parameter {name[:80]!r}" + (f"; {hint}" if hint else "; none is known here"),
                code="unknown_parameter",
            )


def _too_large(limit: int) -> Refused:
    return Refused(
        f"the body is larger than {limit} bytes; put large inputs where the job can fetch them",
        code="too_large",
        details={"limit": limit},
    )
