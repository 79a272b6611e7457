"""Grants: auth signs what the table allows, and the receiver's check finds every way to use one for something else."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from services.auth.demo_users import BIO, CLIMATE
from shared.contracts.commands import CancelJob, CordonSite, Principal, UncordonSite
from shared.contracts.policies import demand_of
from shared.errors import Refused, Unavailable
from shared.runtime.key_ring import KeyTimes
from shared.runtime.tokens import GrantExpired, GrantInvalid, GrantVerifier, granted_claims, same
from tests.builders import NOON, TestClock, a_job, job_id
from tests.unit.auth.world import URL, FakeIssuer, auth, entitlement, item_for, message_for, signed

pytestmark = pytest.mark.fast

ALICE = Principal(issuer=URL, subject="alice", name="Alice")
BOB = Principal(issuer=URL, subject="bob")
SUBMIT = a_job(owner=ALICE)
CANCEL = CancelJob(job_id=job_id(1), vo=CLIMATE, requested_by=ALICE, requested_at=NOON)
CORDON = CordonSite(site="prague", reason="disk", requested_by=ALICE, requested_at=NOON)


async def test_a_granted_submission_passes_the_check_of_its_receiver(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        [answer] = await running.grant(issuer.token(), item_for(SUBMIT, CLIMATE))
        claims = await running.grants.verify_command(message_for(SUBMIT, answer["grant"]))
    assert same(claims.principal, ALICE)
    assert (claims.verb, claims.vo, claims.own) == ("job.submit", CLIMATE, True)
    assert claims.expires_at - claims.issued_at == timedelta(seconds=900)
    assert granted_claims(answer["grant"]) == claims


async def test_a_grant_covers_exactly_one_command(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token(entitlements=[entitlement(CLIMATE, "manager")])
        submit, cancel = await running.grant(token, item_for(SUBMIT, CLIMATE), item_for(CANCEL, CLIMATE))
        good = message_for(SUBMIT, submit["grant"])
        await running.grants.verify_command(good)
        bad = {
            "body of another": replace(good, body=message_for(a_job(2, owner=ALICE), "").body),
            "one byte more": replace(good, body=good.body + b" "),
            "other type": replace(good, type="eu.serai.job.cancel.v1"),
            "other content type": replace(good, content_type="application/cloudevents+json"),
            "other grant": message_for(SUBMIT, cancel["grant"]),
            "no grant": message_for(SUBMIT, ""),
            "half a grant": message_for(SUBMIT, submit["grant"].rsplit(".", 1)[0]),
            "users' token": message_for(SUBMIT, token),
            "huge grant": message_for(SUBMIT, "a" * 100_000),
        }
        for what, message in bad.items():
            with pytest.raises(GrantInvalid):
                await running.grants.verify_command(message)
                pytest.fail(what)


async def test_a_body_that_speaks_for_somebody_else_is_found_although_its_digest_is_signed(tmp_path: Path) -> None:
    """A gateway gone bad could ask for a grant over any body: the receiver compares who and which VO."""
    issuer = FakeIssuer()
    both = issuer.token(entitlements=[entitlement(CLIMATE), entitlement(BIO)])
    async with auth(tmp_path, issuer) as running:
        for command, vo in (
            (a_job(owner=BOB), CLIMATE),
            (a_job(owner=ALICE.model_copy(update={"issuer": "https://other.example"})), CLIMATE),
            (a_job(owner=ALICE, vo=BIO), CLIMATE),
            (a_job(owner=ALICE, vo=CLIMATE), BIO),
            (CANCEL.model_copy(update={"requested_by": BOB}), CLIMATE),
            (CANCEL.model_copy(update={"vo": BIO}), CLIMATE),
        ):
            [answer] = await running.grant(both, item_for(command, vo))
            with pytest.raises(GrantInvalid, match="another"):
                await running.grants.verify_command(message_for(command, answer["grant"]))


async def test_an_expired_grant_is_good_for_asking_again_and_for_nothing_else(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        [answer] = await running.grant(issuer.token(), item_for(SUBMIT, CLIMATE))
        message = message_for(SUBMIT, answer["grant"])
        running.clock.forward(899.9)
        await running.grants.verify_command(message)
        running.clock.forward(0.1)
        with pytest.raises(GrantExpired) as expired:
            await running.grants.verify_command(message)
        assert same(expired.value.claims.principal, ALICE)
        with pytest.raises(GrantInvalid):
            await running.grants.verify_command(replace(message, body=message.body + b" "))


async def test_grants_of_one_kind_are_not_grants_of_the_other(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        [answer] = await running.grant(issuer.token(), item_for(SUBMIT, CLIMATE))
        read_grant = (await running.context(issuer.token())).json()["read_grant"]
        await running.grants.verify_read(read_grant)
        with pytest.raises(GrantInvalid, match="another type"):
            await running.grants.verify_command(message_for(SUBMIT, read_grant))
        with pytest.raises(GrantInvalid, match="another type"):
            await running.grants.verify_read(answer["grant"])
        assert await running.code(read_grant) == "unauthenticated"
        assert await running.code(answer["grant"]) == "unauthenticated"


async def test_read_grants_say_who_asks_and_end_with_the_minute_or_the_token(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    entitlements = [entitlement(CLIMATE, "observer"), entitlement("serai-platform", "site-operator")]
    async with auth(tmp_path, issuer) as running:
        context = (await running.context(issuer.token(entitlements=entitlements))).json()
        asker = await running.grants.verify_read(context["read_grant"])
        assert asker.principal == ALICE
        assert asker.may("job.view_vo", CLIMATE)
        assert not asker.may("job.submit", CLIMATE)
        assert not asker.may("job.view_vo", BIO)
        assert asker.platform_verbs == {"site.view", "site.cordon"}
        running.clock.forward(60)
        with pytest.raises(Refused, match="expired") as expired:
            await running.grants.verify_read(context["read_grant"])
        assert expired.value.code == "grant_expired", "not a forged one: whoever asks may ask auth for another"
        short = issuer.token(exp=int(NOON.timestamp()) + 70, entitlements=entitlements)
        brief = await running.grants.verify_read((await running.context(short)).json()["read_grant"])
        assert brief.expires_at == NOON + timedelta(seconds=70)


BY_THE_TABLE: list[tuple[Any, str | None, bool, list[str], str | None]] = [
    (SUBMIT, CLIMATE, True, ["observer"], "role_insufficient"), (SUBMIT, BIO, True, ["manager"], "not_in_vo"),
    (SUBMIT, None, True, ["manager"], "mismatch"), (CANCEL, CLIMATE, False, ["member"], "role_insufficient"),
    (CANCEL, CLIMATE, False, ["operator"], None), (CANCEL, CLIMATE, True, ["member"], None),
    (CORDON, None, True, ["manager"], "platform_role_needed"), (CORDON, CLIMATE, True, ["manager"], "mismatch"),
]  # fmt: skip


async def test_what_the_table_refuses_gets_no_grant_but_words(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        for command, vo, own, roles, code in BY_THE_TABLE:
            token = issuer.token(entitlements=[entitlement(CLIMATE, role) for role in roles])
            [answer] = await running.grant(token, item_for(command, vo, own=own))
            assert answer["refusal_code"] == code, (command, roles)
            assert (answer["grant"] is None) is (code is not None), (command, roles)
            assert (answer["refusal"] is None) is (code is None), (command, roles)


LARGER: list[dict[str, Any]] = [
    {"verb": "job.view"}, {"verb": "job.cancel"}, {"message_type": "eu.serai.site.cordon.v1"}, {"message_type": "x"},
    {"message_type": "eu.serai.job.submit.v2"}, {"message_type": "eu.serai.job.queued.v1"}, {"body_sha256": "0" * 63},
    {"body_sha256": "A" * 64}, {"body_sha256": ""}, {"content_type": "text/plain"}, {"verb": ""},
]  # fmt: skip


async def test_a_small_verb_never_buys_a_large_command(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        for changed in LARGER:
            [answer] = await running.grant(issuer.token(), item_for(SUBMIT, CLIMATE, **changed))
            assert answer["grant"] is None, changed
            assert answer["refusal_code"] in ("mismatch", "unknown_command"), changed


async def test_site_operators_cordon_and_their_grant_names_no_vo(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    token = issuer.token(entitlements=[entitlement("serai-platform", "site-operator")])
    back = UncordonSite(site="prague", requested_by=ALICE, requested_at=NOON)
    async with auth(tmp_path, issuer) as running:
        for command in (CORDON, back):
            [answer] = await running.grant(token, item_for(command, None))
            assert (await running.grants.verify_command(message_for(command, answer["grant"]))).vo is None


async def test_whose_job_a_cancellation_reaches(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    token = issuer.token(entitlements=[entitlement(CLIMATE, "manager")])
    async with auth(tmp_path, issuer) as running:
        own, anybodys = await running.grant(
            token, item_for(CANCEL, CLIMATE, own=True), item_for(CANCEL, CLIMATE, own=False)
        )
    assert granted_claims(own["grant"]).covers(ALICE)
    assert not granted_claims(own["grant"]).covers(BOB)
    assert granted_claims(anybodys["grant"]).covers(BOB)


async def test_a_thousand_in_one_question_and_not_one_more(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        answers = await running.grant(issuer.token(), *[item_for(SUBMIT, CLIMATE)] * 1_000)
        assert all(answer["grant"] for answer in answers)
        body = {"token": issuer.token(), "items": [item_for(SUBMIT, CLIMATE).model_dump()] * 1_001}
        assert (await running.http.post("/internal/grants", json=body)).status_code == 422


async def test_a_question_that_is_not_understood_is_told_so_to_the_gateway_and_to_nobody_else(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        bodies = [(b"{", "undecodable"), (b"{}", "invalid_request"), (b'{"token":"t","items":[{}]}', "invalid_request")]
        for body, code in bodies:
            for kind in ("application/json", "application/json; charset=utf-8"):
                answer = await running.http.post("/internal/grants", content=body, headers={"content-type": kind})
                assert answer.json()["code"] == code
                stranger = {"content-type": kind, "authorization": "Bearer no"}
                answer = await running.http.post("/internal/grants", content=body, headers=stranger)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert (await running.http.get("/internal/grants")).status_code == 405


async def test_only_a_live_token_gets_grants_although_its_context_is_remembered(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    token = issuer.token(exp=int(NOON.timestamp()) + 5)
    async with auth(tmp_path, issuer) as running:
        assert await running.code(token) == ""
        running.clock.forward(5)
        body = {"token": token, "items": [item_for(SUBMIT, CLIMATE).model_dump()]}
        answer = await running.http.post("/internal/grants", json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_b1_a_demand_that_is_not_the_bodys_is_found_although_auth_signed_its_digest(tmp_path: Path) -> None:
    """A gateway gone bad could have a small demand judged and send a large job."""
    issuer = FakeIssuer()
    large = a_job(owner=ALICE, resources={"cpu_cores": 64})
    async with auth(tmp_path, issuer) as running:
        said = item_for(large, CLIMATE, demand=demand_of(SUBMIT.spec))
        honest = item_for(large, CLIMATE, demand=demand_of(large.spec))
        cancel = item_for(CANCEL, CLIMATE, demand=demand_of(SUBMIT.spec))
        lied, told, nonsense = await running.grant(issuer.token(), said, honest, cancel)
        with pytest.raises(GrantInvalid, match="something else than what was judged"):
            await running.grants.verify_command(message_for(large, lied["grant"]))
        claims = await running.grants.verify_command(message_for(large, told["grant"]))
    assert claims.demand_sha256 == demand_of(large.spec).digest()
    assert claims.policy == "0-44136fa3"
    assert (claims.client, claims.token_id) == ("serai-cli", "t1")
    assert nonsense["refusal_code"] == "mismatch"


async def test_b1_headers_that_are_swapped_between_two_messages_fit_neither(tmp_path: Path) -> None:
    issuer, other = FakeIssuer(), a_job(2, owner=ALICE)
    async with auth(tmp_path, issuer) as running:
        [one] = await running.grant(issuer.token(), item_for(SUBMIT, CLIMATE))
        [two] = await running.grant(issuer.token(), item_for(other, CLIMATE))
        for command, answer in ((SUBMIT, two), (other, one)):
            with pytest.raises(GrantInvalid, match="another body"):
                await running.grants.verify_command(message_for(command, answer["grant"]))


async def test_b1_commands_that_share_a_grant_are_covered_each_and_nothing_beside_them(tmp_path: Path) -> None:
    issuer, jobs = FakeIssuer(), [a_job(number, owner=ALICE) for number in range(1, 12)]
    async with auth(tmp_path, issuer) as running:
        answers = await running.grant(issuer.token(), *(item_for(job, CLIMATE) for job in jobs))
        grants = [answer["grant"] for answer in answers]
        assert [len(granted_claims(grant).bodies) for grant in grants] == [8] * 8 + [3] * 3
        for job, grant in zip(jobs, grants, strict=True):
            await running.grants.verify_command(message_for(job, grant))
        for grant in (grants[0], grants[-1]):
            good = message_for(jobs[grants.index(grant)], grant)
            for bad in (
                message_for(a_job(12, owner=ALICE), grant), replace(good, body=good.body + b" "),
                replace(good, type="eu.serai.job.cancel.v1"), message_for(jobs[0], grants[-1]),
            ):  # fmt: skip
                with pytest.raises(GrantInvalid):
                    await running.grants.verify_command(bad)


async def test_commands_that_differ_in_more_than_their_bodies_share_no_grant(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    large, stranger = a_job(2, owner=ALICE, resources={"cpu_cores": 2}), a_job(3, owner=ALICE)
    async with auth(tmp_path, issuer) as running:
        answers = await running.grant(
            issuer.token(), item_for(SUBMIT, CLIMATE, demand=demand_of(SUBMIT.spec)),
            item_for(large, CLIMATE, demand=demand_of(large.spec)), item_for(stranger, BIO), item_for(CANCEL, CLIMATE),
            item_for(CANCEL, CLIMATE, own=False), item_for(stranger, CLIMATE),
            item_for(SUBMIT, CLIMATE, demand=demand_of(SUBMIT.spec)),
        )  # fmt: skip
    grants = [answer["grant"] for answer in answers]
    assert grants[2] is None and grants[4] is None, "what is refused shares nothing"
    assert grants[0] == grants[6] and len({*grants} - {None}) == 4


async def test_messages_with_one_grant_cost_one_look_at_its_signature_as_long_as_its_key_is_published() -> None:
    key, clock = an_okp(), TestClock()
    source = Source(key)
    verifier = GrantVerifier(source, clock)
    jobs = [a_job(number, owner=ALICE) for number in range(1, 4)]
    digests = [hashlib.sha256(message_for(job, "").body).hexdigest() for job in jobs]
    grant = forged(key, body_sha256=digests)
    claims = [await verifier.verify_command(message_for(job, grant)) for job in jobs]
    assert claims[0] is claims[1] is claims[2]
    source.keys = [an_okp("k2")]
    clock.forward(601)
    with pytest.raises(Unavailable):
        await verifier.verify_command(message_for(jobs[0], grant))
    clock.forward(5)
    with pytest.raises(GrantInvalid, match="signature"):
        await verifier.verify_command(message_for(jobs[0], grant))


async def test_a_grant_that_others_came_with_runs_out_all_the_same() -> None:
    key, clock = an_okp(), TestClock()
    verifier = GrantVerifier(Source(key), clock)
    message = message_for(SUBMIT, forged(key))
    await verifier.verify_command(message)
    clock.forward(900)
    with pytest.raises(GrantExpired):
        await verifier.verify_command(message)


async def test_keys_change_while_everything_runs_and_no_grant_is_lost(tmp_path: Path) -> None:
    """Two keys are published for a day; a receiver that looks every ten minutes never meets a key it does not know."""
    issuer, clock = FakeIssuer(), TestClock()
    short = {"rotate_after_s": 10 * 86_400, "publish_before_s": 86_400}
    async with auth(tmp_path, issuer, clock=clock, **short) as running:
        janitor = running.service.tasks["janitor"].__self__
        kids: list[set[str]] = []
        signed_by: list[str] = []
        before = ""
        for _ in range(11 * 8):
            clock.forward(3 * 3_600)
            now = int(clock().timestamp())
            await janitor.round()
            token = issuer.token(iat=now, exp=now + 900, jti=str(now))
            [answer] = await running.grant(token, item_for(SUBMIT, CLIMATE))
            await running.grants.verify_command(message_for(SUBMIT, answer["grant"]))
            if before:
                with pytest.raises(GrantExpired):
                    await running.grants.verify_command(message_for(SUBMIT, before))
            before = answer["grant"]
            kids.append({entry["kid"] for entry in (await running.http.get("/.well-known/jwks.json")).json()["keys"]})
            signed_by.append(jws.extract_compact(before.encode()).headers()["kid"])
    assert {len(published) for published in kids} == {1, 2}
    assert len(set(signed_by)) == 2, "the key has changed"
    for kid, published in zip(signed_by, kids, strict=True):
        assert kid in published
    first_use = signed_by.index(signed_by[-1])
    assert all(signed_by[-1] in published for published in kids[first_use - 7 : first_use]), (
        "a day before its first use"
    )


# -- the receiver's keys ------------------------------------------------------------------------------------------


def forged(key: OKPKey, algorithm: str = "Ed25519", **changed: Any) -> str:
    """A grant by somebody who knows everything but auth's key."""
    body = message_for(SUBMIT, "").body
    now = NOON.timestamp()
    claims = {
        "iss": "serai-auth", "aud": "serai", "sub_id": {"format": "iss_sub", "iss": URL, "sub": "alice"}, "jti": "1",
        "iat": now, "exp": now + 900, "verb": "job.submit", "vo": CLIMATE, "own": True,
        "message_type": "eu.serai.job.submit.v1", "content_type": "application/json",
        "body_sha256": hashlib.sha256(body).hexdigest(),
    } | changed  # fmt: skip
    return signed(
        key, {name: value for name, value in claims.items() if value is not ...}, algorithm, typ="serai-grant+jwt"
    )


