"""Attacks with users' tokens: each is refused with 401, costs no fetch beyond the first, and tells nothing."""

import base64
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.auth.demo_users import BIO, CLIMATE
from tests.builders import NOON
from tests.unit.auth import world
from tests.unit.auth.world import URL, Auth, FakeIssuer, auth, ec_key, entitlement, signed, trusted

pytestmark = [pytest.mark.fast, pytest.mark.asyncio(loop_scope="module")]
RSA = RSAKey.import_key({**world.RSA.as_dict(private=True), "kid": "rsa"})


@pytest.fixture(scope="module")
def issuer() -> FakeIssuer:
    return FakeIssuer(keys=[ec_key("first"), RSA])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory, issuer: FakeIssuer) -> AsyncIterator[Auth]:
    """One auth for all attacks: none may leave a trace that another would meet."""
    async with auth(tmp_path_factory.mktemp("attacked"), issuer) as made:
        assert await made.code(issuer.token()) == ""
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def running(attacked: Auth, issuer: FakeIssuer) -> AsyncIterator[Auth]:
    yield attacked
    assert issuer.fetches == 1
    assert await attacked.code(issuer.token()) == "", "a good user is still served after the attack"


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_header(token: str, header: dict[str, Any]) -> str:
    return ".".join([segment(header), *token.split(".")[1:]])


def raw_signed(key: Any, header: Any, payload: Any, algorithm: str = "ES256") -> str:
    """A JWS with any header at all, correctly signed over it."""
    signing_input = f"{segment(header)}.{segment(payload)}"
    return f"{signing_input}.{segment(jws.JWSRegistry.algorithms[algorithm].sign(signing_input.encode(), key))}"


# -- signature ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "ES257"])
async def test_no_algorithm_is_no_signature(running: Auth, issuer: FakeIssuer, algorithm: str) -> None:
    forged = with_header(issuer.token(sub="root"), {"alg": algorithm, "typ": "at+jwt", "kid": "first"})
    for token in (forged, forged.rsplit(".", 1)[0] + ".", forged.rsplit(".", 1)[0] + ".AA"):
        assert await running.code(token) == "unauthenticated"


