"""A suspension holds everywhere within five seconds: at every copy of auth, gateway, scheduler and monitor."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import looptime
import pytest
from sqlalchemy import Connection, delete, update
from structlog.testing import capture_logs

from services.auth import tables, wiring
from services.auth.demo_users import BIO, CLIMATE
from services.auth.settings import AuthSettings
from services.gateway.access import Access, CacheTimes
from services.gateway.pacing import Limits, Pace
from services.scheduler.authorising import Authorising
from services.scheduler.rounds import Question
from shared.contracts.commands import CancelJob, Principal
from shared.contracts.questions import Bearer, RememberedAnswer, RememberedRequest
from shared.contracts.suspensions import Suspended, Suspension
from shared.errors import Refused
from shared.runtime.questions import Questions
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantInvalid, GrantSuspended, GrantVerifier, keys_of
from shared.runtime.trust_watch import TrustWatch
from tests.builders import NOON, TestClock, a_job, job_id
from tests.unit.auth.world import (
    SERVICE_TOKEN,
    URL,
    Auth,
    FakeIssuer,
    auth,
    entitlement,
    item_for,
    message_for,
    trusted,
)

pytestmark = pytest.mark.fast
ALICE = Principal(issuer=URL, subject="alice", name="Alice")
SOON = 5.0
JOB = a_job(owner=ALICE)
CANCEL = CancelJob(job_id=job_id(1), vo=CLIMATE, requested_by=ALICE, requested_at=NOON)
KINDS: dict[str, dict[str, str]] = {
    "subject": {"issuer": URL, "value": "alice"}, "client": {"issuer": URL, "value": "serai-cli"},
    "token": {"issuer": URL, "value": "t1"},
}  # fmt: skip
OUT_OF_CLIMATE = {"issuer": URL, "value": "alice", "vo": CLIMATE}
TIMES = CacheTimes(fresh_s=50, stale_s=600, refused_s=5)


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer()


@pytest.fixture
async def running(tmp_path: Path, issuer: FakeIssuer) -> AsyncIterator[Auth]:
    async with auth(tmp_path, issuer) as made:
        yield made


async def suspend(running: Auth, issuer: FakeIssuer, kind: str, **fields: Any) -> httpx.Response:
    admin = issuer.token(
        sub="root", jti="admin", client_id="console", entitlements=[entitlement("serai-platform", "admin")]
    )
    usual = OUT_OF_CLIMATE if kind == "membership" else KINDS.get(kind, {})
    body = {"kind": kind, "reason": "stolen laptop", **usual, **fields}
    answer = await running.http.post("/v1/suspensions", json=body, headers={"Authorization": f"Bearer {admin}"})
    assert answer.status_code == 201, answer.text
    return answer


async def lift(running: Auth, issuer: FakeIssuer, made: httpx.Response) -> int:
    admin = issuer.token(
        sub="root", jti="admin", client_id="console", entitlements=[entitlement("serai-platform", "admin")]
    )
    path = f"/v1/suspensions/{made.json()['id']}"
    return (await running.http.delete(path, headers={"Authorization": f"Bearer {admin}"})).status_code


def dispatching(running: Auth, cache_s: float = 60) -> Authorising:
    """The scheduler's part in it."""
    trust = TrustWatch(running.questions, running.clock)
    return Authorising(running.questions, verifier(running), running.clock, trust, cache_s=cache_s, away_s=2)


def a_gateway(running: Auth, questions: Questions | None = None) -> Access:
    """The gateway's part in it, without limits of its own."""
    unlimited = Pace(Limits(None, None, None, None), running.clock)
    return Access(questions or running.questions, running.clock, TIMES, 100, unlimited)


# -- auth itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_suspended_subject_client_or_token_gets_nothing_from_auth(
    running: Auth, issuer: FakeIssuer, kind: str
) -> None:
    token = issuer.token()
    assert await running.code(token) == ""
    made = await suspend(running, issuer, kind)
    answer = await running.context(token)
    assert answer.json()["code"] == ("unauthenticated" if kind == "token" else "suspended")
    assert answer.status_code == (401 if kind == "token" else 403)
    if kind != "token":
        assert "stolen laptop" in answer.json()["detail"]
    [granted] = await running.grant(token, item_for(JOB, CLIMATE))
    assert (granted["grant"], granted["refusal_code"]) == (None, f"{kind}_suspended")
    assert await running.code(issuer.token(sub="bob", jti="t2", client_id="other")) == ""
    assert await lift(running, issuer, made) == 204
    assert await lift(running, issuer, made) == 404
    assert await running.code(token) == ""


