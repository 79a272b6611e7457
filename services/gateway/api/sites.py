"""Routes for sites: how they are doing, and the operators' cordon."""

from typing import Annotated

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.gateway import requests
from services.gateway.access import Access, Caller
from services.gateway.api import bodies, routing
from services.gateway.api.documents import Accepted
from services.gateway.commanding import Commanding
from services.gateway.permissions import CORDON, SITES
from shared.contracts.commands import CordonSite, UncordonSite
from shared.contracts.questions import SitesAnswer
from shared.errors import NotFound
from shared.job import ONE_LINE
from shared.ports import Clock
from shared.runtime.questions import Questions

_BODY_LIMIT = 4_096


class CordonInput(BaseModel):
    """Why; shown to everyone who asks why a job does not go there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    reason: Annotated[str, StringConstraints(pattern=ONE_LINE, max_length=500)] = Field(
        default="", description="For people, in one line."
    )


class SiteRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(self, access: Access, commanding: Commanding, scheduler: Questions, clock: Clock) -> None:
        self._access = access
        self._commanding = commanding
        self._scheduler = scheduler
        self._clock = clock

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        problems = ("not_found", "forbidden", "invalid_request", "undecodable", "unsupported_media_type", "too_large")
        routing.add(
            app,
            "GET",
            "/v1/sites",
            self.list_sites,
            tag="sites",
            permission=SITES,
            answer=SitesAnswer,
            problems=("forbidden",),
        )
        routing.add(
            app, "POST", "/v1/sites/{site}:cordon", self.cordon_site, tag="sites", permission=CORDON, answer=Accepted,
            status=202, problems=problems, body="CordonInput",
        )  # fmt: skip
        routing.add(
            app, "POST", "/v1/sites/{site}:uncordon", self.uncordon_site, tag="sites", permission=CORDON,
            answer=Accepted, status=202, problems=("not_found", "forbidden"),
        )  # fmt: skip

    async def list_sites(self, request: Request) -> Response:
        """Every site: health, what it has, what is free, what it costs."""
        caller = await self._access.caller(request)
        caller.must_hold_somewhere(SITES)
        answer = await self._sites(caller)
        return routing.json_bytes(answer.model_dump_json().encode())

    async def cordon_site(self, request: Request, site: str) -> Response:
        """Place nothing more at a site; what runs there goes on. For site operators."""
        caller = await self._access.caller(request)
        body = await bodies.read_body(request, _BODY_LIMIT)
        why = requests.read(CordonInput, bodies.decode_json(request, body)) if body else CordonInput()
        await self._known(caller, site)
        command = CordonSite(
            site=site, reason=why.reason, requested_by=caller.context.principal, requested_at=self._clock()
        )
        await self._commanding.cordon(caller, command)
        return _accepted(command)

    async def uncordon_site(self, request: Request, site: str) -> Response:
        """Place at a site again. For site operators."""
        caller = await self._access.caller(request)
        await self._known(caller, site)
        command = UncordonSite(site=site, requested_by=caller.context.principal, requested_at=self._clock())
        await self._commanding.cordon(caller, command)
        return _accepted(command)

    async def _sites(self, caller: Caller) -> SitesAnswer:
        return await self._scheduler.ask("GET", "/internal/sites", SitesAnswer, read_grant=caller.context.read_grant)

    async def _known(self, caller: Caller, site: str) -> None:
        names = [each.name for each in (await self._sites(caller)).sites]
        if site not in names:
            raise NotFound(f"there is no site {site[:80]!r}; there are: {', '.join(sorted(names))}", code="not_found")


def _accepted(command: CordonSite | UncordonSite) -> Response:
    document = {"site": command.site, "requested_at": command.requested_at.isoformat(), "command": command.kind}
    return routing.json_bytes(orjson.dumps(document), status=202)