def an_okp(kid: str = "k") -> OKPKey:
    return OKPKey.import_key({**OKPKey.generate_key("Ed25519").as_dict(private=True), "kid": kid})


class Source:
    """Where a verifier gets its keys; counts, and can be away."""

    def __init__(self, *keys: OKPKey) -> None:
        self.keys, self.away, self.fetches = list(keys), False, 0

    async def __call__(self) -> dict[str, Any]:
        self.fetches += 1
        if self.away:
            raise Unavailable("auth is away")
        return {"keys": [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]}


@pytest.mark.parametrize("changed", [
    {"iss": "auth"}, {"aud": "others"}, {"aud": ["serai"]}, {"sub_id": None}, {"sub_id": {"format": "email"}},
    {"jti": ...}, {"exp": ...}, {"exp": "never"}, {"exp": True}, {"exp": 1e300}, {"iat": NOON.timestamp() + 61},
    {"verb": 1}, {"vo": ...},
    {"vo": 1}, {"verb": "job.cancel"}, {"own": ...}, {"body_sha256": None},
    {"body_sha256": []}, {"body_sha256": [None]}, {"body_sha256": {}}, {"message_type": "eu.serai.job.cancel.v1"},
])  # fmt: skip
async def test_even_auths_own_key_does_not_sign_nonsense(changed: dict[str, Any]) -> None:
    key = an_okp()
    verifier = GrantVerifier(Source(key), TestClock())
    await verifier.verify_command(message_for(SUBMIT, forged(key)))
    with pytest.raises(GrantInvalid):
        await verifier.verify_command(message_for(SUBMIT, forged(key, **changed)))


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_other_keys_and_algorithms() -> None:
    key = an_okp()
    verifier = GrantVerifier(Source(key), TestClock())
    for grant in (forged(an_okp()), forged(key, "EdDSA"), forged(an_okp(), kid=None)):
        with pytest.raises(GrantInvalid):
            await verifier.verify_command(message_for(SUBMIT, grant))