async def test_c10_the_same_subject_of_another_issuer_is_somebody_else(tmp_path: Path, issuer: FakeIssuer) -> None:
    other = FakeIssuer("https://other.example")
    async with auth(tmp_path, issuer, other) as running:
        await suspend(running, issuer, "subject")
        assert await running.code(issuer.token()) == "suspended"
        assert await running.code(other.token()) == ""


async def test_a_suspended_vo_takes_nothing_new_but_lets_people_see_and_cancel(
    running: Auth, issuer: FakeIssuer
) -> None:
    token = issuer.token(entitlements=[entitlement(CLIMATE), entitlement(BIO)])
    await suspend(running, issuer, "vo", vo=CLIMATE)
    verbs = {each["vo"]: set(each["verbs"]) for each in (await running.context(token)).json()["memberships"]}
    assert "job.submit" not in verbs[CLIMATE]
    assert {"job.view_own", "job.cancel_own"} <= verbs[CLIMATE]
    assert "job.submit" in verbs[BIO]
    submit, cancel, elsewhere = await running.grant(
        token, item_for(JOB, CLIMATE), item_for(CANCEL, CLIMATE), item_for(a_job(owner=ALICE, vo=BIO), BIO)
    )
    assert submit["refusal_code"] == "vo_suspended"
    assert cancel["grant"] and elsewhere["grant"]


async def test_a_member_who_is_put_out_of_a_vo_is_out_of_that_vo_only(running: Auth, issuer: FakeIssuer) -> None:
    token = issuer.token(entitlements=[entitlement(CLIMATE), entitlement(BIO)])
    await suspend(running, issuer, "membership")
    assert [each["vo"] for each in (await running.context(token)).json()["memberships"]] == [BIO]
    [refused] = await running.grant(token, item_for(JOB, CLIMATE))
    assert refused["refusal_code"] == "membership_suspended"
    assert "your membership of the VO" in refused["refusal"]


async def test_a_suspension_ends_by_itself(running: Auth, issuer: FakeIssuer) -> None:
    await suspend(running, issuer, "subject", for_s=60)
    running.clock.forward(59.9)
    assert await running.code(issuer.token()) == "suspended"
    running.clock.forward(0.1)
    assert await running.code(issuer.token()) == ""


async def test_the_other_copies_of_auth_know_within_a_second(running: Auth, issuer: FakeIssuer) -> None:
    settings = AuthSettings(service_token=SERVICE_TOKEN, issuers=(trusted(),))
    transport = httpx.MockTransport(issuer.answer)
    copy = await wiring.assemble(
        settings,
        store=running.store,
        clock=running.clock,
        tracer=Tracer("auth", None, running.clock),
        transport=transport,
    )
    headers = {"Authorization": f"Bearer {SERVICE_TOKEN}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=copy.app), base_url="http://auth", headers=headers
    ) as http:
        body = {"token": issuer.token()}
        assert (await http.post("/internal/context", json=body)).status_code == 200
        await suspend(running, issuer, "subject")
        running.clock.forward(1)
        assert (await http.post("/internal/context", json=body)).status_code == 403


NOT_SUSPENSIONS: list[dict[str, Any]] = [
    {"kind": "subject", "value": "alice"}, {"kind": "subject", "issuer": URL}, {"kind": "vo", "issuer": URL},
    {"kind": "vo", "vo": CLIMATE, "value": "x"}, {"kind": "everybody"}, {"kind": "vo", "vo": CLIMATE, "reason": ""},
    {"kind": "vo", "vo": CLIMATE, "until": "2020-01-01T00:00:00Z"}, {"kind": "vo", "vo": CLIMATE, "for_s": -1},
    {"kind": "vo", "vo": CLIMATE, "for_s": 60, "until": "2030-01-01T00:00:00Z"}, {"kind": "vo", "vo": "a b"},
    {"kind": "vo", "vo": CLIMATE, "until": "2030-01-01T00:00:00"}, {"kind": "vo", "vo": CLIMATE, "more": 1},
    {"kind": "subject", "issuer": URL, "value": "a\nb"}, {"kind": "subject", "issuer": URL, "value": "root"},
    {"kind": "vo", "vo": CLIMATE, "reason": "a\x00bc"}, {"kind": "vo", "vo": CLIMATE, "reason": "abc\nd"},
]  # fmt: skip


