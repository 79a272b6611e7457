"""Issuers' keys: fetched seldom, from the configured place only, cleaned; an issuer's trouble stays its own."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2 as httpx
import orjson
import pytest
from joserfc.jwk import ECKey, OctKey

from services.auth.issuer_http import IssuerHttp
from services.auth.keys import IssuerKeys, usable
from services.auth.weak_keys import rsa_weakness
from shared.errors import Unavailable
from shared.runtime.key_ring import KeyTimes
from tests.builders import TestClock
from tests.unit.auth.world import RSA, URL, FakeIssuer, auth, ec_key, signed, trusted

pytestmark = pytest.mark.fast

UNKNOWN = "unauthenticated"


async def test_a_flood_of_unknown_key_names_costs_one_fetch_a_minute(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    stranger = ec_key("x")
    async with auth(tmp_path, issuer) as running:
        assert await running.code(issuer.token()) == ""
        running.clock.forward(61)
        for number in range(60):
            assert await running.code(signed(stranger, issuer.claims(), kid=f"kid-{number}")) == UNKNOWN
        assert issuer.fetches == 2
        running.clock.forward(61)
        codes = await asyncio.gather(
            *(running.code(signed(stranger, issuer.claims(), kid=f"kid-{number}")) for number in range(60))
        )
        assert set(codes) == {UNKNOWN}
        assert issuer.fetches == 3
        assert await running.code(issuer.token()) == ""


async def test_a_new_key_is_found_and_an_old_one_ends(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    old, new = issuer.key, ec_key("second")
    async with auth(tmp_path, issuer) as running:
        assert await running.code(issuer.token()) == ""
        issuer.keys = [new, old]
        running.clock.forward(60)
        assert await running.code(signed(new, issuer.claims())) == ""
        assert await running.code(signed(old, issuer.claims(jti="t2"))) == ""
        issuer.keys = [new]
        running.clock.forward(700)
        assert await running.code(signed(old, issuer.claims(jti="t3"))) == "", "known until the next refresh"
        running.clock.forward(3_601)
        fresh = int(running.clock().timestamp())
        assert await running.code(signed(old, issuer.claims(iat=fresh, exp=fresh + 60))) == UNKNOWN
        assert await running.code(signed(new, issuer.claims(iat=fresh, exp=fresh + 60))) == ""


async def test_a_signature_that_was_checked_is_checked_again_with_another_key_of_the_same_name(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    old, new = issuer.key, ec_key("first")
    async with auth(tmp_path, issuer) as running:
        token = signed(old, issuer.claims(exp=int(running.clock().timestamp()) + 7_200))
        assert await running.code(token) == ""
        running.clock.forward(61)
        assert await running.code(token) == "", "its context is forgotten, its signature is not"
        swapped = f"{token.rpartition('.')[0]}.{signed(new, issuer.claims()).rpartition('.')[2]}"
        assert await running.code(swapped) == UNKNOWN
        issuer.keys = [new]
        running.clock.forward(3_601)
        assert await running.code(token) == UNKNOWN


@pytest.mark.parametrize("trouble", [
    {"status": 500}, {"status": 404}, {"status": 302}, {"status": 204}, {"document": b"<html>"}, {"document": b"[]"},
    {"document": b'{"keys":[]}'}, {"document": b'{"keys":{}}'}, {"document": b'{"keys":[1]}'},
    {"document": b"x" * 300_000}, {"document": b'{"keys":[],"keys":[]}'},
])  # fmt: skip
async def test_while_an_issuer_is_in_trouble_its_known_keys_serve(tmp_path: Path, trouble: dict[str, Any]) -> None:
    issuer, other = FakeIssuer(), FakeIssuer("https://other.example")
    async with auth(tmp_path, issuer, other) as running:
        assert await running.code(issuer.token()) == ""
        for name, value in trouble.items():
            setattr(issuer, name, value)
        running.clock.forward(3_700)
        now = int(running.clock().timestamp())
        assert await running.code(issuer.token(iat=now, exp=now + 60)) == ""
        unknown = await running.context(signed(ec_key("new"), issuer.claims(iat=now, exp=now + 60)))
        assert unknown.status_code == 503, "nobody can say now whether that key is the issuer's"
        assert int(unknown.headers["retry-after"]) >= 1
        assert not any("169.254" in address for address in issuer.asked)
        assert await running.code(other.token(iat=now, exp=now + 60)) == ""
        running.clock.forward(48 * 3_600)
        later = int(running.clock().timestamp())
        assert (await running.context(issuer.token(iat=later, exp=later + 60))).status_code == 503


async def test_an_issuer_that_was_never_reached_is_asked_again_soon(tmp_path: Path) -> None:
    issuer = FakeIssuer(status=503)
    async with auth(tmp_path, issuer) as running:
        assert (await running.context(issuer.token())).status_code == 503
        assert (await running.http.get("/readyz")).status_code == 503
        issuer.status = 200
        running.clock.forward(1)
        assert await running.code(issuer.token()) == ""
        assert (await running.http.get("/readyz")).json()["checks"]["issuers"] == "ok"


async def test_one_issuer_in_trouble_leaves_the_service_ready(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer(status=500), FakeIssuer("https://other.example")) as running:
        assert (await running.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize("discovery", [
    {"issuer": "https://evil.example"}, {"issuer": f"{URL}/"}, {"jwks_uri": "https://evil.example/jwks"},
    {"jwks_uri": "http://issuer.example/jwks"}, {"jwks_uri": "https://issuer.example:8443/jwks"},
    {"jwks_uri": "https://issuer.example@evil.example/jwks"}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": 1},
])  # fmt: skip
async def test_discovery_must_be_about_the_issuer_and_stay_at_home(tmp_path: Path, discovery: dict[str, Any]) -> None:
    issuer = FakeIssuer(discovery=discovery)
    async with auth(tmp_path, issuer) as running:
        assert (await running.context(issuer.token())).status_code == 503
    assert issuer.fetches == 0


async def test_a_configured_address_needs_no_discovery(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, trust=(trusted(jwks_uri=f"{URL}/certs"),)) as running:
        assert await running.code(issuer.token()) == ""
    assert issuer.asked == [f"{URL}/certs"]


async def test_a_slow_issuer_is_given_up() -> None:
    waiting = asyncio.Event()

    async def never(request: httpx.Request) -> httpx.Response:
        await waiting.wait()
        return httpx.Response(200)

    http = IssuerHttp(trusted(), httpx.MockTransport(never))
    keys = IssuerKeys(http, trusted(), TestClock(), KeyTimes(deadline_s=0.01))
    with pytest.raises(Unavailable, match="did not come within"):
        await keys.ring.get("first")
    await http.close()


# -- cleaning -----------------------------------------------------------------------------------------------------


def entry(key: Any = None, **changed: Any) -> dict[str, Any]:
    made = (key or ECKey.generate_key("P-256")).as_dict(private=False) | {"kid": "k", "use": "sig"} | changed
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.filterwarnings("ignore:Key size should be")
@pytest.mark.parametrize("bad", [
    entry(use="enc"), entry(key_ops=["sign"]), entry(key_ops="verify"), entry(kid=None), entry(kid=1),
    entry(alg="HS256"), entry(alg="none"), entry(alg=["ES256"]), entry(crv="P-384"), entry(crv="secp256k1"),
    entry(x="AAAA"), entry(kty="oct"), entry(kty="RSA"), entry(ECKey.generate_key("P-384"), alg="ES256"),
    entry(ECKey.generate_key("secp256k1")), entry(RSA, n="u" + "A" * 170), entry(RSA, e="AQ"), entry(RSA, e="Aw"),
    OctKey.generate_key(256).as_dict(private=True) | {"kid": "k"}, {}, {"kid": "k"},
])  # fmt: skip
def test_keys_that_are_left_out_while_good_ones_stay(bad: dict[str, Any]) -> None:
    good = entry(kid="good")
    assert set(usable({"keys": [bad, good, "nonsense", None]}, trusted())) == {"good"}


def test_a_name_that_stands_there_twice_names_neither() -> None:
    assert set(usable({"keys": [entry(kid="a"), entry(kid="a"), entry(kid="b")]}, trusted())) == {"b"}


def test_a_key_is_good_for_its_own_algorithm_and_those_of_its_issuer() -> None:
    both = trusted(algorithms=("RS256", "PS256"))
    assert usable({"keys": [entry(RSA)]}, both)["k"].algorithms == {"RS256", "PS256"}
    assert usable({"keys": [entry(RSA, alg="PS256")]}, both)["k"].algorithms == {"PS256"}
    assert usable({"keys": [entry(RSA, alg="RS512")]}, both) == {}


def test_private_halves_that_an_issuer_publishes_are_not_kept() -> None:
    leaked = ec_key("k").as_dict(private=True)
    assert not usable({"keys": [leaked]}, trusted())["k"].key.is_private


def test_roca_keys_are_known_by_their_modulus() -> None:
    """Moduli of the vulnerable kind are powers of 65537 modulo all small primes (CVE-2017-15361)."""
    primorial = 1
    for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
                  103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157):  # fmt: skip
        primorial *= prime
    roca = pow(65_537, 12_345, primorial) + primorial * (1 << (2_048 - primorial.bit_length()))
    assert roca.bit_length() == 2_048
    assert "ROCA" in rsa_weakness(roca, 65_537)
    assert rsa_weakness(RSA.public_key.public_numbers().n, 65_537) == ""


def test_a_key_set_is_read_from_json_as_it_comes() -> None:
    assert set(usable(orjson.loads(FakeIssuer().jwks()), trusted())) == {"first"}
