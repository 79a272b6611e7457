"""What all routes share: how they are documented, guarded and answered."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import Depends, FastAPI, Response, Security
from fastapi.security import HTTPBearer

from services.gateway.api.bodies import known_parameters
from services.gateway.api.documents import ProblemDocument
from shared.runtime.problems import CONTENT_TYPE, PROBLEMS

OPEN: Final = "open"
"""The mark of a route that needs no token."""

_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="token", description="An access token of one of the issuers that `GET /v1` names."
)
_ALWAYS: Final = ("unknown_parameter",)
_GUARDED: Final = ("unauthenticated", "token_expired", "unavailable")


def add(
    app: FastAPI, method: str, path: str, endpoint: Callable[..., Any], *, tag: str, permission: str,
    answer: Any = None, status: int = 200, problems: tuple[str, ...] = (), body: str | None = None,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Add a route. `permission` is the verb it needs, or `OPEN`; `body` names a schema of `api/app.py`."""
    guarded = permission != OPEN
    codes = (*_ALWAYS, *(_GUARDED if guarded else ()), *problems)
    extra: dict[str, Any] = {"x-permission": permission}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    app.add_api_route(
        path, endpoint, methods=[method], tags=[tag], response_model=answer, status_code=status,
        responses={**_documented(codes), **(responses or {})},
        dependencies=[Depends(known_parameters), *([Security(_BEARER)] if guarded else [])], openapi_extra=extra,
        response_model_exclude_none=False,
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


def text_content(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """How a route that streams something else than JSON is documented."""
    return {200: {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}


def json_bytes(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Ready-made JSON."""
    return Response(body, status, headers, media_type="application/json")


def job_headers(version: int, job_id: object = None) -> dict[str, str]:
    """ETag, caching, and (for 202) where the job is."""
    headers = {"ETag": f'"{version}"', "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    return headers if job_id is None else {**headers, "Location": f"/v1/jobs/{job_id}"}
