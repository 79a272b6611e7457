"""Users' secrets between services: the gateway sets, lists and deletes for a live token; the scheduler alone is given
values, for an attempt that it is about to register, after the same decision as at dispatch.

Every answer is written down in the transaction that it belongs to: who, which names, allowed or not; never a value.
"""

import base64
import binascii
from functools import partial
from typing import Final

import uuid6
from fastapi import FastAPI, Response
from sqlalchemy import Connection

from services.auth import audit_store, deciding, secret_rules, secret_store
from services.auth.api import Parts, check_access
from services.auth.audit import AuditRow
from services.auth.claims import Verified
from services.auth.permissions import Verb
from services.auth.secret_box import Sealed, SecretBox, Whose
from shared.contracts.commands import Principal
from shared.contracts.questions import (
    Decision,
    DecisionRequest,
    SecretDelete,
    SecretList,
    SecretsAnswer,
    SecretsRequest,
    SecretsTold,
    SecretTold,
    SecretWrite,
)
from shared.errors import NotFound, Refused
from shared.runtime.http import between_services

RELEASE: Final = "secret.release"
"""The name under which handing out values is written down; nobody can be given it as a right."""


def add_to(app: FastAPI, parts: Parts, box: SecretBox) -> None:
    """Add the routes."""
    routes = SecretRoutes(parts, box)
    for method, suffix, endpoint, may in (
        ("PUT", "", routes.put, "gateway"),
        ("POST", ":list", routes.list, "gateway"),
        ("POST", ":delete", routes.delete, "gateway"),
        ("POST", ":release", routes.release, "scheduler"),
    ):
        app.add_api_route(
            f"/internal/secrets{suffix}", endpoint, methods=[method], response_model=None,
            **between_services(parts.door, may),
        )  # fmt: skip


class SecretRoutes:
    """See each route's own words."""

    def __init__(self, parts: Parts, box: SecretBox) -> None:
        self._parts = parts
        self._box = box

    async def put(self, asked: SecretWrite) -> Response:
        """Keep a value. It replaces one of the same name; running attempts keep what they were started with."""
        asker = await self._allowed(asked.token, asked.vo, f"set {asked.name}")
        value = _decoded(asked.value)
        secret_rules.check(asked.name, value)
        whose = Whose(asked.vo, asker.principal, asked.name)
        told = await self._parts.store.transact(partial(self._put, whose=whose, value=value))
        return Response(told.model_dump_json(), media_type="application/json")

    async def list(self, asked: SecretList) -> Response:
        """Names and dates of the caller's own secrets, in the VOs where they may have any."""
        asker = await self._parts.principals.behind(asked.token)
        standing, now = await self._parts.book.now(), self._parts.clock()
        check_access(asker, standing, self._parts.clock)
        held = deciding.memberships(asker.principal, asker.memberships, standing, now)
        vos = [vo for vo, role in held.items() if Verb.SECRETS in deciding.verbs(role, vo, standing, now)]
        wanted = [vo for vo in vos if asked.vo in (None, vo)]
        found = await self._parts.store.read(partial(secret_store.told, owner=asker.principal, vos=wanted))
        return Response(SecretsTold(secrets=tuple(found)).model_dump_json(), media_type="application/json")

    async def delete(self, asked: SecretDelete) -> Response:
        """Delete a secret. 404 when there is none of that name."""
        asker = await self._allowed(asked.token, asked.vo, f"delete {asked.name}")
        whose = Whose(asked.vo, asker.principal, asked.name)
        if not await self._parts.store.transact(partial(self._delete, whose=whose)):
            raise NotFound(f"you have no secret {asked.name[:80]!r} in the VO {asked.vo[:80]}", code="not_found")
        return Response("{}", media_type="application/json")

    async def release(self, asked: SecretsRequest) -> Response:
        """The values of these names, if their owner's job may run at that site at this moment."""
        seen = await self._parts.principals.last_seen(asked.principal)
        standing, now = await self._parts.book.now(), self._parts.clock()
        question = DecisionRequest(principal=asked.principal, vo=asked.vo, verb=Verb.SUBMIT, site=asked.site)
        decision = deciding.dispatch(question, seen, standing, self._parts.layers, self._parts.settings.site_vos, now)
        answer = await self._parts.store.transact(partial(self._release, asked=asked, decision=decision))
        return Response(answer.model_dump_json(), media_type="application/json")

    # -- inside one transaction -----------------------------------------------------------------------------------

    def _put(self, connection: Connection, whose: Whose, value: bytes) -> SecretTold:
        now = self._parts.clock()
        before = next((one for one in secret_store.told(connection, whose.owner, [whose.vo]) if one.name == whose.name),
                      None)  # fmt: skip
        most = self._parts.settings.most_secrets
        if before is None and secret_store.count(connection, whose.owner, whose.vo) >= most:
            raise Refused(
                f"you have {most} secrets in the VO {whose.vo}, the most there may be: delete those that no job needs",
                code="too_many_secrets",
            )
        secret_store.put(connection, whose, self._box.seal(value, whose), len(value), now)
        self._note(connection, whose.owner, whose.vo, Verb.SECRETS, Decision(allowed=True), f"set {whose.name}")
        return SecretTold(vo=whose.vo, name=whose.name, created_at=before.created_at if before else now, updated_at=now)

    def _delete(self, connection: Connection, whose: Whose) -> bool:
        there = secret_store.drop(connection, whose)
        if there:
            self._note(connection, whose.owner, whose.vo, Verb.SECRETS, Decision(allowed=True), f"delete {whose.name}")
        return there

    def _release(self, connection: Connection, asked: SecretsRequest, decision: Decision) -> SecretsAnswer:
        sealed: dict[str, Sealed] = {}
        if decision.allowed:
            sealed = secret_store.take(connection, asked.principal, asked.vo, asked.names, self._parts.clock())
            decision = secret_rules.all_there(asked.names, sealed, asked.vo)
        detail = f"{asked.attempt} at {asked.site}: {', '.join(asked.names)}"
        self._note(connection, asked.principal, asked.vo, RELEASE, decision, detail, items=len(asked.names))
        if not decision.allowed:
            return SecretsAnswer(code=decision.code, message=decision.message)
        opened = {name: self._box.open(one, Whose(asked.vo, asked.principal, name)) for name, one in sealed.items()}
        return SecretsAnswer(values={name: base64.b64encode(value).decode() for name, value in opened.items()})

    # -- who may ----------------------------------------------------------------------------------------------------

    async def _allowed(self, token: str, vo: str, doing: str) -> Verified:
        """The caller, verified at this moment; a refusal is written down before it is told."""
        asker = await self._parts.principals.verified_now(token)
        standing = await self._parts.book.now()
        check_access(asker, standing, self._parts.clock)
        decision = deciding.change(
            asker, Verb.SECRETS, vo, None, standing, self._parts.layers, self._parts.clock(), own=True
        )
        if not decision.allowed:
            await self._parts.store.transact(
                partial(self._note, owner=asker.principal, vo=vo, verb=Verb.SECRETS, decision=decision, detail=doing)
            )
            raise Refused(decision.message, code="forbidden")
        return asker

    def _note(
        self, connection: Connection, owner: Principal, vo: str, verb: str, decision: Decision, detail: str,
        items: int = 1,
    ) -> None:  # fmt: skip
        row = AuditRow(
            uuid6.uuid7().hex, self._parts.clock(), owner, verb, vo, decision.allowed, decision.code, items,
            kind="secret", detail=detail,
        )  # fmt: skip
        audit_store.append(connection, [row])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("the value is not base64", code="invalid_request") from None
