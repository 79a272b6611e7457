"""The HTTP face of a double: made for every test, so without FastAPI, which reads a signature anew for each route."""

from collections.abc import Awaitable, Callable
from functools import partial

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.errors import SeraiError
from shared.runtime.http import error_response, problem_response

Handler = Callable[[Request], Awaitable[BaseModel | Response]]


def answering(*routes: tuple[str, str, Handler]) -> Starlette:
    """An app of routes by method and path; what is raised is answered as the services themselves answer it."""
    app = Starlette()
    add(app, *routes)
    app.add_exception_handler(SeraiError, _refused)
    app.add_exception_handler(HTTPException, _not_here)
    return app


def add(app: Starlette, *routes: tuple[str, str, Handler]) -> None:
    """Further routes."""
    app.router.routes += [Route(path, partial(_answer, handler), methods=[way]) for way, path, handler in routes]


async def _answer(handler: Handler, request: Request) -> Response:
    told = await handler(request)
    return told if isinstance(told, Response) else Response(told.model_dump_json(), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    return error_response(error)


async def _not_here(request: Request, error: Exception) -> Response:
    return problem_response("not_found", f"{request.method} {request.url.path} is not a route of this double")
