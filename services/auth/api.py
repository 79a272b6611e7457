"""What auth answers over HTTP: three questions of other services, and to anybody the keys that check its grants."""

from functools import partial
from typing import Annotated, Final

import orjson
from fastapi import Depends, FastAPI, Header, Response
from pydantic import BaseModel

from services.auth import permissions, store
from services.auth.claims import Verified
from services.auth.grants import Granting
from services.auth.principals import Principals
from services.auth.settings import AuthSettings
from services.auth.signing_keys import KeyChest
from shared.contracts.questions import (
    Context,
    ContextRequest,
    Decision,
    DecisionRequest,
    GrantRequest,
    GrantsAnswer,
    Membership,
)
from shared.errors import Refused
from shared.ports import Clock, Store
from shared.runtime import logs
from shared.runtime.http import install_problems, internal_only
from shared.runtime.telemetry import Tracer

MOST_ITEMS: Final = 1_000

log = logs.get("auth.api")


def build(
    settings: AuthSettings, principals: Principals, granting: Granting, chest: KeyChest, database: Store, clock: Clock,
    tracer: Tracer,
) -> FastAPI:  # fmt: skip
    """The app; everything under `/internal` is for services of the platform only."""
    app = FastAPI(title="Serai auth", docs_url=None, redoc_url=None, openapi_url=None)
    install_problems(app)
    services_only = [Depends(internal_only(settings.service_token.get_secret_value()))]

    async def context(asked: ContextRequest) -> Response:
        """Who is behind a token, what they may do, and a read grant. 401 problem when nobody is."""
        asker = await principals.behind(asked.token)
        return _json(_context(asker, granting.read_grant(asker, clock())))

    async def grants(asked: GrantRequest, traceparent: Annotated[str, Header()] = "") -> Response:
        """A grant or a refusal for each of up to 1,000 commands of one caller; the live token is verified again."""
        if len(asked.items) > MOST_ITEMS:
            raise Refused(f"at most {MOST_ITEMS} commands in one question", code="invalid_request")
        with tracer.span("auth.grants", kind="server", traceparent=traceparent) as span:
            span.attributes["serai.items"] = len(asked.items)
            asker = await principals.verified_now(asked.token)
            answers, rows = await granting.answer(asker, asked.items, clock())
            await database.transact(partial(store.append_audit, rows=rows))
        for row in rows:
            if not row.allowed:
                log.info("grant_refused", subject=row.principal.subject, verb=row.verb, vo=row.vo, code=row.code)
        return _json(GrantsAnswer(answers=tuple(answers)))

    async def decisions(asked: DecisionRequest) -> Response:
        """May this still be done for this principal, at this site? Asked at dispatch, without a token."""
        decision: Decision = await principals.still_may(asked, settings.site_vos)
        return _json(decision)

    async def jwks() -> Response:
        """The public keys of grants (RFC 7517), the next one included."""
        return Response(orjson.dumps(chest.published()), media_type="application/jwk-set+json")

    app.add_api_route("/internal/context", context, methods=["POST"], dependencies=services_only)
    app.add_api_route("/internal/grants", grants, methods=["POST"], dependencies=services_only)
    app.add_api_route("/internal/decisions", decisions, methods=["POST"], dependencies=services_only)
    app.add_api_route("/.well-known/jwks.json", jwks, methods=["GET"])
    return app


def _context(asker: Verified, read_grant: str) -> Context:
    return Context(
        principal=asker.principal,
        memberships=tuple(
            Membership(vo=vo, role=role, verbs=permissions.verbs_of(role))
            for vo, role in sorted(asker.memberships.items())
        ),
        platform_roles=tuple(sorted(asker.platform_roles)),
        platform_verbs=permissions.platform_verbs_of(asker.platform_roles),
        expires_at=asker.expires_at,
        read_grant=read_grant,
    )


def _json(answer: BaseModel) -> Response:
    """Ready bytes: what we have built ourselves is not validated again."""
    return Response(answer.model_dump_json(), media_type="application/json")
