"""What people who administer trust ask of auth, with their own access token: policies, suspensions, audit, issuers.

Every route names its verb; the decision is that of the one table (`permissions.py`). A change and the record of it are
one transaction: what cannot be written down is not done. Refusals are written down too.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import orjson
import uuid6
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from services.auth import audit_store, deciding, policies, replaying, suspending, trust_store
from services.auth.api import Parts, signed_in
from services.auth.audit import AuditRow
from services.auth.claims import Verified
from services.auth.permissions import Verb
from services.auth.policies import StoredPolicy
from services.auth.suspending import NewSuspension
from services.auth.verifier import TrustedIssuer
from shared.contracts.policies import Policy
from shared.contracts.questions import Decision
from shared.errors import Conflict, NotFound, Refused
from shared.runtime import preconditions
from shared.runtime.http import SIGNED_IN, needs
from shared.runtime.preconditions import ALWAYS, Condition

T = TypeVar("T")

ROUTES: Final[tuple[tuple[str, str, Verb | None, str], ...]] = (
    ("GET", "/v1/vos/{vo}/policy", Verb.POLICY_READ, "read_policy"),
    ("PUT", "/v1/vos/{vo}/policy", Verb.POLICY_WRITE, "write_policy"),
    ("GET", "/v1/vos/{vo}/policy/versions", Verb.POLICY_READ, "policy_versions"),
    ("GET", "/v1/suspensions", Verb.SUSPEND, "suspensions"),
    ("POST", "/v1/suspensions", Verb.SUSPEND, "suspend"),
    ("DELETE", "/v1/suspensions/{id}", Verb.SUSPEND, "lift"),
    ("GET", "/v1/audit", Verb.AUDIT, "audit"),
    ("GET", "/v1/issuers", Verb.ISSUERS, "issuers"),
    ("GET", "/v1/can-i", None, "can_i"),
)
"""Method, path, the verb that it needs (None: anybody who has signed in), and the method that answers."""


def add_to(app: FastAPI, parts: Parts, trusted: Mapping[str, TrustedIssuer]) -> None:
    """Add the routes."""
    routes = AdminRoutes(parts, trusted)
    for method, path, verb, name in ROUTES:
        app.add_api_route(
            path, getattr(routes, name), methods=[method], response_model=None, openapi_extra=needs(verb or SIGNED_IN)
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has signed in, and the question under which it is written down."""

    verified: Verified
    question: str

    @property
    def words(self) -> str:
        """As tables keep it."""
        return f"{self.verified.principal.subject} of {self.verified.principal.issuer}"