async def test_a_suspension_that_would_not_hold_or_lock_out_its_maker_is_refused(
    running: Auth, issuer: FakeIssuer
) -> None:
    admin = issuer.token(sub="root", entitlements=[entitlement("serai-platform", "admin")])
    for body in NOT_SUSPENSIONS:
        answer = await running.http.post(
            "/v1/suspensions", json={"reason": "testing", **body}, headers={"Authorization": f"Bearer {admin}"}
        )
        assert answer.status_code == 422, body
        assert (await running.http.get("/internal/trust")).json()["suspensions"] == [], body


# -- the gateway --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_gateway_forgets_a_context_within_five_seconds(running: Auth, issuer: FakeIssuer, kind: str) -> None:
    access, token = a_gateway(running), issuer.token()
    await access.verify(token)
    assert access.fresh(token) is not None
    await suspend(running, issuer, kind)
    running.clock.forward(SOON)
    assert access.fresh(token) is None, "the quick path asks again"
    with pytest.raises(Refused) as refusal:
        await access.verify(token)
    assert refusal.value.code == ("unauthenticated" if kind == "token" else "suspended")


async def test_c12_the_gateway_sees_a_membership_end_within_five_seconds(running: Auth, issuer: FakeIssuer) -> None:
    access, token = a_gateway(running), issuer.token()
    assert (await access.verify(token)).sight.own_vos == {CLIMATE}
    await suspend(running, issuer, "membership")
    running.clock.forward(SOON)
    assert (await access.verify(token)).sight.own_vos == frozenset()


async def test_a_gateway_gives_back_what_a_suspension_took_as_soon_as_that_ends_by_itself(
    running: Auth, issuer: FakeIssuer
) -> None:
    """Its context is good for 50 s, and nobody tells of the end."""
    access, token = a_gateway(running), issuer.token()
    await suspend(running, issuer, "membership", for_s=10)
    assert (await access.verify(token)).sight.own_vos == frozenset()
    running.clock.forward(9.9)
    assert (await access.verify(token)).sight.own_vos == frozenset()
    running.clock.forward(0.1)
    assert access.fresh(token) is None, "the quick path asks again"
    assert (await access.verify(token)).sight.own_vos == {CLIMATE}


