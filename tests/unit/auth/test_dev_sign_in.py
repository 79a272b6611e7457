"""Signing in at the development issuer: device flow, refresh rotation, revocation; in each of its modes."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from services.auth import dev_issuer
from services.auth.dev_devices import Devices
from services.auth.dev_issuer import DEVICE_GRANT, DevIssuerSettings
from services.auth.dev_tokens import Mode
from shared.errors import Misconfigured
from tests.builders import TestClock

pytestmark = pytest.mark.fast
URL = "http://127.0.0.1:8081"
BASIC = ("demo-workflow", "demo-workflow-secret")


class World:
    """The issuer, a device that asks it, a person with a browser."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.clock = TestClock()
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        chosen = DevIssuerSettings.model_validate({"url": URL, "key_file": self.folder / "dev.json"} | self.settings)
        app = dev_issuer.assemble(chosen, clock=self.clock).app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=URL)

    async def begin(self, scope: str = "openid offline_access") -> dict[str, Any]:
        form = {"client_id": "serai-cli", "scope": scope}
        return dict((await self.http.post("/device_authorization", data=form)).json())

    async def ask(self, begun: dict[str, Any], **changed: str) -> httpx.Response:
        form = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"], "client_id": "serai-cli"}
        return await self.http.post("/token", data=form | changed)

    async def word(self, begun: dict[str, Any], after_s: float = 2) -> str:
        self.clock.forward(after_s)
        return str((await self.ask(begun)).json().get("error", "tokens"))

    async def answer(self, begun: dict[str, Any], answer: str = "allow", user: str = "alice") -> httpx.Response:
        form = {"user_code": begun["user_code"], "user": user, "answer": answer}
        return await self.http.post("/device", data=form)

    async def sign_in(self) -> dict[str, Any]:
        begun = await self.begin()
        await self.answer(begun)
        return dict((await self.ask(begun)).json())

    async def refresh(self, token: str, **changed: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "serai-cli"}
        return await self.http.post("/token", data=form | changed)

    async def active(self, token: str) -> bool:
        """By introspection; userinfo says the same of an access token."""
        said = (await self.http.post("/introspect", data={"token": token}, auth=BASIC)).json()
        return bool(said["active"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- device flow --------------------------------------------------------------------------------------------------


async def test_a_device_gets_tokens_once_a_person_has_allowed_it(world: World) -> None:
    begun = await world.begin()
    assert begun["verification_uri_complete"] == f"{URL}/device?user_code={begun['user_code']}"
    assert (begun["expires_in"], begun["interval"]) == (600, 2)
    page = await world.http.get("/device", params={"user_code": begun["user_code"].lower().replace("-", " ")})
    assert begun["user_code"] in page.text and "Alice" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert await world.word(begun) == "authorization_pending"
    assert "Signed in as Alice" in (await world.answer(begun)).text
    told = (await world.ask(begun)).json()
    assert (told["user"], told["token_type"], told["expires_in"]) == ("alice", "Bearer", 900)
    assert (await world.ask(begun)).json()["error"] == "invalid_grant", "a code is good once"


async def test_every_other_end_has_its_word(world: World) -> None:
    begun = await world.begin()
    assert await world.word(begun, after_s=0.5) == "slow_down"
    assert await world.word(begun, after_s=2) == "slow_down", "its interval is seven seconds now"
    assert await world.word(begun, after_s=12) == "authorization_pending"
    await world.answer(begun, "refuse")
    assert await world.word(begun) == "access_denied"
    late = await world.begin()
    assert await world.word(late, after_s=601) == "expired_token"
    assert (await world.ask({"device_code": "unknown"})).json()["error"] == "invalid_grant"
    stranger = await world.http.post("/device_authorization", data={"client_id": "stranger"})
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")
    refused = await world.ask(await world.begin(), client_id="stranger")
    assert refused.json()["error"] == "invalid_client"


async def test_the_page_takes_no_answer_from_elsewhere_nor_to_a_wrong_code(world: World) -> None:
    begun = await world.begin()
    form = {"user_code": begun["user_code"], "user": "alice", "answer": "allow"}
    foreign = await world.http.post("/device", data=form, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 422
    assert (await world.http.get("/device", params={"user_code": "BBBB-BBBB"})).status_code == 404
    assert (await world.http.post("/device", data=form | {"user_code": "BBBB-BBBB"})).status_code == 404
    assert (await world.http.post("/device", data=form | {"user": "mallory"})).status_code == 422
    script = await world.http.get("/device", params={"user_code": "<script>alert(1)</script>"})
    assert "<script" not in script.text
    assert await world.word(begun) == "authorization_pending", "none of it decided anything"
    own = await world.http.post("/device", data=form, headers={"Origin": URL})
    assert own.status_code == 200


async def test_without_offline_access_there_is_no_refresh_token(world: World) -> None:
    begun = await world.begin(scope="openid")
    await world.answer(begun)
    assert "refresh_token" not in (await world.ask(begun)).json()


def test_codes_are_forgotten_after_a_while() -> None:
    clock, devices = TestClock(), Devices()
    for _ in range(100):
        devices.begin("serai-cli", frozenset(), clock())
    first = devices.begin("serai-cli", frozenset(), clock())
    clock.forward(4_300)
    devices.begin("serai-cli", frozenset(), clock())
    assert devices.asked(first.device_code, "serai-cli", clock()) == "invalid_grant"


# -- staying signed in --------------------------------------------------------------------------------------------


async def test_each_refresh_token_is_good_once_and_a_second_use_ends_the_sign_in(world: World) -> None:
    first = await world.sign_in()
    second = (await world.refresh(first["refresh_token"])).json()
    third = (await world.refresh(second["refresh_token"])).json()
    assert await world.active(third["access_token"]) and await world.active(third["refresh_token"])
    reused = await world.refresh(first["refresh_token"])
    assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
    assert (await world.refresh(third["refresh_token"])).json()["error"] == "invalid_grant"
    assert not await world.active(third["access_token"]), "nor is its access token known any more"
    userinfo = await world.http.get("/userinfo", headers={"Authorization": f"Bearer {third['access_token']}"})
    assert (userinfo.status_code, userinfo.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_people_stay_signed_in_over_a_restart(world: World) -> None:
    first = await world.sign_in()
    world.start()
    assert (await world.refresh(first["refresh_token"])).status_code == 200
    file = world.folder / "dev-sign-ins.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert first["refresh_token"].partition(".")[2] not in file.read_text()


async def test_a_sign_in_that_nobody_uses_ends(world: World) -> None:
    first = await world.sign_in()
    world.clock.forward(31 * 86_400)
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changed", [{"client_id": "stranger"}, {"client_id": "demo-workflow"}, {"refresh_token": ""}, {"client_id": ""}]
)
async def test_a_refresh_token_is_its_clients_alone(world: World, changed: dict[str, str]) -> None:
    first = await world.sign_in()
    assert (await world.refresh(first["refresh_token"], **changed)).status_code in (400, 401)
    assert (await world.refresh(first["refresh_token"])).status_code == 200, "nothing was ended by it"


async def test_revocation_ends_a_sign_in_and_tells_nothing(world: World) -> None:
    first, other = await world.sign_in(), await world.sign_in()
    form = {"client_id": "serai-cli"}
    assert (await world.http.post("/revoke", data=form | {"token": "unknown"})).status_code == 200
    assert (await world.http.post("/revoke", data=form | {"token": first["refresh_token"]})).status_code == 200
    assert not await world.active(first["access_token"])
    assert (await world.http.post("/revoke", data=form | {"token": other["access_token"]})).status_code == 200
    assert not await world.active(other["access_token"])
    assert (await world.refresh(other["refresh_token"])).status_code == 200, "its sign-in goes on"
    assert (await world.http.post("/revoke", data={"token": "x"})).status_code in (400, 401)


def test_a_broken_file_of_sign_ins_is_told(tmp_path: Path) -> None:
    (tmp_path / "dev-sign-ins.json").write_text("{")
    with pytest.raises(Misconfigured, match=r"dev-sign-ins\.json cannot be read"):
        World(tmp_path)


# -- modes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rfc9068", "keycloak", "egi", "wlcg"])
async def test_signing_in_is_the_same_in_every_mode(tmp_path: Path, mode: Mode) -> None:
    world = World(tmp_path, mode=mode)
    first = await world.sign_in()
    second = (await world.refresh(first["refresh_token"])).json()
    said = await world.http.get("/userinfo", headers={"Authorization": f"Bearer {second['access_token']}"})
    assert said.json()["sub"] == "alice" and said.json()["eduperson_entitlement"]
    document = (await world.http.get("/.well-known/openid-configuration")).json()
    assert document["device_authorization_endpoint"] == f"{URL}/device_authorization"
    assert {"refresh_token", DEVICE_GRANT} <= set(document["grant_types_supported"])
