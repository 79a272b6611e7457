"""What auth answers over HTTP to other services, and to anybody the keys that check its grants.

The routes for people who administer trust are in `admin_api.py`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import orjson
import uuid6
from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel

from services.auth import audit_store, deciding, hot, permissions, secret_store
from services.auth.audit import AuditRow
from services.auth.bad_token import BadToken
from services.auth.book import Book
from services.auth.claims import Verified
from services.auth.grants import Granting, SecretSizes
from services.auth.policies import Layers
from services.auth.principals import Principals
from services.auth.settings import AuthSettings
from services.auth.signing_keys import KeyChest
from services.auth.standing import Standing
from shared.contracts.questions import (
    Context,
    ContextRequest,
    Decision,
    DecisionRequest,
    GrantRequest,
    GrantsAnswer,
    Membership,
    RememberedAnswer,
    RememberedRequest,
)
from shared.errors import Refused
from shared.ports import Clock, Store
from shared.runtime import logs
from shared.runtime.http import OPEN, between_services, install_problems, needs
from shared.runtime.service_identity import Door
from shared.runtime.telemetry import Tracer

MOST_ITEMS: Final = 1_000
MOST_BEARERS: Final = 500

log = logs.get("auth.api")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes stand on."""

    settings: AuthSettings
    door: Door
    principals: Principals
    granting: Granting
    layers: Layers
    book: Book
    chest: KeyChest
    store: Store
    clock: Clock
    tracer: Tracer