@pytest.mark.parametrize("secret", [RSA.as_pem(private=False), orjson.dumps(RSA.as_dict(private=False)), b"x" * 32])
async def test_the_public_key_is_no_hmac_secret(running: Auth, issuer: FakeIssuer, secret: bytes) -> None:
    header = {"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}
    signing_input = f"{segment(header)}.{segment(issuer.claims())}"
    mac = hmac.digest(secret, signing_input.encode(), "sha256")
    assert await running.code(f"{signing_input}.{segment(mac)}") == "unauthenticated"


async def test_another_key_under_the_right_name(running: Auth, issuer: FakeIssuer) -> None:
    assert await running.code(signed(ec_key("first"), issuer.claims())) == "unauthenticated"


async def test_the_key_says_the_algorithm_not_the_token(running: Auth, issuer: FakeIssuer) -> None:
    assert await running.code(signed(RSA, issuer.claims(), "RS256")) == ""
    assert await running.code(signed(RSA, issuer.claims(), "PS256")) == "unauthenticated"
    assert await running.code(signed(RSA, issuer.claims(), "RS512")) == "unauthenticated"


@pytest.mark.parametrize("header", [
    {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/cert"}, {"x5c": ["MIIB"]},
    {"crit": ["exp"], "exp": 1}, {"cty": "JWT"}, {"zip": "DEF"}, {"x5t": "abc"}, {"more": 1},
])  # fmt: skip
async def test_headers_that_would_let_the_token_choose_its_key(
    running: Auth, issuer: FakeIssuer, header: dict[str, Any]
) -> None:
    before = list(issuer.asked)
    members = {"alg": "ES256", "typ": "at+jwt", "kid": "first"} | header
    assert await running.code(raw_signed(issuer.key, members, issuer.claims())) == "unauthenticated"
    assert issuer.asked == before


async def test_a_key_inside_the_token(running: Auth, issuer: FakeIssuer) -> None:
    mine = ECKey.generate_key("P-256")
    for kid in ("first", "mine", None):
        header = {"alg": "ES256", "typ": "at+jwt", "jwk": mine.as_dict(private=False)} | ({"kid": kid} if kid else {})
        assert await running.code(raw_signed(mine, header, issuer.claims(sub="root"))) == "unauthenticated"


@pytest.mark.parametrize("kid", [
    "unknown", "../../../etc/passwd", "first' OR '1'='1", "first\n", "", ["first"], {"a": 1}, 1, None, True,
    "k" * 10_000,
])  # fmt: skip
async def test_names_of_keys_are_names_only(running: Auth, issuer: FakeIssuer, kid: object) -> None:
    header = {"alg": "ES256", "typ": "at+jwt", "kid": kid}
    assert await running.code(with_header(issuer.token(), header)) == "unauthenticated"


async def test_a_token_without_a_key_name(running: Auth, issuer: FakeIssuer) -> None:
    assert await running.code(signed(issuer.key, issuer.claims(), kid=None)) == "unauthenticated"


# -- form ---------------------------------------------------------------------------------------------------------


async def test_every_other_spelling_of_a_good_token(running: Auth, issuer: FakeIssuer) -> None:
    good = issuer.token()
    head, body, signature = good.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other_spelling = signature[:-1] + last[(last.index(signature[-1]) ^ 1)]
    spellings = [
        f"{head}.{body}", f"{head}.{body}.", f".{body}.{signature}", f"{head}..{signature}", f"{good}.", f".{good}",
        f"{good}.{signature}", f"{head}.{body}..{signature}", f"{good}.a.b", f"{good}=", f"{good}==", f" {good}",
        f"{good}\n", f"{good} ", good.replace(".", ". "), f"{head}.{body}.{other_spelling}", good[:-2],
        f"{head}.{body}.{signature[:-4]}AAAA", "", ".", "..", "...", "a.b.c", f"{head}\u0430.{body}.{signature}",
        f"{head}.{body}.{signature}\x00", f"{head}%2e{body}.{signature}", f"{head}.{body}.+/{signature[2:]}",
    ]  # fmt: skip
    for token in spellings:
        assert await running.code(token) == "unauthenticated", token[-30:]


async def test_json_serialisation_and_encrypted_tokens(running: Auth, issuer: FakeIssuer) -> None:
    head, body, signature = issuer.token().split(".")
    flattened = json.dumps({"protected": head, "payload": body, "signature": signature})
    assert await running.code(flattened) == "unauthenticated"
    assert await running.code(f"{segment({'alg': 'dir', 'enc': 'A256GCM'})}..aaaa.bbbb.cccc") == "unauthenticated"


@pytest.mark.parametrize("member", [
    b'"sub":"root"', b'"\\u0073ub":"root"', b'"x":{"a":1,"a":2}', b'"x":NaN', b'"x":-Infinity', b'"x":1e400',
    b'"x":' + b"9" * 4_000, b'"x":12345678901234567', b'"x":' + b"[" * 4_000 + b"]" * 4_000,
    b'"x":' + b'{"a":' * 1_500 + b"1" + b"}" * 1_500, b'"x":' + b"[" * 20 + b"]" * 20,
    b'"x":"\xff"', b"'x':1", b'"x":1,',
])  # fmt: skip
async def test_payloads_that_readers_read_differently(running: Auth, issuer: FakeIssuer, member: bytes) -> None:
    good = orjson.dumps(issuer.claims())
    assert await running.code(signed(issuer.key, good[:-1] + b',"x":1}')) == ""
    assert await running.code(signed(issuer.key, good[:-1] + b"," + member + b"}")) == "unauthenticated"


@pytest.mark.parametrize("raw", [b"[]", b'"alice"', b"null", b"{}", b"foo", b"\xff\xfe", b'{"a":1}{"b":2}', b"1"])
async def test_payloads_that_are_no_claims(running: Auth, issuer: FakeIssuer, raw: bytes) -> None:
    assert await running.code(signed(issuer.key, raw)) == "unauthenticated"


async def test_a_header_with_a_member_twice(running: Auth, issuer: FakeIssuer) -> None:
    raw = b'{"alg":"ES256","typ":"JWT","typ":"at+jwt","kid":"first"}'
    assert await running.code(raw_signed(issuer.key, raw, issuer.claims())) == "unauthenticated"


async def test_huge_tokens_are_not_looked_at(running: Auth, issuer: FakeIssuer) -> None:
    assert await running.code("a" * 1_000_000) == "unauthenticated"
    assert await running.code(signed(issuer.key, issuer.claims(name="x" * 20_000))) == "unauthenticated"
    assert await running.code("." * 16_000) == "unauthenticated"


# -- claims -------------------------------------------------------------------------------------------------------

NOW = int(NOON.timestamp())


NOT_GOOD = "unauthenticated"


@pytest.mark.parametrize(("changed", "code"), [
    ({"exp": NOW}, "token_expired"), ({"exp": NOW - 1, "iat": NOW - 900}, "token_expired"), ({"exp": None}, NOT_GOOD),
    ({"exp": str(NOW + 900)}, NOT_GOOD), ({"exp": True}, NOT_GOOD), ({"exp": -1}, NOT_GOOD),
    ({"exp": NOW + 315_360_000}, NOT_GOOD), ({"exp": 1e30}, NOT_GOOD), ({"iat": None}, NOT_GOOD),
    ({"iat": NOW + 61, "exp": NOW + 900}, NOT_GOOD), ({"nbf": NOW + 61}, NOT_GOOD), ({"nbf": "now"}, NOT_GOOD),
    ({"iat": NOW - 90_000}, NOT_GOOD), ({"iat": NOW + 30}, ""), ({"nbf": NOW + 30}, ""),
])  # fmt: skip
async def test_times(running: Auth, issuer: FakeIssuer, changed: dict[str, Any], code: str) -> None:
    before = {"iat": NOW - 900} if changed == {"exp": NOW} else {}
    assert await running.code(issuer.token(**(before | changed))) == code


async def test_a_token_ends_at_its_second_although_its_context_is_remembered(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token(exp=NOW + 20)
        running.clock.forward(19.9)
        assert await running.code(token) == ""
        running.clock.forward(0.1)
        assert await running.code(token) == "token_expired"


@pytest.mark.parametrize("audience", [
    "account", "Serai", "serai2", "sera", "serai ", "", None, [], ["account"], [["serai"]], {"serai": 1}, 1, True,
    ["serai", 1], ["serai"] * 33,
])  # fmt: skip
async def test_tokens_for_others(running: Auth, issuer: FakeIssuer, audience: object) -> None:
    assert await running.code(issuer.token(aud=audience)) == "unauthenticated"


async def test_one_of_several_audiences_is_enough(running: Auth, issuer: FakeIssuer) -> None:
    assert await running.code(issuer.token(aud=["account", "serai"])) == ""


@pytest.mark.parametrize("name", [
    "https://evil.example", f"{URL}/", f"{URL}.evil.example", f"{URL}@evil.example", "https://ISSUER.example", [URL], 1,
    None, "", f"{URL}/realms/other", "http://issuer.example",
])  # fmt: skip
async def test_issuers_that_are_not_exactly_trusted_cost_no_fetch(
    running: Auth, issuer: FakeIssuer, name: object
) -> None:
    before = list(issuer.asked)
    assert await running.code(issuer.token(iss=name)) == "unauthenticated"
    assert issuer.asked == before


@pytest.mark.parametrize(
    "subject", ["", 1, None, "alice\r\nSet-Cookie: x", "al\nice", "a" * 256, "\u0430lice", ["alice"], "a\x00"]
)
async def test_subjects_that_could_be_taken_for_somebody_or_something_else(
    running: Auth, issuer: FakeIssuer, subject: object
) -> None:
    assert await running.code(issuer.token(sub=subject)) == "unauthenticated"


@pytest.mark.parametrize(("kind", "claims"), [
    ("JWT", {}), (None, {}), ("id_token+jwt", {}), ("logout+jwt", {}), ("serai-grant+jwt", {}), ("serai-read+jwt", {}),
    ("at+jwt", {"client_id": None}), ("at+jwt", {"jti": None}),
])  # fmt: skip
async def test_other_tokens_of_the_same_issuer(
    running: Auth, issuer: FakeIssuer, kind: str | None, claims: dict[str, Any]
) -> None:
    token = signed(issuer.key, issuer.claims(nonce="n", **claims), typ=kind)
    assert await running.code(token) == "unauthenticated"


async def test_a_name_with_control_characters_is_left_out(running: Auth, issuer: FakeIssuer) -> None:
    answer = await running.context(issuer.token(name="Alice\r\nroot", preferred_username="alice"))
    assert answer.json()["principal"]["name"] == "alice"


@pytest.mark.parametrize("claim", [
    entitlement(CLIMATE), {"a": entitlement(CLIMATE)}, None, [], [1, None],
    [entitlement(CLIMATE, authority="evil.example")],
    [entitlement(CLIMATE, namespace="urn:geant:evil.example")], [entitlement("vo.foreign.example")],
    [entitlement(CLIMATE, role="root")], [entitlement(CLIMATE) + "\n"], [f"{entitlement('x')}:{entitlement(CLIMATE)}"],
])  # fmt: skip
async def test_entitlements_that_say_nothing_to_us(running: Auth, issuer: FakeIssuer, claim: object) -> None:
    answer = await running.context(issuer.token(entitlements=claim))
    assert answer.status_code == 200
    assert answer.json()["memberships"] == []


# -- several issuers ----------------------------------------------------------------------------------------------


async def test_an_issuer_speaks_only_for_the_vos_it_was_given(tmp_path: Path) -> None:
    climate, bio = FakeIssuer("https://climate.example"), FakeIssuer("https://bio.example")
    trust = (trusted(climate.url, vos=(CLIMATE,)), trusted(bio.url, vos=(BIO,), platform_group=None))
    everything = [entitlement(CLIMATE, "manager"), entitlement(BIO, "manager"), entitlement("serai-platform", "admin")]
    async with auth(tmp_path, climate, bio, trust=trust) as running:
        by_climate = (await running.context(climate.token(entitlements=everything))).json()
        by_bio = (await running.context(bio.token(entitlements=everything))).json()
    assert [each["vo"] for each in by_climate["memberships"]] == [CLIMATE]
    assert [each["vo"] for each in by_bio["memberships"]] == [BIO]
    assert (by_climate["platform_roles"], by_bio["platform_roles"]) == (["admin"], [])
    assert by_climate["principal"] != by_bio["principal"], "the same `sub` at two issuers is two people"


async def test_one_issuer_cannot_sign_for_another(tmp_path: Path) -> None:
    one, other = FakeIssuer("https://one.example"), FakeIssuer("https://other.example")
    async with auth(tmp_path, one, other) as running:
        assert await running.code(other.token()) == ""
        assert await running.code(signed(one.key, other.claims())) == "unauthenticated"
        assert await running.code(signed(other.key, other.claims(iss=one.url))) == "unauthenticated"


async def test_keycloak_tokens_under_their_own_profile(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    kept = {"client_id": None, "azp": "portal", "typ": "Bearer"}
    async with auth(tmp_path, issuer, trust=(trusted(profile="keycloak"),)) as running:

        async def code(header: str = "JWT", x5t: str | None = None, **changed: Any) -> str:
            return await running.code(signed(issuer.key, issuer.claims(**(kept | changed)), typ=header, x5t=x5t))

        assert await code() == ""
        assert await code(x5t="thumbprint") == ""
        for other in ("ID", "Refresh", "Logout", "bearer", None):
            assert await code(typ=other) == "unauthenticated"
        assert await code(header="at+jwt") == "unauthenticated"
        assert await code(azp=None) == "unauthenticated"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_ed25519_under_both_its_names(tmp_path: Path) -> None:
    key = OKPKey.import_key({**OKPKey.generate_key("Ed25519").as_dict(private=True), "kid": "ed"})
    issuer = FakeIssuer(keys=[key])
    trust = (trusted(algorithms=("Ed25519", "EdDSA")),)
    async with auth(tmp_path, issuer, trust=trust) as running:
        assert await running.code(signed(key, issuer.claims(), "Ed25519")) == ""
        assert await running.code(signed(key, issuer.claims(), "EdDSA")) == ""
