"""Memberships at userinfo and introspection, with a real issuer on loopback: whom it speaks of, how long, how often."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.auth.demo_users import CLIMATE
from tests.builders import ALICE, NOON, a_job
from tests.unit.auth.loopback_issuer import BASIC, LoopbackIssuer, loopback_issuer, trusted_egi
from tests.unit.auth.world import Auth, auth, entitlement, item_for

NOW = NOON.timestamp()


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with loopback_issuer() as made:
        yield made


def running(tmp_path: Path, issuer: LoopbackIssuer, **settings: Any) -> Any:
    trust = settings.pop("trust", (trusted_egi(issuer.url),))
    return auth(tmp_path, issuer, trust=trust, network=True, dev_mode=True, **settings)


def by_introspection(issuer: LoopbackIssuer, tmp_path: Path) -> Any:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    return trusted_egi(issuer.url, claims_from="introspection", client_id="serai", client_secret_file=secret)


async def roles(made: Auth, token: str) -> dict[str, str]:
    answer = await made.context(token)
    assert answer.status_code == 200, answer.text
    return {each["vo"]: each["role"] for each in answer.json()["memberships"]}


async def change(made: Auth, issuer: LoopbackIssuer, token: str) -> int:
    """The status of a question for a grant."""
    job = a_job(owner=ALICE.model_copy(update={"issuer": issuer.url}))
    body = {"token": token, "items": [item_for(job, CLIMATE).model_dump()]}
    return (await made.http.post("/internal/grants", json=body)).status_code


async def test_memberships_that_the_token_does_not_carry_are_read_at_userinfo(
    tmp_path: Path, issuer: LoopbackIssuer
) -> None:
    async with running(tmp_path, issuer) as made:
        token = issuer.egi_token()
        assert await roles(made, token) == {CLIMATE: "member"}
        assert (await made.context(token)).json()["principal"]["name"] == "Alice"
        assert await change(made, issuer, token) == 200
    assert issuer.counts["/userinfo"] == 1
    assert f"authorization: bearer {token}".lower() in issuer.heads[-1].lower()


async def test_what_the_token_says_of_memberships_does_not_count_there(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    issuer.userinfo = {"eduperson_entitlement": []}
    async with running(tmp_path, issuer) as made:
        assert await roles(made, issuer.egi_token(eduperson_entitlement=[entitlement(CLIMATE, "manager")])) == {}


async def test_introspection_asks_as_our_own_client(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    async with running(tmp_path, issuer, trust=(by_introspection(issuer, tmp_path),)) as made:
        assert await roles(made, issuer.egi_token()) == {CLIMATE: "member"}
    assert issuer.counts["/introspect"] == 1
    assert BASIC.lower() in issuer.heads[-1].lower()


async def test_a_subject_may_be_the_lasting_name_of_a_person(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    trust = (trusted_egi(issuer.url, subject_claim="voperson_id"),)
    async with running(tmp_path, issuer, trust=trust) as made:
        assert await made.code(issuer.egi_token()) == "unauthenticated", "without it, nobody is there"
        issuer.userinfo = {"voperson_id": "0a1b@egi.example"}
        answer = await made.context(issuer.egi_token(jti="t2"))
    assert answer.json()["principal"]["subject"] == "0a1b@egi.example"


@pytest.mark.parametrize("said", [
    {"sub": "mallory"}, {"sub": None}, {"sub": ["alice"]}, {"sub": "alice "}, {"sub": 1},
])  # fmt: skip
async def test_c11_userinfo_that_speaks_of_somebody_else(
    tmp_path: Path, issuer: LoopbackIssuer, said: dict[str, Any]
) -> None:
    issuer.userinfo = said
    async with running(tmp_path, issuer) as made:
        assert await made.code(issuer.egi_token()) == "unauthenticated"


@pytest.mark.parametrize("said", [
    {"active": "true"}, {"active": 1}, {"active": None}, {"active": False}, {"active": [True]}, {"sub": "mallory"},
    {"sub": None}, {"iss": "https://evil.example"}, {"client_id": "another"}, {"exp": NOW + 901}, {"exp": "soon"},
    {"aud": "another"}, {"aud": []},
])  # fmt: skip
async def test_c11_introspection_that_does_not_clearly_say_yes(
    tmp_path: Path, issuer: LoopbackIssuer, said: dict[str, Any]
) -> None:
    if "sub" in said:
        issuer.userinfo = said
    else:
        issuer.introspection = said
    async with running(tmp_path, issuer, trust=(by_introspection(issuer, tmp_path),)) as made:
        assert await made.code(issuer.egi_token()) == "unauthenticated"


async def test_introspection_that_agrees_in_everything_is_believed(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    issuer.introspection = {"iss": issuer.url, "client_id": "serai-cli", "exp": NOW + 900, "aud": "account"}
    async with running(tmp_path, issuer, trust=(by_introspection(issuer, tmp_path),)) as made:
        assert await made.code(issuer.egi_token()) == ""


@pytest.mark.parametrize("claim", [
    "text", {"a": 1}, None, 7, [None, 1, {}], [entitlement(CLIMATE, authority="evil.example")],
    [entitlement(CLIMATE, role="root")], [entitlement(f"x{number}") for number in range(2_001)],
])  # fmt: skip
async def test_c7_nonsense_at_userinfo_is_no_membership_and_no_error(
    tmp_path: Path, issuer: LoopbackIssuer, claim: object
) -> None:
    issuer.userinfo = {"eduperson_entitlement": claim}
    async with running(tmp_path, issuer) as made:
        assert await roles(made, issuer.egi_token()) == {}


# -- freshness ----------------------------------------------------------------------------------------------------


async def test_c12_a_membership_that_ends_is_seen_within_a_minute_by_changes_and_in_five_by_reads(
    tmp_path: Path, issuer: LoopbackIssuer
) -> None:
    token = issuer.egi_token()
    async with running(tmp_path, issuer, context_cache_s=0) as made:
        assert await roles(made, token) == {CLIMATE: "member"}
        issuer.userinfo = {"eduperson_entitlement": []}
        made.clock.forward(59)
        assert await roles(made, token) == {CLIMATE: "member"}
        made.clock.forward(1)
        [answer] = await made.grant(token, item_for(a_job(), CLIMATE))
        assert answer["refusal_code"] == "not_in_vo"
        assert await roles(made, token) == {}, "the younger answer serves reads too"
        issuer.userinfo = {}
        made.clock.forward(239)
        assert await roles(made, token) == {}
        made.clock.forward(1)
        assert await roles(made, token) == {CLIMATE: "member"}


async def test_while_an_issuer_is_away_reads_go_on_for_ten_minutes_and_changes_wait(
    tmp_path: Path, issuer: LoopbackIssuer
) -> None:
    token = issuer.egi_token()
    async with running(tmp_path, issuer, context_cache_s=0) as made:
        assert await roles(made, token) == {CLIMATE: "member"}
        issuer.trouble = {"/userinfo": "500"}
        made.clock.forward(300)
        assert await roles(made, token) == {CLIMATE: "member"}
        assert await change(made, issuer, token) == 503
        assert (await made.context(issuer.egi_token(jti="new"))).status_code == 503
        made.clock.forward(301)
        assert (await made.context(token)).status_code == 503


async def test_a_token_that_its_issuer_refuses_is_refused_for_ten_seconds_unasked(
    tmp_path: Path, issuer: LoopbackIssuer
) -> None:
    issuer.trouble = {"/userinfo": "401"}
    token = issuer.egi_token()
    async with running(tmp_path, issuer) as made:
        for _ in range(5):
            assert await made.code(token) == "unauthenticated"
        assert issuer.counts["/userinfo"] == 1
        issuer.trouble = {}
        made.clock.forward(10)
        assert await made.code(token) == ""


# -- load ---------------------------------------------------------------------------------------------------------


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def test_one_token_asked_for_many_times_costs_one_question(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    issuer.gate = asyncio.Event()
    token = issuer.egi_token()
    async with running(tmp_path, issuer) as made:
        asking = [asyncio.ensure_future(made.context(token)) for _ in range(50)]
        await until(lambda: issuer.counts["/userinfo"] == 1)
        issuer.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert issuer.counts["/userinfo"] == 1


async def test_many_tokens_ask_a_few_at_a_time(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    issuer.gate = asyncio.Event()
    async with running(tmp_path, issuer, claims_at_once=4, claims_timeout_s=10) as made:
        assert (await made.code("warm.up.x")) == "unauthenticated"
        asking = [asyncio.ensure_future(made.context(issuer.egi_token(jti=f"t{number}"))) for number in range(20)]
        await until(lambda: issuer.at_once == 4)
        issuer.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert issuer.most_at_once <= 4


@pytest.mark.parametrize("trouble", ["hang", "drip", "huge", "html", "redirect", "hang_up", "500", "404", "204"])
async def test_i4_one_issuer_in_trouble_is_left_alone_and_others_are_not_held_up(
    tmp_path: Path, issuer: LoopbackIssuer, trouble: str
) -> None:
    issuer.trouble = {"/userinfo": trouble}
    async with loopback_issuer() as other:
        trust = (trusted_egi(issuer.url), trusted_egi(other.url))
        async with running(tmp_path, issuer, trust=trust, claims_timeout_s=0.1) as made:
            for number in range(8):
                answer = await made.context(issuer.egi_token(jti=f"t{number}"))
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
            assert issuer.counts["/userinfo"] == 5, "after five failures none is asked"
            assert await made.code(other.egi_token()) == ""
            assert not any("169.254" in head for head in issuer.heads)
            issuer.trouble = {}
            made.clock.forward(10)
            assert await made.code(issuer.egi_token(jti="t9")) == ""
            assert await made.code(issuer.egi_token(jti="t10")) == ""


async def test_a_forged_token_reaches_no_endpoint(tmp_path: Path, issuer: LoopbackIssuer) -> None:
    async with running(tmp_path, issuer) as made:
        assert await made.code(issuer.egi_token()) == ""
        stranger = LoopbackIssuer(url=issuer.url)
        assert await made.code(stranger.egi_token()) == "unauthenticated"
        assert await made.code(issuer.egi_token(azp="another-service")) == "unauthenticated"
        assert await made.code(issuer.egi_token(exp=NOW)) == "unauthenticated"
    assert issuer.counts["/userinfo"] == 1


@pytest.mark.parametrize("endpoint", ["https://evil.example/userinfo", "http://127.0.0.1:1/userinfo", 7, None])
async def test_s_an_endpoint_on_another_host_is_not_used(
    tmp_path: Path, issuer: LoopbackIssuer, endpoint: object
) -> None:
    issuer.discovery = {"userinfo_endpoint": endpoint}
    async with running(tmp_path, issuer) as made:
        assert (await made.context(issuer.egi_token())).status_code == 503
    assert issuer.counts["/userinfo"] == 0