async def test_an_unknown_key_is_neither_yes_nor_no_until_auth_has_been_asked_again() -> None:
    old, new = an_okp("old"), an_okp("new")
    source, clock = Source(old), TestClock()
    verifier = GrantVerifier(source, clock, times=KeyTimes(cool_down_s=5))
    await verifier.verify_command(message_for(SUBMIT, forged(old)))
    source.keys = [old, new]
    with pytest.raises(Unavailable):
        await verifier.verify_command(message_for(SUBMIT, forged(new)))
    clock.forward(5)
    await verifier.verify_command(message_for(SUBMIT, forged(new)))
    clock.forward(5)
    with pytest.raises(GrantInvalid):
        await verifier.verify_command(message_for(SUBMIT, forged(an_okp("nobody's"))))
    assert source.fetches == 3


async def test_while_auth_is_away_known_keys_serve_and_no_key_means_wait() -> None:
    key, clock = an_okp(), TestClock()
    source = Source(key)
    source.away = True
    verifier = GrantVerifier(source, clock)
    with pytest.raises(Unavailable, match="auth is away"):
        await verifier.verify_command(message_for(SUBMIT, forged(key)))
    with pytest.raises(Unavailable):
        await verifier.ready()
    source.away = False
    clock.forward(1)
    await verifier.ready()
    source.away = True
    clock.forward(700)
    await verifier.verify_command(message_for(SUBMIT, forged(key)))


async def test_many_messages_at_once_cost_one_fetch() -> None:
    key = an_okp()
    source = Source(key)
    verifier = GrantVerifier(source, TestClock())
    await asyncio.gather(*(verifier.verify_command(message_for(SUBMIT, forged(key))) for _ in range(20)))
    assert source.fetches == 1


async def test_a_message_that_is_no_command_is_refused() -> None:
    key = an_okp()
    body = b'{"not":"a command"}'
    grant = forged(key, body_sha256=hashlib.sha256(body).hexdigest())
    message = replace(message_for(SUBMIT, grant), body=body)
    with pytest.raises(Refused) as refusal:
        await GrantVerifier(Source(key), TestClock()).verify_command(message)
    assert refusal.value.code == "undecodable"