def build(parts: Parts) -> FastAPI:
    """The app; everything under `/internal` is for services of the platform only."""
    app = FastAPI(title="Serai auth", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    install_problems(app, who=partial(signed_in, parts))
    routes = _Routes(parts)
    for method, path, endpoint, may in (
        ("POST", "context", routes.context, ("gateway",)),
        ("POST", "grants", routes.grants, hot.MAY),
        ("POST", "decisions", routes.decisions, ("scheduler",)),
        ("POST", "remembered", routes.remembered, ("gateway",)),
        ("GET", "trust", routes.trust, ("gateway", "scheduler", "monitor")),
    ):
        app.add_api_route(f"/internal/{path}", endpoint, methods=[method], **between_services(parts.door, *may))
    app.add_middleware(hot.Hot, door=parts.door, grants=routes.grants)
    app.add_api_route("/.well-known/jwks.json", routes.jwks, methods=["GET"], openapi_extra=needs(OPEN))
    return app


class _Routes:
    """Each decides over one moment's standing, and writes down every decision on a change before it answers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def context(self, asked: ContextRequest) -> Response:
        """Who is behind a token, what they may do, and a read grant. 401 problem when nobody is, 403 when suspended."""
        asker = await self._parts.principals.behind(asked.token)
        standing, now = await self._parts.book.now(), self._parts.clock()
        check_access(asker, standing, self._parts.clock)
        memberships = deciding.memberships(asker.principal, asker.memberships, standing, now)
        verbs = {vo: deciding.verbs(role, vo, standing, now) for vo, role in sorted(memberships.items())}
        return _json(
            Context(
                principal=asker.principal,
                memberships=tuple(Membership(vo=vo, role=memberships[vo], verbs=those) for vo, those in verbs.items()),
                platform_roles=tuple(sorted(asker.platform_roles)),
                platform_verbs=permissions.platform_verbs_of(asker.platform_roles),
                expires_at=asker.expires_at,
                read_grant=self._parts.granting.read_grant(asker, verbs, now),
                client=asker.client,
                token_id=asker.token_id,
                workload=asker.workload,
            )
        )

    async def grants(self, asked: GrantRequest, traceparent: Annotated[str, Header()] = "") -> Response:
        """A grant or a refusal for each of up to 1,000 commands of one caller; the live token is verified again."""
        if len(asked.items) > MOST_ITEMS:
            raise Refused(f"at most {MOST_ITEMS} commands in one question", code="invalid_request")
        with self._parts.tracer.span("auth.grants", kind="server", traceparent=traceparent) as span:
            span.attributes["serai.items"] = len(asked.items)
            asker = await self._parts.principals.verified_now(asked.token)
            standing = await self._parts.book.now()
            sizes = await self._secret_sizes(asker, asked)
            answers, rows = await self._parts.granting.answer(asker, asked.items, standing, sizes, self._parts.clock())
            await self._parts.store.transact(partial(audit_store.append, decisions=rows))
        for row in rows:
            if not row.allowed:
                log.info("grant_refused", subject=row.principal.subject, verb=row.verb, vo=row.vo, code=row.code)
        return _json(GrantsAnswer(answers=tuple(answers)))

    async def _secret_sizes(self, asker: Verified, asked: GrantRequest) -> SecretSizes:
        """Of the caller's secrets, where any job names some."""
        vos = {item.vo for item in asked.items if item.vo is not None and item.demand and item.demand.secrets}
        if not vos:
            return {}
        return await self._parts.store.read(partial(secret_store.sizes, owner=asker.principal, vos=vos))

    async def decisions(self, asked: DecisionRequest) -> Response:
        """May this still be done for this principal, at this site? Asked at dispatch, without a token."""
        seen = await self._parts.principals.last_seen(asked.principal)
        standing, now = await self._parts.book.now(), self._parts.clock()
        site_vos = self._parts.settings.site_vos
        decision = deciding.dispatch(asked, seen, standing, self._parts.layers, site_vos, now)
        if not asked.foreseen:
            row = _dispatched(asked, decision, now=self._parts.clock)
            await self._parts.store.transact(partial(audit_store.append, decisions=[row]))
        return _json(decision)

    async def remembered(self, asked: RememberedRequest) -> Response:
        """What people who are not here may see by now. Asked every few seconds for those who are told of events."""
        if len(asked.bearers) > MOST_BEARERS:
            raise Refused(f"at most {MOST_BEARERS} bearers in one question", code="invalid_request")
        standing, now = await self._parts.book.now(), self._parts.clock()
        answers = []
        for bearer in asked.bearers:
            seen = await self._parts.principals.last_seen(bearer.principal)
            answers.append(deciding.remembered(bearer, seen, standing, now))
        return _json(RememberedAnswer(answers=tuple(answers)))

    async def trust(self) -> Response:
        """Suspensions that hold, and the version of trust: it grows with every suspension and every new policy."""
        standing = await self._parts.book.now()
        return _json(standing.state.model_copy(update={"stops": self._parts.layers.stops(standing.policies)}))

    async def jwks(self) -> Response:
        """The public keys of grants (RFC 7517), the next one included."""
        return Response(orjson.dumps(self._parts.chest.published()), media_type="application/jwk-set+json")


def check_access(asker: Verified, standing: Standing, clock: Clock) -> None:
    """Raises BadToken for a revoked token, Refused (`suspended`) for a suspended subject or client."""
    suspension = deciding.access(asker, standing, clock())
    if suspension is None:
        return
    if suspension.kind == "token":
        raise BadToken("it was revoked; sign in again")
    raise Refused(suspension.words(), code="suspended")


async def signed_in(parts: Parts, request: Request) -> Verified:
    """The person behind a request's access token, verified at this moment. Raises Refused, BadToken, Unavailable."""
    headers = request.headers.getlist("authorization")
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if len(headers) > 1 or "access_token" in request.query_params:
        raise Refused("send exactly one access token, in one Authorization header", code="invalid_request")
    if scheme.lower() != "bearer" or not token:
        raise Refused("this needs an access token: send `Authorization: Bearer <token>`", code="unauthenticated")
    verified = await parts.principals.verified_now(token)
    check_access(verified, await parts.book.read(), parts.clock)
    if verified.workload is not None:
        raise Refused("a job's own token is for that job's progress, at the gateway", code="forbidden")
    return verified


def _dispatched(asked: DecisionRequest, decision: Decision, *, now: Clock) -> AuditRow:
    return AuditRow(
        uuid6.uuid7().hex, now(), asked.principal, asked.verb, asked.vo or None, decision.allowed, decision.code, 1,
        kind="dispatch", detail=asked.site or "",
    )  # fmt: skip


def _json(answer: BaseModel) -> Response:
    """Ready bytes: what we have built ourselves is not validated again."""
    return Response(answer.model_dump_json(), media_type="application/json")
