"""Issuers as data: entries say what is missing, the examples are good ones, and operators are told what one offers."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import orjson
import pytest
import yaml
from typer.testing import CliRunner

from services.__main__ import app
from services.auth import checking
from services.auth.demo_users import BIO, CLIMATE
from services.auth.issuers import Issuer
from services.auth.permissions import PlatformRole, Role
from services.auth.settings import IssuerSettings, read_issuers, trusted_issuers
from services.gateway.settings import Issuer as NamedIssuer
from shared.errors import Misconfigured, Unavailable
from tests.unit.auth.world import URL, FakeIssuer, trusted

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "compose" / "auth" / "issuers.example.yaml"


def entry(**changed: Any) -> dict[str, Any]:
    made = {"issuer": URL, "audiences": ["serai"], "vos": [CLIMATE], "groups": [
        {"group": "/climate", "vo": CLIMATE, "role": "member"},
    ]} | changed  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


# -- the example --------------------------------------------------------------------------------------------------


def test_the_example_has_an_issuer_of_each_family_that_it_promises() -> None:
    issuers = {each.profile: each for each in read_issuers(EXAMPLE)}
    assert set(issuers) == {"egi", "keycloak", "iam", "wlcg", "nomad"}
    assert issuers["egi"].issuer == "https://aai.egi.eu/auth/realms/egi"
    assert (issuers["egi"].claims_from, issuers["egi"].subject_claim) == ("userinfo", "voperson_id")
    assert issuers["egi"].roles["vm_operator"] is Role.MEMBER
    assert issuers["keycloak"].roles["ap-b"] is Role.OBSERVER
    assert issuers["iam"].issuer.endswith("/")
    assert issuers["wlcg"].vos == (BIO,)
    assert issuers["nomad"].vos == ()


def test_no_example_is_a_development_issuer_or_takes_tokens_of_anybody() -> None:
    for issuer in read_issuers(EXAMPLE):
        assert not issuer.needs_dev_mode
        assert issuer.audiences or issuer.clients


def test_a_file_and_the_environment_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SERAI_AUTH_ISSUERS", f"[{trusted().model_dump_json()}]")
    monkeypatch.setenv("SERAI_AUTH_ISSUERS_FILE", str(EXAMPLE))
    assert trusted_issuers(IssuerSettings())[0].issuer == URL
    assert len(trusted_issuers(IssuerSettings())) == 1 + len(read_issuers(EXAMPLE))


# -- what an entry may not leave open -----------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "words"), [
    ({"audiences": None}, "set `audiences`"),
    ({"audiences": ["account"]}, "accept_shared_audience"),
    ({"audiences": None, "accept_shared_audience": True}, "set `clients`"),
    ({"profile": "egi", "claims_from": "token"}, "do not carry the VO"),
    ({"profile": "wlcg", "vos": [CLIMATE, BIO]}, "exactly one VO"),
    ({"profile": "wlcg", "vos": [], "groups": []}, "exactly one VO"),
    ({"claims_from": "introspection"}, "client_secret_file"),
    ({"profile": "nomad"}, "no VO and no role"),
    ({"groups": [{"group": "/bio", "vo": BIO, "role": "member"}]}, "not among its `vos`"),
    ({"groups": [{"group": "/bio", "vo": BIO}]}, "give `vo` and `role`"),
    ({"groups": [{"group": "/bio", "vo": CLIMATE, "role": "member", "platform_role": "admin"}]}, "alone"),
    ({"role_format": "access:{vo}"}, "`{role}`"),
    ({"groups": []}, "nothing says how"),
    ({"profile": "saml"}, "profile"),
    ({"algorithms": ["HS256"]}, "algorithms"),
    ({"audience": "serai"}, "audience"),
    ({"issuer": "http://issuer.example"}, "https"),
    ({"userinfo_uri": "ftp://issuer.example"}, "https"),
    ({"introspection_uri": "https://u:p@issuer.example"}, "https"),
])  # fmt: skip
def test_an_entry_that_cannot_hold_says_what_to_set(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    file = tmp_path / "issuers.yaml"
    file.write_text(yaml.safe_dump({"issuers": [entry(), entry(**changed)]}))
    with pytest.raises(Misconfigured, match="issuer 2") as refusal:
        read_issuers(file)
    assert words in refusal.value.what


@pytest.mark.parametrize("text", ["", "[]", "issuers: 1", "issuers: {", "issuers:\n  - 1"])
def test_a_file_that_is_no_list_of_issuers_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "issuers.yaml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=r"issuers\.yaml"):
        read_issuers(file)
    with pytest.raises(Misconfigured, match="absent"):
        read_issuers(tmp_path / "absent")


def test_an_entry_is_as_usual_for_its_profile_unless_it_says_otherwise() -> None:
    usual = Issuer(issuer=URL, profile="egi", accept_shared_audience=True, clients=("cli",))
    assert (usual.claims_from, usual.subject_claim, usual.says_all) == ("userinfo", "voperson_id", True)
    other = Issuer(issuer=URL, profile="egi", audiences=("serai",), claims_from="userinfo", whole=False,
                   subject_claim="sub", max_token_life_s=60)  # fmt: skip
    assert (other.subject_claim, other.says_all, other.max_token_life_s) == ("sub", False, 60)
    assert not Issuer(issuer=URL, audiences=("serai",)).says_all


def test_a_group_may_mean_a_platform_role() -> None:
    issuer = Issuer.model_validate(entry(groups=[{"group": "/operators", "platform_role": "site-operator"}]))
    assert issuer.groups[0].platform_role is PlatformRole.SITE_OPERATOR


# -- what operators are told --------------------------------------------------------------------------------------


async def report_on(issuer: FakeIssuer, *trust: Issuer, url: str = URL) -> checking.Report:
    return await checking.check(url, trust, httpx.MockTransport(issuer.answer))


async def test_a_trusted_issuer_with_a_usable_key_lacks_nothing() -> None:
    issuer = FakeIssuer(discovery={"scopes_supported": ["openid", "x", "eduperson_entitlement"]})
    report = await report_on(issuer, trusted())
    assert report.problems == ()
    assert "  key first: ES256" in report.said
    assert "  scopes that matter here: openid, eduperson_entitlement" in report.said


async def test_an_issuer_that_nobody_trusts_gets_an_entry_to_begin_with() -> None:
    report = await report_on(
        FakeIssuer(url="https://aai.egi.eu/auth/realms/egi"), url="https://aai.egi.eu/auth/realms/egi"
    )
    assert "not trusted" in report.problems[0]
    assert "    profile: egi" in report.said


async def test_a_slash_too_many_is_named_as_such() -> None:
    report = await report_on(FakeIssuer(url=f"{URL}/"), trusted(), url=f"{URL}/")
    assert f"the settings trust {URL!r}, which is another string" in report.problems[0]


async def test_an_endpoint_that_is_needed_and_missing_is_named() -> None:
    by_userinfo = trusted(claims_from="userinfo")
    assert "set `userinfo_uri`" in (await report_on(FakeIssuer(), by_userinfo)).problems[0]
    elsewhere = FakeIssuer(discovery={"userinfo_endpoint": "https://evil.example/userinfo"})
    assert "on another host" in (await report_on(elsewhere, by_userinfo)).problems[0]
    at_home = FakeIssuer(discovery={"userinfo_endpoint": f"{URL}/userinfo"})
    assert (await report_on(at_home, by_userinfo)).problems == ()
    assert (await report_on(FakeIssuer(), trusted(claims_from="userinfo", userinfo_uri=f"{URL}/u"))).problems == ()


async def test_keys_that_cannot_be_used_are_named_with_the_reason() -> None:
    report = await report_on(FakeIssuer(), trusted(algorithms=("RS256",)))
    assert "see `algorithms`" in report.problems[0]
    assert "  key first: left out, no algorithm of it is accepted" in report.said
    broken = await report_on(FakeIssuer(document=orjson.dumps({"keys": 1})), trusted())
    assert "not a key set" in broken.problems[0]
    gone = await report_on(FakeIssuer(status=404), trusted())
    assert "answered 404" in gone.problems[0]


async def test_what_is_no_issuer_is_refused_in_words() -> None:
    with pytest.raises(Misconfigured, match="plain https"):
        await report_on(FakeIssuer(), url="issuer.example")
    with pytest.raises(Unavailable, match="another issuer"):
        await report_on(FakeIssuer(url="https://other.example"))


def test_the_command_lists_and_checks() -> None:
    listed = CliRunner().invoke(app, ["issuers", "list", "--file", str(EXAMPLE)])
    assert listed.exit_code == 0
    assert "EGI Check-in: https://aai.egi.eu/auth/realms/egi  profile egi, claims from userinfo" in listed.output
    checked = CliRunner().invoke(app, ["issuers", "check", "nonsense", "--file", str(EXAMPLE)])
    assert checked.exit_code == 78
    assert "plain https address" in checked.output
    absent = CliRunner().invoke(app, ["issuers", "list", "--file", "absent.yaml"])
    assert absent.exit_code == 78


# -- what stands in the documents ---------------------------------------------------------------------------------


def test_every_profile_has_an_example_that_loads() -> None:
    assert {each.profile for each in read_issuers(EXAMPLE)} == {"egi", "keycloak", "iam", "wlcg", "nomad"}


def test_the_issuers_that_the_guide_names_to_people_are_valid_settings() -> None:
    guide = (ROOT / "docs" / "signing-in.md").read_text()
    named = [NamedIssuer.model_validate(each) for each in orjson.loads(guide.split("```json\n")[1].split("```")[0])]
    assert all(each.client_id and "offline_access" in each.scopes for each in named)
    assert {each.issuer for each in named} <= {each.issuer for each in read_issuers(EXAMPLE)}, "and can be trusted"


def test_the_keycloak_of_the_compose_file_fits_its_entry() -> None:
    folder = ROOT / "compose" / "keycloak"
    (issuer,) = read_issuers(folder / "issuer.example.yaml")
    realm = orjson.loads((folder / "serai-realm.json").read_bytes())
    assert issuer.issuer.endswith(f"/realms/{realm['realm']}")
    (cli,) = (each for each in realm["clients"] if each["clientId"] == "serai-cli")
    assert cli["publicClient"] and cli["attributes"]["oauth2.device.authorization.grant.enabled"] == "true"
    audiences = {each["config"].get("included.custom.audience") for each in cli["protocolMappers"]}
    assert audiences & set(issuer.audiences)
    assert realm["revokeRefreshToken"] and realm["refreshTokenMaxReuse"] == 0, "each refresh token is good once"
    words = [each["name"] for each in realm["roles"]["realm"]]
    expected = {issuer.role_format.format(vo=vo, role=role) for vo in issuer.vos for role in issuer.roles}
    assert expected == set(words)
