"""Puts the routes together and describes them (OpenAPI 3.1)."""

from typing import Any, Final, Protocol

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.gateway.api.about import API_VERSION
from services.gateway.api.documents import ProblemDocument
from services.gateway.api.progress import ProgressInput
from services.gateway.api.secrets import SecretInput
from services.gateway.api.sites import CordonInput
from services.gateway.requests import JobFile
from services.gateway.subscriptions import SubscriptionInput
from shared.runtime.http import Who, install_problems

_REF: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = (
    "Hand in a job once; it runs at one of many sites. Every error is an RFC 9457 problem whose `type` links to its "
    "page. Commands are answered 202 and carried out; events tell of every step."
)


class Routes(Protocol):
    """One module's routes."""

    def add_to(self, app: FastAPI) -> None: ...


def create_app(routes: list[Routes], who: Who, problem_base: str = "") -> FastAPI:
    """The application with these routes; `who` finds out who is calling.

    Its own documentation routes are off: theirs load from elsewhere.
    """
    app = FastAPI(
        title="Serai", version=API_VERSION, description=_DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    install_problems(app, problem_base, who)
    for each in routes:
        each.add_to(app)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the bodies that are read by hand and the problem document."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes,
            openapi_version="3.1.0",
        )  # fmt: skip
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for model in (JobFile, ProblemDocument, CordonInput, SecretInput, SubscriptionInput, ProgressInput):
            _add(schemas, model)
        files = {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"$ref": _REF.format(model="JobFile")}}
        schemas["JobBatch"] = {
            "type": "object", "required": ["jobs"], "additionalProperties": False, "properties": {"jobs": files},
        }  # fmt: skip
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _without_default_422(made)
        app.openapi_schema = made
    return app.openapi_schema


def _add(schemas: dict[str, Any], model: Any) -> None:
    schema = model.model_json_schema(ref_template=_REF)
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema


def _without_default_422(description: dict[str, Any]) -> None:
    """FastAPI documents its own 422 wherever there are parameters; ours is a problem document."""
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(model=ProblemDocument.__name__)}}}
    for item in description["paths"].values():
        for operation in item.values():
            given = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(given.get("content", "")):
                operation["responses"]["422"] = {"description": "`invalid_request`", "content": problem}
