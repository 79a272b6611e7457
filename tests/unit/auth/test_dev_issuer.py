"""The development issuer: real tokens for demo users, on this machine only, and auth takes them like any others."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from services.auth import dev_issuer, wiring
from services.auth.demo_users import BIO, CLIMATE
from services.auth.dev_issuer import DEMO_GRANT, DEMO_USERS, DevIssuerSettings, demo_token, trusted_as
from services.auth.dev_tokens import Mode
from services.auth.settings import AuthSettings
from shared.errors import Misconfigured, NotFound
from shared.runtime.serving import HttpServer
from shared.runtime.telemetry import Tracer
from tests.builders import TestClock
from tests.free_ports import free_port
from tests.stores import open_store
from tests.unit.auth.world import auth

pytestmark = pytest.mark.fast
URL = "http://127.0.0.1:8081"


def issuer(folder: Path, clock: TestClock | None = None, **settings: Any) -> httpx.ASGITransport:
    chosen = DevIssuerSettings.model_validate({"url": URL, "key_file": folder / "dev.json"} | settings)
    return httpx.ASGITransport(app=dev_issuer.assemble(chosen, clock=clock or TestClock()).app)


def client(transport: httpx.ASGITransport, url: str = URL) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, base_url=url)


@contextlib.asynccontextmanager
async def auth_of(folder: Path, transport: httpx.ASGITransport) -> AsyncIterator[httpx.AsyncClient]:
    clock = TestClock()
    store = await open_store(folder / "auth.sqlite", "services.auth.migrations", synchronous="OFF")
    settings = AuthSettings(service_token="s", issuers=(trusted_as(URL),), dev_mode=True)
    tracer = Tracer("auth", None, clock)
    service = await wiring.assemble(settings, store=store, clock=clock, tracer=tracer, transport=transport)
    headers = {"Authorization": "Bearer s"}
    app = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=app, base_url="http://auth", headers=headers) as http:
        yield http
    await store.close()


async def test_demo_users_become_principals_with_their_roles(tmp_path: Path) -> None:
    transport = issuer(tmp_path)
    found = {}
    async with auth_of(tmp_path, transport) as http:
        for user in DEMO_USERS:
            token = await demo_token(URL, user.user, transport=transport)
            context = (await http.post("/internal/context", json={"token": token})).json()
            found[user.user] = (
                {each["vo"]: each["role"] for each in context["memberships"]}, context["platform_roles"],
            )  # fmt: skip
            assert context["principal"]["name"] == user.name
    assert found == {
        "alice": ({CLIMATE: "manager", BIO: "member"}, []),
        "bob": ({BIO: "member", CLIMATE: "observer"}, []),
        "olga": ({}, ["site-operator"]),
        "ada": ({}, ["admin"]),
    }


async def test_a_service_account_signs_in_with_its_secret(tmp_path: Path) -> None:
    transport = issuer(tmp_path)
    form = {"grant_type": "client_credentials"}
    async with client(transport) as http, auth_of(tmp_path, transport) as at_auth:
        basic = await http.post("/token", data=form, auth=("demo-workflow", "demo-workflow-secret"))
        body = {"client_id": "demo-workflow", "client_secret": "demo-workflow-secret"}
        posted = await http.post("/token", data=form | body)
        for answer in (basic, posted):
            assert answer.headers["cache-control"] == "no-store"
            assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 900)
            token = answer.json()["access_token"]
            context = (await at_auth.post("/internal/context", json={"token": token})).json()
            assert context["principal"]["subject"] == "demo-workflow"
            assert [each["role"] for each in context["memberships"]] == ["member"]


@pytest.mark.parametrize(("form", "error", "status"), [
    ({}, "invalid_request", 400), ({"grant_type": "password", "username": "alice"}, "unsupported_grant_type", 400),
    ({"grant_type": "client_credentials"}, "invalid_client", 400),
    ({"grant_type": "client_credentials", "client_id": "demo-workflow", "client_secret": "x"}, "invalid_client", 400),
    ({"grant_type": "client_credentials", "client_id": "alice", "client_secret": "demo-workflow-secret"},
     "invalid_client", 400),
    ({"grant_type": DEMO_GRANT, "user": "mallory"}, "invalid_grant", 400),
    ({"grant_type": DEMO_GRANT}, "invalid_grant", 400),
])  # fmt: skip
async def test_the_token_endpoint_speaks_oauth_errors(
    tmp_path: Path, form: dict[str, str], error: str, status: int
) -> None:
    async with client(issuer(tmp_path)) as http:
        answer = await http.post("/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_the_standard_endpoint_knows_the_demo_grant(tmp_path: Path) -> None:
    async with client(issuer(tmp_path)) as http:
        answer = await http.post("/token", data={"grant_type": DEMO_GRANT, "user": "bob"})
    assert answer.json()["user"] == "bob"


async def test_an_unknown_demo_user_is_told_the_known_ones(tmp_path: Path) -> None:
    transport = issuer(tmp_path)
    with pytest.raises(NotFound, match="alice, bob, olga"):
        await demo_token(URL, "mallory", transport=transport)
    async with client(transport) as http:
        assert [row["user"] for row in (await http.get("/demo/users")).json()["users"]] == [
            user.user for user in DEMO_USERS
        ]
        twice = await http.post("/demo/token", content="user=alice&user=olga")
        assert twice.status_code == 422
        assert (await http.post("/demo/token", content="user=" + "a" * 9_000)).status_code == 413
        assert (await http.post("/demo/token", content="&".join(f"a{n}=1" for n in range(30)))).status_code == 422


async def test_discovery_leads_to_the_public_key_and_nothing_private(tmp_path: Path) -> None:
    async with client(issuer(tmp_path)) as http:
        document = (await http.get("/.well-known/openid-configuration")).json()
        keys = (await http.get("/jwks.json")).json()["keys"]
    assert document["issuer"] == URL
    metadata = AuthorizationServerMetadata(document)
    metadata.validate_grant_types_supported()
    metadata.validate_token_endpoint_auth_methods_supported()
    metadata.validate_scopes_supported()
    assert [(key["alg"], "d" in key) for key in keys] == [("ES256", False)]


async def test_tokens_survive_a_restart_and_a_lost_key_makes_them_void(tmp_path: Path) -> None:
    token = await demo_token(URL, "alice", transport=issuer(tmp_path))
    async with auth_of(tmp_path, issuer(tmp_path)) as http:
        assert (await http.post("/internal/context", json={"token": token})).status_code == 200
    assert (tmp_path / "dev.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "dev.json").unlink()
    async with auth_of(tmp_path, issuer(tmp_path)) as http:
        assert (await http.post("/internal/context", json={"token": token})).status_code == 401


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    issuer(tmp_path)
    (tmp_path / "dev.json").chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        issuer(tmp_path)
    (tmp_path / "dev.json").write_text("{}")
    (tmp_path / "dev.json").chmod(0o600)
    with pytest.raises(Misconfigured, match="cannot be used"):
        issuer(tmp_path)


@pytest.mark.parametrize("url", [
    "http://0.0.0.0:8081", "http://192.168.1.1:8081", "https://issuer.example", "http://issuer.example",
    "http://127.0.0.1.evil.example", "http://[::]:8081", "", "http://127.0.0.1:8081/realm",
])  # fmt: skip
def test_it_starts_on_loopback_only(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misconfigured, match="loopback"):
        issuer(tmp_path, url=url)


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.168.1.1", "::ffff:10.0.0.7", "unknown"])
async def test_it_answers_this_machine_only(tmp_path: Path, peer: str) -> None:
    app = issuer(tmp_path).app
    async with client(httpx.ASGITransport(app=app, client=(peer, 1234))) as http:
        assert (await http.post("/demo/token", data={"user": "alice"})).status_code == 403
    async with client(httpx.ASGITransport(app=app), "http://evil.example") as http:
        assert (await http.post("/demo/token", data={"user": "alice"})).status_code == 403
    for name in ("http://localhost:8081", "http://[::1]:8081", URL):
        async with client(httpx.ASGITransport(app=app), name) as http:
            assert (await http.post("/demo/token", data={"user": "alice"})).status_code == 200


# -- standing for others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "alice"), [
    ("rfc9068", {CLIMATE: "manager", BIO: "member"}), ("keycloak", {CLIMATE: "manager", BIO: "member"}),
    ("egi", {CLIMATE: "manager", BIO: "member"}), ("wlcg", {CLIMATE: "manager"}),
])  # fmt: skip
async def test_it_can_stand_for_each_family_of_issuers(tmp_path: Path, mode: Mode, alice: dict[str, str]) -> None:
    """Over real sockets: auth knows nothing of it but its entry."""
    port = free_port(24_000)
    url = f"http://127.0.0.1:{port}"
    settings = DevIssuerSettings(url=url, key_file=tmp_path / "dev.json", mode=mode)
    server = HttpServer(dev_issuer.assemble(settings, clock=TestClock()).app, "127.0.0.1", port)
    await server.start()
    trust = (trusted_as(url, mode),)
    async with auth(tmp_path, trust=trust, network=True, dev_mode=True) as running:
        context = (await running.context(await demo_token(url, "alice"))).json()
        nobody = (await running.context(await demo_token(url, "olga"))).json()
    await server.stop()
    assert {each["vo"]: each["role"] for each in context["memberships"]} == alice
    assert context["principal"]["subject"] == ("alice@dev.serai.example" if mode == "egi" else "alice")
    assert nobody["memberships"] == []


async def test_its_userinfo_and_introspection_know_its_own_tokens_only(tmp_path: Path) -> None:
    transport = issuer(tmp_path, mode="egi")
    token = await demo_token(URL, "alice", transport=transport)
    basic = ("demo-workflow", "demo-workflow-secret")
    async with client(transport) as http:
        for bad in ("", "x", token[:-4] + "AAAA"):
            assert (await http.get("/userinfo", headers={"Authorization": f"Bearer {bad}"})).status_code == 401
            said = await http.post("/introspect", data={"token": bad}, auth=basic)
            assert said.json() == {"active": False}
        assert (await http.post("/introspect", data={"token": token})).status_code in (400, 401)
        said = (await http.post("/introspect", data={"token": token}, auth=basic)).json()
        assert (said["active"], said["sub"]) == (True, "alice")
