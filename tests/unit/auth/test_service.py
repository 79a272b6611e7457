"""The service as others meet it: contexts, dispatch decisions, keys, the closed door, restarts."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select

from services.auth import store
from services.auth.demo_users import BIO, CLIMATE
from services.auth.settings import AuthSettings, Issuer
from shared.contracts.commands import Principal
from shared.contracts.questions import Context, Decision, DecisionRequest
from shared.errors import Misconfigured
from shared.runtime.migrating import differences
from tests.builders import TestClock, a_job
from tests.unit.auth.world import URL, Auth, FakeIssuer, auth, entitlement, item_for, message_for, trusted

pytestmark = pytest.mark.fast

ALICE = Principal(issuer=URL, subject="alice")


def rows_of(connection: Connection, table: Table) -> list[Any]:
    return list(connection.execute(select(table)))


async def may(
    running: Auth, vo: str = CLIMATE, site: str | None = None, who: Principal = ALICE, verb: str = "job.submit"
) -> Decision:
    body = DecisionRequest(principal=who, vo=vo, verb=verb, site=site)
    return await running.questions.ask("POST", "/internal/decisions", Decision, body=body)


async def test_a_context_tells_who_and_what(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    token = issuer.token(entitlements=[entitlement(CLIMATE, "manager"), entitlement(BIO)])
    async with auth(tmp_path, issuer) as running:
        answer = await running.context(token)
        context = Context.model_validate_json(answer.content)
    assert context.principal == Principal(issuer=URL, subject="alice", name="Alice")
    assert [(each.vo, each.role) for each in context.memberships] == [(BIO, "member"), (CLIMATE, "manager")]
    assert context.may("job.logs_vo", CLIMATE)
    assert not context.may("job.logs_vo", BIO)
    assert context.platform_verbs == frozenset()
    assert context.expires_at == running.clock() + timedelta(seconds=900)


async def test_only_services_may_ask(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        for headers in (
            {"Authorization": "Bearer wrong"},
            {"Authorization": ""},
            {"Authorization": "between services"},
        ):
            for path in ("/internal/context", "/internal/grants", "/internal/decisions"):
                answer = await running.http.post(path, json={}, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        keys = await running.http.get("/.well-known/jwks.json", headers={"Authorization": ""})
        assert keys.status_code == 200
        assert all("d" not in key for key in keys.json()["keys"])


async def test_a_refusal_repeats_nothing_of_the_token(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        for token in (
            issuer.token(aud="secret-audience"),
            issuer.token(iss="https://secret.example"),
            "secret.secret.x",
        ):
            answer = await running.context(token)
            assert answer.status_code == 401
            assert "secret" not in answer.text
            assert answer.headers["www-authenticate"].startswith("Bearer")


# -- dispatch -----------------------------------------------------------------------------------------------------


async def test_a_membership_that_was_seen_decides_at_dispatch_until_it_is_too_old(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, membership_life_s=3_600) as running:
        assert (await may(running)).code == "unknown_principal"
        await running.grant(issuer.token(), item_for(a_job(), CLIMATE))
        assert (await may(running)).allowed
        assert (await may(running, vo=BIO)).code == "not_in_vo"
        assert (await may(running, who=ALICE.model_copy(update={"issuer": "https://other.example"}))).code
        running.clock.forward(3_600)
        assert (await may(running)).allowed
        running.clock.forward(1)
        assert (await may(running)).code == "not_in_vo"


async def test_what_an_issuer_said_counts_for_less_where_its_entry_says_so_and_never_for_more(tmp_path: Path) -> None:
    short, long = FakeIssuer(), FakeIssuer("https://other.example")
    trust = (trusted(membership_life_s=600), trusted(long.url, membership_life_s=86_400))
    theirs = ALICE.model_copy(update={"issuer": long.url})
    async with auth(tmp_path, short, long, trust=trust, membership_life_s=3_600) as running:
        await running.context(short.token())
        await running.context(long.token())
        running.clock.forward(600)
        assert (await may(running)).allowed
        running.clock.forward(1)
        assert (await may(running)).code == "not_in_vo"
        assert (await may(running, who=theirs)).allowed
        running.clock.forward(3_000)
        assert (await may(running, who=theirs)).code == "not_in_vo"


async def test_a_weaker_role_in_a_newer_token_counts_at_once(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await running.context(issuer.token())
        assert (await may(running)).allowed
        await running.context(issuer.token(entitlements=[entitlement(CLIMATE, "observer")], jti="t2"))
        decision = await may(running)
        assert decision.code == "role_insufficient"
        assert "as observer" in decision.message


async def test_a_token_that_leaves_a_vo_out_does_not_end_the_jobs_there(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await running.context(issuer.token())
        await running.context(issuer.token(entitlements=[entitlement(BIO)], jti="narrow"))
        assert (await may(running)).allowed
        assert (await may(running, vo=BIO)).allowed


async def test_a_site_that_names_its_vos_takes_no_other(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, site_vos={"prague": (BIO,)}) as running:
        await running.context(issuer.token())
        assert (await may(running, site="prague")).code == "vo_not_at_site"
        assert (await may(running, site="madrid")).allowed


async def test_a_site_command_whose_grant_expired_is_decided_by_platform_roles(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await running.context(issuer.token(entitlements=[entitlement("serai-platform", "site-operator")]))
        assert (await may(running, vo="", verb="site.cordon")).allowed
        await running.context(issuer.token(jti="t2"))
        assert (await may(running, vo="", verb="site.cordon")).code == "platform_role_needed"


async def test_what_was_seen_survives_a_restart_and_grants_too(tmp_path: Path) -> None:
    issuer, clock, job = FakeIssuer(), TestClock(), a_job(owner=ALICE)
    async with auth(tmp_path, issuer, clock=clock) as running:
        [answer] = await running.grant(issuer.token(), item_for(job, CLIMATE))
    async with auth(tmp_path, issuer, clock=clock) as again:
        assert (await may(again)).allowed
        await again.grants.verify_command(message_for(job, answer["grant"]))


async def test_every_question_for_grants_is_written_down(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        job = a_job(owner=ALICE)
        answers = await running.grant(
            issuer.token(), item_for(job, CLIMATE), item_for(job, CLIMATE), item_for(job, BIO)
        )
        rows = await running.store.read(partial(rows_of, table=store.audit))
    assert [(row.verb, row.vo, row.allowed, row.code, row.items) for row in rows] == [
        ("job.submit", CLIMATE, True, "", 2), ("job.submit", BIO, False, "not_in_vo", 1),
    ]  # fmt: skip
    assert len({row.question for row in rows}) == 1
    assert answers[2]["grant"] is None


async def test_the_janitor_drops_what_is_too_old(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await running.grant(issuer.token(), item_for(a_job(), CLIMATE))
        running.clock.forward(400 * 86_400)
        now = running.clock()
        await running.store.transact(
            lambda connection: store.prune(connection, audit_before=now - timedelta(days=365), seen_before=now)
        )
        for table in (store.audit, store.memberships, store.principals):
            assert await running.store.read(partial(rows_of, table=table)) == []


async def test_the_database_is_what_its_tables_say(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        assert await running.store.read_long(lambda connection: differences(connection, store.metadata)) == []


async def test_health_names_the_culprit(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer(status=500)) as running:
        answer = await running.http.get("/readyz")
        assert answer.status_code == 503
        assert f"{URL}/jwks answered 500" in answer.json()["checks"]["issuers"]
        assert (await running.http.get("/healthz")).status_code == 200


async def test_many_at_once_get_their_own_answers(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        subjects = [f"user-{number}" for number in range(50)]
        answers = await asyncio.gather(*(running.context(issuer.token(sub=subject)) for subject in subjects))
    assert [answer.json()["principal"]["subject"] for answer in answers] == subjects
    assert issuer.fetches == 1


# -- what is refused at the start ---------------------------------------------------------------------------------


async def test_a_development_issuer_needs_dev_mode(tmp_path: Path) -> None:
    marked = trusted(development=True)
    loopback = trusted("https://127.0.0.1")
    for entry in (marked, loopback):
        with pytest.raises(Misconfigured, match="development issuer"):
            async with auth(tmp_path, FakeIssuer(), trust=(entry,)):
                pytest.fail("it started")
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, trust=(marked,), dev_mode=True) as running:
        assert await running.code(issuer.token()) == ""


async def test_an_issuer_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="twice"):
        async with auth(tmp_path, FakeIssuer(), trust=(trusted(), trusted())):
            pytest.fail("it started")


@pytest.mark.parametrize("url", [
    "http://issuer.example", "ftp://issuer.example", "issuer.example", "https://", "https://a:b@issuer.example",
    "https://issuer.example/#x",
])  # fmt: skip
def test_addresses_of_issuers_are_plain_https(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        trusted(url)
    with pytest.raises(ValueError, match="https"):
        trusted(jwks_uri=url)


def test_plain_http_is_for_development_issuers_on_loopback() -> None:
    assert trusted("http://127.0.0.1:8081", development=True).needs_dev_mode
    with pytest.raises(ValueError, match="loopback"):
        trusted("http://issuer.example", development=True)
    with pytest.raises(ValueError, match="loopback"):
        trusted("http://127.0.0.1:8081")


def test_shared_secrets_are_no_algorithms() -> None:
    for algorithm in ("HS256", "none", "RS1"):
        with pytest.raises(ValueError, match="algorithms"):
            trusted(algorithms=(algorithm,))


def test_issuers_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_AUTH_SERVICE_TOKEN", "hush-hush")
    monkeypatch.setenv("SERAI_AUTH_ISSUERS", f"[{trusted().model_dump_json()}]")
    settings = AuthSettings()
    assert settings.issuers == (Issuer.model_validate(trusted()),)
    assert "hush-hush" not in repr(settings)