async def test_a_gateway_asks_for_trust_every_two_seconds_at_most(running: Auth, issuer: FakeIssuer) -> None:
    asked: list[str] = []

    class Counting(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            return await super().handle_async_request(request)

    questions = Questions("http://auth", "auth", SERVICE_TOKEN, transport=Counting(app=running.service.app))
    access, token = a_gateway(running, questions), issuer.token()
    for _ in range(100):
        await access.verify(token)
        running.clock.forward(0.1)
    assert asked.count("/internal/trust") == 5
    assert asked.count("/internal/context") == 1
    await questions.close()


async def test_who_reads_all_the_time_is_never_held_up_by_a_look_at_what_is_suspended(
    running: Auth, issuer: FakeIssuer
) -> None:
    access, token = a_gateway(running), issuer.token()
    await access.verify(token)
    for _ in range(100):
        running.clock.forward(0.1)
        assert access.fresh(token) is not None
        if asking := [task for task in asyncio.all_tasks() if task.get_name() == "trust"]:
            await asyncio.wait(asking, timeout=5)
    await suspend(running, issuer, "subject")
    running.clock.forward(SOON)
    assert access.fresh(token) is None


# -- grants: scheduler and monitor --------------------------------------------------------------------------------


def verifier(running: Auth) -> GrantVerifier:
    return GrantVerifier(keys_of(running.questions), running.clock, trust=TrustWatch(running.questions, running.clock))


@pytest.mark.parametrize("kind", KINDS)
async def test_grants_of_the_suspended_are_good_no_more_within_five_seconds(
    running: Auth, issuer: FakeIssuer, kind: str
) -> None:
    grants, token = verifier(running), issuer.token()
    [answer] = await running.grant(token, item_for(JOB, CLIMATE))
    read_grant = (await running.context(token)).json()["read_grant"]
    message = message_for(JOB, answer["grant"])
    await grants.verify_command(message)
    await grants.verify_read(read_grant)
    await suspend(running, issuer, kind)
    running.clock.forward(SOON)
    with pytest.raises(GrantSuspended):
        await grants.verify_command(message)
    with pytest.raises(GrantInvalid, match="suspended"):
        await grants.verify_read(read_grant)


async def test_a_command_of_the_suspended_is_decided_afresh_and_refused_with_words(
    running: Auth, issuer: FakeIssuer
) -> None:
    scheduler = dispatching(running, cache_s=60)
    [answer] = await running.grant(issuer.token(), item_for(JOB, CLIMATE))
    await suspend(running, issuer, "subject")
    await scheduler.command(message_for(JOB, answer["grant"]))
    assert "your access is suspended" in (scheduler.denial("m1") or "")


async def test_while_auth_is_away_the_last_word_stands(running: Auth, issuer: FakeIssuer) -> None:
    away = Questions(
        "http://auth", "auth", SERVICE_TOKEN, transport=httpx.MockTransport(lambda request: httpx.Response(503))
    )
    watch = TrustWatch(away, running.clock)
    assert (await watch.current()).access(ALICE, "", "", running.clock()) is None
    assert watch.version == (0, 0)
    await away.close()


async def test_b2_an_auth_that_has_forgotten_suspensions_is_followed_and_everybody_is_told(
    running: Auth, issuer: FakeIssuer
) -> None:
    """Its database was restored from an older backup: an operator must make them again."""
    watch = TrustWatch(running.questions, running.clock)
    await suspend(running, issuer, "subject")
    assert (await watch.current()).access(ALICE, "", "", running.clock()) is not None

    def forget(connection: Connection) -> None:
        connection.execute(delete(tables.suspensions))
        connection.execute(update(tables.trust).values(version=0))

    await running.store.transact(forget)
    running.clock.forward(SOON)
    with capture_logs() as told:
        assert (await watch.current()).access(ALICE, "", "", running.clock()) is None
    assert [(line["event"], line["log_level"]) for line in told] == [("trust_went_back", "critical")]


def test_an_auth_that_hangs_holds_all_up_once_and_one_that_is_away_nobody() -> None:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as simulated:
        simulated.run(an_auth_that_hangs())


async def an_auth_that_hangs() -> None:
    clock = TestClock()
    answering = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        await answering.wait()
        return httpx.Response(503)

    questions = Questions("http://auth", "auth", SERVICE_TOKEN, transport=httpx.MockTransport(hang))
    watch = TrustWatch(questions, clock, patience_s=0.5)
    begun = asyncio.get_running_loop().time()
    for _ in range(100):
        await watch.current()
    assert asyncio.get_running_loop().time() - begun == 0.5, "a hundred waited together, not one after another"
    answering.set()
    while not watch.fresh:
        await asyncio.sleep(0)
    answering.clear()
    clock.forward(2)
    begun = asyncio.get_running_loop().time()
    await watch.current()
    assert asyncio.get_running_loop().time() - begun == 0, "it is known to be away"
    answering.set()
    await questions.close()


# -- dispatch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fields", "word"), [
    ("subject", {}, "your access is suspended"), ("vo", {"vo": CLIMATE}, f"the VO {CLIMATE} is suspended"),
    ("membership", {}, "your membership"),
])  # fmt: skip
async def test_c12_a_queued_job_of_the_suspended_is_refused_at_dispatch_within_five_seconds(
    running: Auth, issuer: FakeIssuer, kind: str, fields: dict[str, str], word: str
) -> None:
    scheduler = dispatching(running, cache_s=60)
    question = Question(ALICE, CLIMATE, "prague")
    await running.context(issuer.token())
    await scheduler.refreshed()
    assert (await scheduler.ask([question]))[question].allowed
    assert question in scheduler.answers()
    await suspend(running, issuer, kind, **fields)
    running.clock.forward(SOON)
    await scheduler.refreshed()
    assert scheduler.answers() == {}, "what was remembered is asked again"
    answer = (await scheduler.ask([question]))[question]
    assert (answer.allowed, answer.everywhere) == (False, True)
    assert word in answer.message


async def test_a_suspension_that_ends_by_itself_is_over_at_dispatch_at_that_moment(
    running: Auth, issuer: FakeIssuer
) -> None:
    scheduler = dispatching(running, cache_s=60)
    question = Question(ALICE, CLIMATE, "prague")
    await running.context(issuer.token())
    await suspend(running, issuer, "vo", vo=CLIMATE, for_s=30)
    await scheduler.refreshed()
    assert not (await scheduler.ask([question]))[question].allowed
    running.clock.forward(30)
    await scheduler.refreshed()
    assert question not in scheduler.answers()
    assert (await scheduler.ask([question]))[question].allowed


# -- who is not here ----------------------------------------------------------------------------------------------