class AdminRoutes:
    """See each route's own words."""

    def __init__(self, parts: Parts, trusted: Mapping[str, TrustedIssuer]) -> None:
        self._parts = parts
        self._trusted = trusted

    # -- policies -------------------------------------------------------------------------------------------------

    async def read_policy(
        self, request: Request, vo: str, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """The VO's policy as it stands, and what is left of it within the platform's ceiling."""
        await self._allowed(request, Verb.POLICY_READ, vo)
        stored = await self._parts.store.read(partial(trust_store.newest, vo=vo))
        if preconditions.has_already(if_none_match, stored.etag):
            return Response(status_code=304, headers={"ETag": stored.etag})
        return self._policy(stored)

    async def policy_versions(self, request: Request, vo: str) -> Response:
        """Every version with who wrote it, newest first."""
        await self._allowed(request, Verb.POLICY_READ, vo)
        found = await self._parts.store.read(partial(trust_store.versions, vo=vo))
        return JSONResponse({"versions": [_version(each) for each in found]})

    async def write_policy(
        self, request: Request, vo: str, dry_run: bool = False,
        if_match: Annotated[str | None, Header()] = None, if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:  # fmt: skip
        """Replace the VO's policy. `If-Match` names the version that was read (`If-None-Match: *` for the first).

        `dry_run`: nothing is written; the answer says what would differ and what would have no effect.
        """
        caller = await self._allowed(request, Verb.POLICY_WRITE, vo)
        policy = policies.read(await request.body())
        if dry_run:
            before = await self._parts.store.read(partial(trust_store.newest, vo=vo))
            return self._dry_run(before, policy)
        body = partial(self._written, caller, vo, policy, Condition(if_match, if_none_match))
        stored = await self._changed(caller, Verb.POLICY_WRITE, vo, body, policies.canonical(policy))
        return self._policy(stored)

    def _written(
        self, caller: Caller, vo: str, policy: Policy, condition: Condition, connection: Connection
    ) -> StoredPolicy:
        before = trust_store.newest(connection, vo)
        check_precondition(before, condition)
        now = self._parts.clock()
        stored = StoredPolicy(vo, before.version + 1, policy, policies.hash_of(policy), caller.words, now)
        trust_store.write(connection, stored, now)
        return stored

    def _dry_run(self, before: StoredPolicy, policy: Policy) -> Response:
        platform = self._parts.layers.platform
        return JSONResponse({
            "differences": [asdict(each) for each in policies.differences(before.policy, policy)],
            "without_effect": policies.without_effect(policy, platform),
            "effective": policies.plain(self._parts.layers.together(policy, None)), "version": before.version,
        }, headers={"ETag": before.etag})  # fmt: skip

    def _policy(self, stored: StoredPolicy) -> Response:
        together = self._parts.layers.together(stored.policy, None)
        body = {**_version(stored), "effective": policies.plain(together)}
        return JSONResponse(body, headers={"ETag": stored.etag})

    # -- suspensions ----------------------------------------------------------------------------------------------

    async def suspensions(self, request: Request) -> Response:
        """All suspensions, those that were lifted included, newest first."""
        await self._allowed(request, Verb.SUSPEND, None)
        return JSONResponse({"suspensions": await self._parts.store.read(trust_store.history)})

    async def suspend(self, request: Request) -> Response:
        """Suspend a subject, client, token, VO or membership; it holds everywhere within five seconds."""
        caller = await self._allowed(request, Verb.SUSPEND, None)
        asked = suspending.read(await request.body())
        now = self._parts.clock()
        made = suspending.made(asked, uuid6.uuid7().hex, now, caller.verified.principal)
        body = partial(_suspend, suspension=made, by=caller.words, now=now)
        await self._changed(caller, Verb.SUSPEND, made.vo or None, body, _told(asked, made.id))
        headers = {"Location": f"/v1/suspensions/{made.id}"}
        return JSONResponse(made.model_dump(mode="json"), status_code=201, headers=headers)

    async def lift(self, request: Request, id: str) -> Response:
        """End a suspension."""
        caller = await self._allowed(request, Verb.SUSPEND, None)
        body = partial(_lift, id=id[:64], by=caller.words, now=self._parts.clock())
        await self._changed(caller, Verb.SUSPEND, None, body, f"{replaying.LIFTED}{id[:64]}")
        return Response(status_code=204)

    # -- the rest -------------------------------------------------------------------------------------------------

    async def audit(
        self, request: Request, after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=audit_store.MOST_READ)] = 100,
    ) -> Response:  # fmt: skip
        """Records of decisions behind a position, with their hashes, and both ends of the chain."""
        await self._allowed(request, Verb.AUDIT, None)
        rows = await self._parts.store.read_long(partial(audit_store.read, after=after, most=limit))
        anchor, head = await self._parts.store.read(audit_store.ends)
        return JSONResponse({"records": rows, "anchor": asdict(anchor), "head": asdict(head)})

    async def issuers(self, request: Request) -> Response:
        """Whom the platform trusts, how far, and which keys are at hand."""
        await self._allowed(request, Verb.ISSUERS, None)
        return JSONResponse({"issuers": [_issuer(each) for each in self._trusted.values()]})

    async def can_i(self, request: Request, verb: str, vo: str | None = None, own: bool = True) -> Response:
        """May I? With the reason when not."""
        caller = await self._caller(request)
        return JSONResponse((await self._decision(caller, verb[:64], vo and vo[:255], own=own)).model_dump(
            include={"allowed", "code", "message"}
        ))  # fmt: skip

    # -- how -------------------------------------------------------------------------------------------------------

    async def _caller(self, request: Request) -> Caller:
        return Caller(await signed_in(self._parts, request), uuid6.uuid7().hex)

    async def _decision(self, caller: Caller, verb: str, vo: str | None, *, own: bool = False) -> Decision:
        return deciding.change(
            caller.verified, verb, vo, None, await self._parts.book.read(), self._parts.layers,
            self._parts.clock(), own=own,
        )  # fmt: skip

    async def _allowed(self, request: Request, verb: Verb, vo: str | None) -> Caller:
        """The caller, when the table allows the verb. A refusal of a change is written down before it is told."""
        caller = await self._caller(request)
        decision = await self._decision(caller, verb, vo)
        if decision.allowed:
            return caller
        if request.method != "GET":
            row = self._row(caller, verb, vo, allowed=False, code=decision.code)
            await self._parts.store.transact(partial(audit_store.append, decisions=[row]))
        raise Refused(decision.message, code="forbidden")

    async def _changed(
        self, caller: Caller, verb: Verb, vo: str | None, body: Callable[[Connection], T], detail: str
    ) -> T:
        """Do it and write it down, or neither; everybody hears of it with the next look at the trust version."""
        row = self._row(caller, verb, vo, allowed=True, code="", detail=detail)

        def both(connection: Connection) -> T:
            done = body(connection)
            audit_store.append(connection, [row])
            return done

        done = await self._parts.store.transact(both)
        await self._parts.book.read()
        return done

    def _row(
        self, caller: Caller, verb: Verb, vo: str | None, *, allowed: bool, code: str, detail: str = ""
    ) -> AuditRow:
        now: datetime = self._parts.clock()
        return AuditRow(
            caller.question, now, caller.verified.principal, verb, vo, allowed, code, 1, kind="admin", detail=detail
        )


