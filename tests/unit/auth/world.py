"""Auth in one process with issuers whose every answer a test decides: real HTTP, real keys, no sockets, own clock."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import orjson
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.auth import wiring
from services.auth.demo_users import AUTHORITY, BIO, CLIMATE, NAMESPACE, PLATFORM_GROUP
from services.auth.settings import AuthSettings, Issuer, Speaker
from shared.contracts import codec
from shared.contracts.commands import Command
from shared.contracts.envelope import Message
from shared.contracts.questions import GrantItem
from shared.ports import Store
from shared.runtime.questions import Questions
from shared.runtime.service import Service
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantVerifier, keys_of
from tests.builders import NOON, TestClock
from tests.stores import open_store

URL = "https://issuer.example"
SERVICE_TOKEN = "between services"
Key = RSAKey | ECKey | OKPKey
RSA = RSAKey.generate_key(2048)
"""One for all: making it takes longer than most tests."""


def ec_key(kid: str) -> ECKey:
    return ECKey.import_key({**ECKey.generate_key("P-256").as_dict(private=True), "kid": kid})


def entitlement(vo: str, role: str = "member", namespace: str = NAMESPACE, authority: str = AUTHORITY) -> str:
    return f"{namespace}:group:{vo}:role={role}#{authority}"


def signed(key: Key, claims: dict[str, Any] | bytes, algorithm: str = "ES256", **header: Any) -> str:
    """A JWS with any header at all, correctly signed."""
    payload = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    members = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid} | header
    members = {name: value for name, value in members.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = 100_000
    return jws.serialize_compact(members, payload, key, registry=registry)


@dataclass
class FakeIssuer:
    """An identity provider. `document` is what it answers for its keys; `fetches` counts who asked for them."""

    url: str = URL
    keys: list[Key] = field(default_factory=lambda: [ec_key("first")])
    status: int = 200
    document: bytes | None = None
    discovery: dict[str, Any] = field(default_factory=dict)
    fetches: int = 0
    asked: list[str] = field(default_factory=list)
    began: datetime = NOON

    @property
    def key(self) -> Key:
        return self.keys[0]

    def jwks(self) -> bytes:
        return orjson.dumps({"keys": [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]})

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json={"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | self.discovery)
        self.fetches += 1
        headers = {"location": "http://169.254.169.254/"} if self.status in (301, 302) else {}
        return httpx.Response(self.status, content=self.document or self.jwks(), headers=headers)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Alice's claims, good for 15 minutes from NOON; `None` takes a claim out."""
        now = int(self.began.timestamp())
        claims = {
            "iss": self.url, "aud": "serai", "sub": "alice", "client_id": "serai-cli", "iat": now, "exp": now + 900,
            "jti": "t1", "name": "Alice", "entitlements": [entitlement(CLIMATE)],
        } | changed  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changed: Any) -> str:
        return signed(self.key, self.claims(**changed))


def trusted(url: str = URL, **changed: Any) -> Issuer:
    """How auth trusts a fake issuer."""
    fields: dict[str, Any] = {
        "issuer": url, "audiences": ("serai",), "algorithms": ("ES256", "RS256", "Ed25519"),
        "speakers": (Speaker(namespace=NAMESPACE, authority=AUTHORITY),), "vos": (CLIMATE, BIO),
        "platform_group": PLATFORM_GROUP,
    }  # fmt: skip
    return Issuer(**(fields | changed))


@dataclass
class Auth:
    """A running auth service and what surrounds it."""

    service: Service
    store: Store
    clock: TestClock
    http: httpx.AsyncClient
    questions: Questions
    grants: GrantVerifier

    async def context(self, token: str) -> httpx.Response:
        return await self.http.post("/internal/context", json={"token": token})

    async def code(self, token: str) -> str:
        """The code of the refusal of a token; '' when it is accepted."""
        answer = await self.context(token)
        return "" if answer.status_code == 200 else str(answer.json()["code"])

    async def grant(self, token: str, *items: GrantItem) -> list[dict[str, Any]]:
        body = {"token": token, "items": [item.model_dump() for item in items]}
        answer = await self.http.post("/internal/grants", json=body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["answers"])


@contextlib.asynccontextmanager
async def auth(
    folder: Path, *issuers: FakeIssuer, trust: tuple[Issuer, ...] = (), network: bool = False, **settings: Any
) -> AsyncIterator[Auth]:
    """Auth over the given issuers; `trust` replaces the usual way to trust them. `network`: they are real servers."""
    clock = settings.pop("clock", None) or TestClock()
    by_host = {httpx.URL(issuer.url).host: issuer for issuer in issuers}
    pretended = httpx.MockTransport(lambda request: by_host[request.url.host].answer(request))
    transport = None if network else pretended
    store = await open_store(folder / "auth.sqlite", "services.auth.migrations", synchronous="OFF")
    chosen = {
        "service_token": SERVICE_TOKEN, "issuers": trust or tuple(trusted(each.url) for each in issuers)
    } | settings  # fmt: skip
    service = await wiring.assemble(
        AuthSettings(**chosen), store=store, clock=clock, tracer=Tracer("auth", None, clock), transport=transport
    )
    app = httpx.ASGITransport(app=service.app)
    questions = Questions("http://auth", "auth", SERVICE_TOKEN, transport=app)
    headers = {"Authorization": f"Bearer {SERVICE_TOKEN}"}
    async with httpx.AsyncClient(transport=app, base_url="http://auth", headers=headers) as http:
        yield Auth(service, store, clock, http, questions, GrantVerifier(keys_of(questions), clock))
    await questions.close()
    for closer in service.closers:
        await closer()
    await store.close()


def item_for(command: Command, vo: str | None, *, own: bool = True, **changed: Any) -> GrantItem:
    """What a gateway asks for a command."""
    body = codec.command_body(command)
    fields: dict[str, Any] = {
        "verb": command.verb, "vo": vo, "message_type": codec.type_of(command),
        "body_sha256": hashlib.sha256(body).hexdigest(), "own": own,
    }  # fmt: skip
    return GrantItem(**(fields | changed))


def message_for(command: Command, grant: str) -> Message:
    """What a gateway sends with the grant."""
    return codec.command_message(
        type(command), codec.command_body(command), id="m1", source="gateway", time=NOON, subject="j", grant=grant
    )