async def test_c12_what_somebody_who_is_not_here_may_see_follows_their_whole_history(
    tmp_path: Path, issuer: FakeIssuer
) -> None:
    """Unknown, seen, suspended for a while, back, put out of a VO, taken in again, token revoked, long unseen."""
    async with auth(tmp_path, issuer, membership_life_s=3_600) as running:
        here = Bearer(principal=ALICE, client="serai-cli", token_id="t1")

        async def sees() -> set[str] | str:
            body = RememberedRequest(bearers=(here,))
            answer = await running.questions.ask("POST", "/internal/remembered", RememberedAnswer, body=body)
            [told] = answer.answers
            return told.refusal or {each.vo for each in told.memberships if "job.view_own" in each.verbs}

        assert "sign in again" in str(await sees())
        await running.context(issuer.token(entitlements=[entitlement(CLIMATE), entitlement(BIO)]))
        assert await sees() == {CLIMATE, BIO}
        await suspend(running, issuer, "subject", for_s=60)
        assert "stolen laptop" in str(await sees())
        running.clock.forward(60)
        assert await sees() == {CLIMATE, BIO}
        out = await suspend(running, issuer, "membership")
        assert await sees() == {BIO}
        await lift(running, issuer, out)
        assert await sees() == {CLIMATE, BIO}
        revoked = await suspend(running, issuer, "token")
        assert "revoked" in str(await sees())
        await lift(running, issuer, revoked)
        running.clock.forward(600)
        await running.context(issuer.token(jti="t2", entitlements=[entitlement(BIO)]))
        running.clock.forward(3_000)
        assert await sees() == {BIO}, "the narrower token did not make the other membership younger"
        running.clock.forward(601)
        assert await sees() == set(), "not seen for longer than auth's word counts"


async def test_c12_a_vo_that_an_issuer_leaves_out_who_says_everything_has_ended(
    tmp_path: Path, issuer: FakeIssuer
) -> None:
    async with auth(tmp_path, issuer, trust=(trusted(whole=True),)) as running:
        scheduler = dispatching(running, cache_s=0)
        question = Question(ALICE, CLIMATE, "prague")
        await running.context(issuer.token())
        assert (await scheduler.ask([question]))[question].allowed
        await running.context(issuer.token(jti="t2", entitlements=[entitlement(BIO)]))
        assert not (await scheduler.ask([question]))[question].allowed


async def test_a_policy_that_changes_is_seen_at_dispatch_within_five_seconds(running: Auth, issuer: FakeIssuer) -> None:
    scheduler = dispatching(running, cache_s=60)
    question = Question(ALICE, CLIMATE, "prague")
    await running.context(issuer.token())
    await scheduler.refreshed()
    assert (await scheduler.ask([question]))[question].policy is None
    manager = issuer.token(sub="manager", entitlements=[entitlement(CLIMATE, "manager")])
    headers = {"Authorization": f"Bearer {manager}", "If-None-Match": "*"}
    written = await running.http.put(f"/v1/vos/{CLIMATE}/policy", json={"max_runtime_s": 60}, headers=headers)
    assert written.status_code == 200
    running.clock.forward(SOON)
    await scheduler.refreshed()
    assert scheduler.answers() == {}
    answer = (await scheduler.ask([question]))[question]
    assert answer.allowed
    assert answer.policy is not None and answer.policy.max_runtime_s == 60
    assert answer.policy_anywhere == answer.policy


# -- the index ----------------------------------------------------------------------------------------------------


def test_what_is_alike_is_not_the_same() -> None:
    until = NOON + timedelta(seconds=60)
    index = Suspended([
        Suspension(id="1", kind="subject", issuer=URL, value="alice", until=until),
        Suspension(id="2", kind="client", issuer=URL, value="alice"), Suspension(id="3", kind="vo", vo=CLIMATE),
    ])  # fmt: skip
    assert index.access(ALICE, "", "", NOON) is not None
    assert index.access(ALICE, "", "", until) is None
    for name in ("alic", "alice ", "Alice", ""):
        assert index.access(ALICE.model_copy(update={"subject": name}), "", "", NOON) is None
    assert index.access(ALICE.model_copy(update={"issuer": f"{URL}/"}), "", "", NOON) is None
    assert index.access(ALICE.model_copy(update={"subject": "bob"}), "alice", "", NOON) is not None
    assert index.vo(CLIMATE, NOON) and not index.vo(f"{CLIMATE}.evil", NOON)
    assert index.membership(ALICE, CLIMATE, NOON) is None
