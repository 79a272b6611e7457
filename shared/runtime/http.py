"""What every service's HTTP face has: problems for errors, health, and a door for other services only."""

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from shared.errors import Refused, SeraiError, TooMany, Unavailable
from shared.runtime import logs, problems
from shared.runtime.service import Service
from shared.runtime.service_identity import Door

log = logs.get("runtime.http")

Who = Callable[[Request], Awaitable[object]]

_BY_STATUS = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


SERVICE: Final = "service"
"""What a route under `/internal` needs: to be asked by another service of the platform."""
OPEN: Final = "open"
"""The mark of a route that needs no token."""
SIGNED_IN: Final = "authenticated"
"""What a route needs that is for everybody who has a good token."""


def needs(verb: str) -> dict[str, Any]:
    """How a route names what it needs, for its `openapi_extra`: a verb, or one of the three words above.

    docs/permissions.md lists all routes with it; a test compares, and asks each as everybody.
    """
    return {"x-permission": verb}


def between_services(door: Door, *may: str) -> dict[str, Any]:
    """How a route under `/internal` is added: for the services named in `may`, and marked so."""
    return {"dependencies": [Depends(_ServicesOnly(door, may))], "openapi_extra": needs(SERVICE)}


class _ServicesOnly:
    """A dependency that lets the services named in `may` in and nobody else.

    Asynchronous although it waits for nothing: FastAPI would hand a plain function to a thread at every question.
    """

    def __init__(self, door: Door, may: tuple[str, ...]) -> None:
        self._door = door
        self._may = may

    async def __call__(self, request: Request) -> None:
        self._door.who(request.headers, self._may)


class NotUnderstood(Refused):
    """Refused for its form, as FastAPI itself refuses parameters and bodies: before anybody looked who sent it."""


def problem_response(
    code: str, detail: str, *, base: str = "", headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A ready problem+json response."""
    status, body = problems.document(code, detail, base=base, **members)
    return JSONResponse(body, status_code=status, headers=headers, media_type=problems.CONTENT_TYPE)


def error_response(error: Exception, base: str = "") -> Response:
    """The response for any error: ours with its words, a stranger with none (they go to the log).

    Of a client that went away, or was sent away, in the middle of its body: nobody reads it, and nothing failed.
    """
    if isinstance(error, ClientDisconnect):
        return problem_response("request_timeout", "the body did not come to its end", base=base)
    code = problems.code_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, TooMany):
        headers |= rate_headers(error.name, error.amount, error.window_s, error.remaining, error.retry_after_s)
    if problems.PROBLEMS[code].status == 401:
        headers["WWW-Authenticate"] = "Bearer" if code == "unauthenticated" else 'Bearer error="invalid_token"'
    if isinstance(error, SeraiError):
        return problem_response(code, error.what, base=base, headers=headers, **error.details)
    log.error("unexpected_error", error=repr(error), exc_info=error)
    return problem_response(code, "An unexpected error; the operators find it in the log.", base=base, headers=headers)


def rate_headers(name: str, amount: int, window_s: int, remaining: int, reset_s: float) -> dict[str, str]:
    """The fields of draft-ietf-httpapi-ratelimit-headers: the limit, and how one stands with it."""
    return {
        "RateLimit-Policy": f'"{name}";q={amount};w={window_s}',
        "RateLimit": f'"{name}";r={remaining};t={math.ceil(reset_s)}',
    }


def install_problems(app: FastAPI, base: str = "", who: Who | None = None) -> None:
    """Make every error that leaves `app` a problem document whose `type` lies under `base`.

    `who` raises unless a person has signed in. What is wrong with the form of a request is told only to whom the route
    would let in: forms are looked at first, and a stranger is to learn nothing but that he is one.
    """

    async def ours(request: Request, error: Exception) -> Response:
        return error_response(error, base)

    async def not_understood(request: Request, error: Exception) -> Response:
        try:
            for look in _lookers(request, who):
                await look(request)
        except SeraiError as refusal:
            return error_response(refusal, base)
        return error_response(error, base) if isinstance(error, SeraiError) else await invalid(request, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _BY_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "invalid_request")
        detail = {
            "not_found": "There is no such thing here.",
            "method_not_allowed": f"{request.method} is not allowed here.",
        }.get(code, str(error.detail))
        headers = dict(error.headers or {})
        if code == "method_not_allowed":
            headers["Allow"] = ", ".join(methods_of(app, request.scope))
        return problem_response(code, detail, base=base, headers=headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"pointer": "/" + "/".join(str(part) for part in item["loc"][1:]), "detail": item["msg"]}
            for item in error.errors()
        ]
        code = "undecodable" if any(item["type"] == "json_invalid" for item in error.errors()) else "invalid_request"
        detail = "; ".join(f"{item['pointer']}: {item['detail']}" for item in errors)[:1000]
        return problem_response(code, detail, base=base, errors=errors)

    app.add_exception_handler(ClientDisconnect, ours)
    app.add_exception_handler(SeraiError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(NotUnderstood, not_understood)
    app.add_exception_handler(RequestValidationError, not_understood)
    app.add_exception_handler(Exception, ours)


def _lookers(request: Request, who: Who | None) -> list[Who]:
    """What looks who is asking, on the route of a request."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or (route.openapi_extra or {}).items() >= needs(OPEN).items():
        return []
    doors: list[Who] = [each.dependency for each in route.dependencies if isinstance(each.dependency, _ServicesOnly)]
    return doors or ([who] if who is not None else [])


def methods_of(app: FastAPI, scope: MutableMapping[str, Any]) -> list[str]:
    """The methods that a path takes, by all of its routes; empty where there is nothing.

    `{id}` fits `x:renew` as well: where a route names the verb, the path is that route's alone.
    """
    routes = [route for route in app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.matches({**scope, "method": "GET"})[0] is not Match.NONE]
    verbs = [route for route in found if ":" in route.path.rpartition("}")[2]]
    return sorted({method for route in verbs or found for method in route.methods or ()})


def install_health(app: FastAPI, service: Service) -> None:
    """`/healthz`: the process answers. `/readyz`: it can do its work; otherwise 503 naming each culprit."""

    async def healthz() -> dict[str, str]:
        return {"status": "ok", "service": service.name}

    async def readyz() -> Response:
        culprits = await service.not_ready()
        body: dict[str, Any] = {
            "status": "not ready" if culprits else "ok", "service": service.name,
            "checks": {name: culprits.get(name, "ok") for name in service.checks},
        }  # fmt: skip
        if sites := service.sites():
            body["sites"] = {name: culprit or "ok" for name, culprit in sites.items()}
        return JSONResponse(body, status_code=503 if culprits else 200)

    hidden: dict[str, Any] = {"include_in_schema": False, "openapi_extra": needs(OPEN)}
    app.add_api_route("/healthz", healthz, methods=["GET"], **hidden)
    app.add_api_route("/readyz", readyz, methods=["GET"], **hidden)