def check_precondition(before: StoredPolicy, condition: Condition) -> None:
    """Raises Conflict unless the caller has seen the version that is about to be replaced (RFC 9110, 13.1)."""
    if condition == ALWAYS:
        raise Conflict(
            "say which version you change: `If-Match` with the ETag of the policy that you read (`If-None-Match: *` "
            "for the first one)", code="precondition_failed",
        )  # fmt: skip
    if before.version == 0:  # the empty policy can be read, and yet nobody has written one
        Condition(condition.if_match).check(before.etag)
    else:
        condition.check(before.etag)


def _suspend(connection: Connection, suspension: Any, by: str, now: datetime) -> None:
    trust_store.suspend(connection, suspension, by, now)


def _lift(connection: Connection, id: str, by: str, now: datetime) -> None:
    if trust_store.lift(connection, id, by, now) is None:
        raise NotFound("there is no such suspension, or it was lifted before")


def _told(asked: NewSuspension, id: str) -> str:
    """All that it takes to make it again (`replaying.py`)."""
    return orjson.dumps({"id": id, **asked.model_dump(mode="json", exclude_defaults=True)}).decode()


def _version(stored: StoredPolicy) -> dict[str, Any]:
    return {
        "vo": stored.vo, "version": stored.version, "hash": stored.hash, "written_by": stored.written_by,
        "written_at": stored.written_at.isoformat() if stored.written_at else None,
        "policy": policies.plain(stored.policy),
    }  # fmt: skip


def _issuer(each: TrustedIssuer) -> dict[str, Any]:
    entry, ring = each.issuer, each.keys.ring
    return {
        "issuer": entry.issuer, "name": entry.label, "profile": entry.profile, "claims_from": entry.claims_from,
        "vos": list(entry.vos), "keys": sorted(ring.known), "keys_fetched_at": _iso(ring.fetched_at),
        "trouble": ring.trouble,
    }  # fmt: skip


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
