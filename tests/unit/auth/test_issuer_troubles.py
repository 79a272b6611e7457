"""Keys of an issuer over a real socket that misbehaves (I1 to I5): known users are served, nothing piles up."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from joserfc.jwk import OctKey

from services.auth.issuer_http import IssuerHttp
from services.auth.keys import IssuerKeys
from shared.errors import Unavailable
from shared.runtime.key_ring import CoolingDown, KeyTimes
from tests.builders import TestClock
from tests.unit.auth.loopback_issuer import LoopbackIssuer, loopback_issuer, trusted_egi
from tests.unit.auth.world import auth, ec_key, signed

USUAL = KeyTimes(cool_down_s=60, refresh_s=3_600)
SHORT = KeyTimes(cool_down_s=60, refresh_s=3_600, deadline_s=0.6, wait_s=0.3)


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with loopback_issuer() as made:
        yield made


@pytest.fixture
async def keys(issuer: LoopbackIssuer) -> AsyncIterator[tuple[IssuerKeys, TestClock]]:
    entry, clock = trusted_egi(issuer.url), TestClock()
    http = IssuerHttp(entry)
    yield IssuerKeys(http, entry, clock, USUAL), clock
    await http.close()


@pytest.fixture
async def hasty(issuer: LoopbackIssuer) -> AsyncIterator[tuple[IssuerKeys, TestClock]]:
    """The same with short patience, for issuers that never answer."""
    entry, clock = trusted_egi(issuer.url), TestClock()
    http = IssuerHttp(entry)
    yield IssuerKeys(http, entry, clock, SHORT), clock
    await http.close()


async def test_i1_a_flood_of_unknown_key_names_costs_one_look_and_known_users_are_served_meanwhile(
    tmp_path: Path, issuer: LoopbackIssuer
) -> None:
    trust = (trusted_egi(issuer.url),)
    good, stranger = issuer.egi_token(), ec_key("x")
    async with auth(tmp_path, issuer, trust=trust, network=True, dev_mode=True, context_cache_s=0) as running:
        assert await running.code(good) == ""
        looked = issuer.counts["/jwks"]
        running.clock.forward(61)
        forged = [signed(stranger, issuer.egi_claims(), kid=f"n{number}", typ="JWT") for number in range(300)]
        flood = asyncio.gather(*(running.code(token) for token in forged))
        for _ in range(50):
            assert await running.code(good) == ""
        assert set(await flood) == {"unauthenticated"}
        assert issuer.counts["/jwks"] == looked + 1


async def test_i1_ten_thousand_names_asked_of_the_ring_itself(
    issuer: LoopbackIssuer, keys: tuple[IssuerKeys, TestClock]
) -> None:
    ring, clock = keys[0].ring, keys[1]
    assert await ring.get("first") is not None
    clock.forward(60)
    assert await ring.get("nobody's") is None
    for number in range(10_000):
        with pytest.raises(CoolingDown):
            await ring.get(f"kid-{number}")
    assert issuer.counts["/jwks"] == 2
    assert len(ring.known) == 1, "unknown names are not remembered"


@pytest.mark.parametrize("trouble", ["hang", "drip", "huge", "html", "redirect", "hang_up", "500", "404"])
async def test_i2_old_keys_serve_at_once_while_the_key_set_cannot_be_had(
    issuer: LoopbackIssuer, hasty: tuple[IssuerKeys, TestClock], trouble: str
) -> None:
    ring, clock = hasty[0].ring, hasty[1]
    assert await ring.get("first") is not None
    issuer.trouble = {"/jwks": trouble}
    clock.forward(3_601)
    assert await ring.get("first") is not None
    await ring.refresh()
    clock.forward(60)
    begun = time.perf_counter()
    assert await ring.get("first") is not None
    assert time.perf_counter() - begun < SHORT.wait_s, "after a failure nobody waits"
    await ring.refresh()
    clock.forward(48 * 3_600)
    with pytest.raises(Unavailable):
        await ring.get("first")
    issuer.trouble = {}
    clock.forward(60)
    assert await ring.get("first") is not None
    assert not any("169.254" in head for head in issuer.heads)


async def test_i2_a_partly_broken_set_gives_its_good_keys(
    issuer: LoopbackIssuer, keys: tuple[IssuerKeys, TestClock]
) -> None:
    shared_secret = OctKey.generate_key(256).as_dict(private=True) | {"kid": "secret"}
    good = {**issuer.key.as_dict(private=False), "use": "sig"}
    issuer.document = orjson.dumps({"keys": [shared_secret, {"kty": "EC", "kid": "b"}, good]})
    assert await keys[0].ring.get("first") is not None
    assert set(keys[0].ring.known) == {"first"}


async def test_i2_a_slow_first_answer_is_waited_for_by_all_together(
    issuer: LoopbackIssuer, keys: tuple[IssuerKeys, TestClock]
) -> None:
    found = await asyncio.gather(*(keys[0].ring.get("first") for _ in range(20)))
    assert all(key is not None for key in found)
    assert issuer.counts["/jwks"] == 1


async def test_i2_readiness_stays_while_one_issuer_answers(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    async with loopback_issuer() as other:
        trust = (trusted_egi(issuer.url), trusted_egi(other.url))
        other.trouble = {"/jwks": "500"}
        async with auth(tmp_path, issuer, trust=trust, network=True, dev_mode=True) as running:
            assert (await running.http.get("/readyz")).status_code == 200


async def test_i3_a_key_published_before_it_signs_is_never_a_401_and_a_withdrawn_one_ends(
    issuer: LoopbackIssuer, keys: tuple[IssuerKeys, TestClock]
) -> None:
    ring, clock = keys[0].ring, keys[1]
    old, new = issuer.key, ec_key("second")
    assert await ring.get("first") is not None
    issuer.keys = [old, new]
    clock.forward(3_601)
    assert await ring.get("first") is not None
    assert await ring.get("second") is not None, "the planned change"
    issuer.keys = [new]
    clock.forward(3_601)
    with pytest.raises(CoolingDown):
        await ring.get("first")
    assert await ring.get("second") is not None, "the emergency: the old one is refused after one refresh period"


async def test_i5_a_discovery_document_of_another_issuer_is_not_believed(issuer: LoopbackIssuer) -> None:
    issuer.discovery = {"issuer": "https://evil.example"}
    entry = trusted_egi(issuer.url)
    http = IssuerHttp(entry)
    with pytest.raises(Unavailable, match="another issuer"):
        await IssuerKeys(http, entry, TestClock(), SHORT).ring.get("first")
    await http.close()
    assert issuer.counts["/jwks"] == 0
