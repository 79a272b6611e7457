"""What all routes share: how they are documented, guarded and answered."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Header, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic.config import JsonDict

from services.gateway import requests
from services.gateway.api.bodies import known_parameters
from services.gateway.api.documents import ProblemDocument
from shared.runtime.http import OPEN, needs
from shared.runtime.preconditions import Condition, etag, etag_of, has_already
from shared.runtime.problems import CONTENT_TYPE, PROBLEMS

__all__ = ["OPEN", "add", "conditions", "job_headers", "json_bytes", "text_content", "unless_known"]

IfMatch = Annotated[str | None, Header(description="Only if it is still as this ETag says; otherwise 412.")]
IfNoneMatch = Annotated[str | None, Header(description="ETag that you have: 304 when it is still that one.")]
OnlyNew = Annotated[str | None, Header(alias="If-None-Match", description="`*`: only if there is none; otherwise 412.")]
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "As `If-None-Match` says it is"}}

VO: Final[JsonDict] = {"pattern": requests.VO_PATTERN}
LABELS: Final[JsonDict] = {"items": {"type": "string", "pattern": requests.LABEL_PATTERN}}
"""How a list of labels is described; it is checked, and told in our own words, by `preferences.labels`."""

_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="token", description="An access token of one of the issuers that `GET /v1` names."
)
_ALWAYS: Final = ("unknown_parameter", "malformed_request")
_GUARDED: Final = ("unauthenticated", "token_expired", "suspended", "unavailable", "too_many_requests")


def add(
    app: FastAPI, method: str, path: str, endpoint: Callable[..., Any], *, tag: str, permission: str,
    answer: Any = None, status: int = 200, problems: tuple[str, ...] = (), body: str | None = None,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Add a route; generated clients call it as the endpoint is called. `permission` is the verb it needs, or `OPEN`;
    `body` names a schema of `api/app.py`.
    """
    guarded = permission != OPEN
    located = ("not_found",) if "{" in path else ()
    codes = (*_ALWAYS, *located, *(_GUARDED if guarded else ()), *problems)
    extra: dict[str, Any] = needs(permission)
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    app.add_api_route(
        path, endpoint, methods=[method], tags=[tag], response_model=answer, status_code=status,
        responses={**_documented(codes), **(responses or {})},
        dependencies=[Depends(known_parameters), *([Security(_BEARER)] if guarded else [])], openapi_extra=extra,
        response_model_exclude_none=False, operation_id=endpoint.__name__,
    )  # fmt: skip


def _documented(codes: tuple[str, ...]) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in sorted(set(same))),
            "content": {CONTENT_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}},
        }
        for status, same in sorted(by_status.items())
    }  # fmt: skip


def unless_known(
    body: bytes, if_none_match: str | None, headers: dict[str, str], media_type: str = "application/json"
) -> Response:
    """Bytes with their ETag, or 304 when the reader has them."""
    headers = {"ETag": etag_of(body), **headers}
    if has_already(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def conditions(request: Request) -> Condition:
    """Under what a change is wanted; fields that were given in several lines count as one list."""
    lists = (", ".join(request.headers.getlist(name)) or None for name in ("if-match", "if-none-match"))
    return Condition(*lists)


def text_content(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """How a route that streams something else than JSON is documented."""
    return content(media_type, description, {"type": "string"})


def stream_of(media_type: str, item: dict[str, Any], description: str) -> dict[int | str, dict[str, Any]]:
    """How a route is documented that sends one thing after the other. OpenAPI 3.1 has no word for that: each thing is
    described by an extension, `x-itemSchema`, as OpenAPI 3.2 does by `itemSchema`.
    """
    return {200: {"description": description, "content": {media_type: {"x-itemSchema": item}}}}


def content(media_type: str, description: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """How a route is documented whose answer is not plain JSON."""
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


def json_bytes(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Ready-made JSON."""
    return Response(body, status, headers, media_type="application/json")


def job_headers(version: int, job_id: object = None) -> dict[str, str]:
    """ETag, caching, and (for 202) where the job is."""
    headers = {"ETag": etag(version), "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    return headers if job_id is None else {**headers, "Location": f"/v1/jobs/{job_id}"}
