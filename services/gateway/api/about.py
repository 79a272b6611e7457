"""Routes about the API itself: the index, who one is, the job file's schema, problem pages, the documentation."""

import html
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response

from services.gateway import requests
from services.gateway.access import Access
from services.gateway.api import routing
from services.gateway.api.documents import Index, WhoAmI
from services.gateway.settings import GatewaySettings, Issuer
from shared.errors import NotFound
from shared.runtime.problems import PROBLEMS

API_VERSION: Final = "1.0"
_STATIC: Final = Path(__file__).parent.parent / "static"
_FILES: Final = {"docs.css": "text/css", "docs.js": "text/javascript"}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'", "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class AboutRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(self, settings: GatewaySettings, issuers: tuple[Issuer, ...], access: Access) -> None:
        self._settings = settings
        self._access = access
        self._index = orjson.dumps(self._index_document(issuers))

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        here: dict[str, Any] = {"tag": "about", "permission": routing.OPEN}
        known = routing.NOT_MODIFIED
        page = routing.text_content("text/html", "A page for people")
        routing.add(app, "GET", "/v1", self.get_index, answer=Index, responses=known, **here)
        schema = routing.content("application/schema+json", "The schema", {"type": "object"})
        routing.add(app, "GET", "/v1/schema/job", self.get_job_schema, responses={**known, **schema}, **here)
        routing.add(app, "GET", "/problems/{code}", self.get_problem, problems=("not_found",), responses=page, **here)
        routing.add(app, "GET", "/problems", self.list_problems, responses=page, **here)
        routing.add(app, "GET", "/docs", self.get_docs, responses=page, **here)
        routing.add(app, "GET", "/docs/{name}", self.get_docs_file, problems=("not_found",), **here)
        routing.add(app, "GET", "/v1/whoami", self.whoami, tag="about", permission="authenticated", answer=WhoAmI)

    async def get_index(self, if_none_match: routing.IfNoneMatch = None) -> Response:
        """Where everything is: a client needs only this address."""
        return routing.unless_known(self._index, if_none_match, {"Cache-Control": "max-age=60"})

    async def get_job_schema(self, if_none_match: routing.IfNoneMatch = None) -> Response:
        """The JSON Schema of the job file."""
        schema = orjson.dumps(requests.schema())
        return routing.unless_known(schema, if_none_match, {"Cache-Control": "max-age=60"}, "application/schema+json")

    async def whoami(self, request: Request) -> Response:
        """Who you are to the platform: VOs, roles, and what they let you do."""
        context = (await self._access.caller(request)).context
        memberships = [{"vo": m.vo, "role": m.role, "verbs": sorted(m.verbs)} for m in context.memberships]
        document = {
            "principal": context.principal.model_dump(), "memberships": memberships,
            "platform_roles": list(context.platform_roles), "platform_verbs": sorted(context.platform_verbs),
            "expires_at": context.expires_at,
        }  # fmt: skip
        return routing.json_bytes(orjson.dumps(document), headers={"Cache-Control": "no-store"})

    async def get_problem(self, code: str) -> Response:
        """What a problem's `type` links to: what it means and how to mend it."""
        problem = PROBLEMS.get(code)
        if problem is None:
            raise NotFound(f"there is no problem {code[:80]!r}; there are: {', '.join(PROBLEMS)}", code="not_found")
        text = _page(
            problem.title, f"<p><code>{html.escape(code)}</code>, status {problem.status}</p>"
            f"<p>{html.escape(problem.mend)}</p><p><a href='/docs'>The API</a></p>",
        )  # fmt: skip
        return Response(text, headers=_PAGE_HEADERS, media_type="text/html")

    async def list_problems(self) -> Response:
        """All problems that there are."""
        rows = "".join(
            f"<tr><td><a href='/problems/{code}'>{code}</a><td>{each.status}<td>{html.escape(each.title)}"
            for code, each in PROBLEMS.items()
        )
        text = _page("Problems", f"<table><tr><th>code<th>status<th>{rows}</table>")
        return Response(text, headers=_PAGE_HEADERS, media_type="text/html")

    async def get_docs(self) -> Response:
        """The API for people, made from `/openapi.json` in the browser; loads nothing from elsewhere."""
        return Response((_STATIC / "docs.html").read_bytes(), headers=_PAGE_HEADERS, media_type="text/html")

    async def get_docs_file(self, name: str) -> Response:
        """What the page needs."""
        if name not in _FILES:
            raise NotFound("there is no such file", code="not_found")
        return Response((_STATIC / name).read_bytes(), headers=_PAGE_HEADERS, media_type=_FILES[name])

    def _index_document(self, issuers: tuple[Issuer, ...]) -> dict[str, Any]:
        base = self._settings.public_url
        documents = {
            "openapi": "/openapi.json", "docs": "/docs", "job_schema": "/v1/schema/job", "problems": "/problems",
        }  # fmt: skip
        resources = {
            "jobs": "/v1/jobs", "batch": "/v1/jobs:batch", "explain": "/v1/jobs:explain", "sites": "/v1/sites",
            "whoami": "/v1/whoami", "secrets": "/v1/secrets",
        }  # fmt: skip
        streams = {"events": "/v1/events", "job_events": "/v1/jobs/{id}/events", "logs": "/v1/jobs/{id}/logs"}
        limits = {
            "body": self._settings.body_limit, "batch_body": self._settings.batch_body_limit,
            "batch": self._settings.batch_limit, "wait_s": int(self._settings.wait_limit_s),
        }  # fmt: skip
        return {
            "name": "serai", "version": API_VERSION, "issuers": [issuer.model_dump() for issuer in issuers],
            "documents": {name: base + path for name, path in documents.items()},
            "resources": {name: base + path for name, path in resources.items()},
            "streams": {name: base + path for name, path in streams.items()}, "limits": limits,
        }  # fmt: skip


def _page(title: str, content: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<link rel=stylesheet href=/docs/docs.css><main><h1>{html.escape(title)}</h1>{content}</main></html>"
    )
