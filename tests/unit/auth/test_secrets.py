"""Users' secrets at auth: set, listed and deleted by their owner, released to attempts, sealed, never told."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import Connection, select, update

from services.auth import audit, audit_store, secret_rules, secret_store
from services.auth.audit import End
from services.auth.demo_users import BIO, CLIMATE
from services.auth.secret_box import Sealed, SecretBox, Whose
from services.auth.tables import metadata, secrets
from shared.contracts.policies import demand_of
from shared.errors import Misconfigured
from tests.builders import ALICE, BOB, a_job
from tests.unit.auth.world import URL, Auth, FakeIssuer, auth, entitlement, item_for

pytestmark = pytest.mark.fast
CANARY = "canary-5b2e8d"
DAY = 86_400
NAMED = [{"name": "key", "file": "key"}]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def put(running: Auth, token: str, name: str = "key", value: str = CANARY, vo: str = CLIMATE) -> httpx.Response:
    body = {"token": token, "vo": vo, "name": name, "value": encoded(value)}
    return await running.http.put("/internal/secrets", json=body)


async def listed(running: Auth, token: str, vo: str | None = None) -> list[str]:
    answer = await running.http.post("/internal/secrets:list", json={"token": token, "vo": vo})
    assert answer.status_code == 200, answer.text
    return [f"{each['vo']}/{each['name']}" for each in answer.json()["secrets"]]


async def release(running: Auth, *names: str, subject: str = "alice", vo: str = CLIMATE, **more: Any) -> dict[str, Any]:
    principal = {"issuer": URL, "subject": subject}
    body = {"principal": principal, "vo": vo, "site": "prague", "attempt": "j-001", "names": names} | more
    answer = await running.http.post("/internal/secrets:release", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_secret_is_set_listed_released_and_deleted(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token()
        told = (await put(running, token)).json()
        assert sorted(told) == ["created_at", "name", "updated_at", "used_at", "vo"]
        assert await listed(running, token) == [f"{CLIMATE}/key"]
        assert (await release(running, "key"))["values"] == {"key": encoded(CANARY)}
        running.clock.forward(60)
        again = (await put(running, token, value="newer")).json()
        assert (again["created_at"], again["updated_at"] > told["updated_at"]) == (told["created_at"], True)
        assert (await release(running, "key"))["values"] == {"key": encoded("newer")}
        gone = {"token": token, "vo": CLIMATE, "name": "key"}
        assert (await running.http.post("/internal/secrets:delete", json=gone)).status_code == 200
        assert (await running.http.post("/internal/secrets:delete", json=gone)).status_code == 404
        assert (await listed(running, token), (await release(running, "key"))["code"]) == ([], "secret_missing")


async def test_secrets_are_each_owners_and_each_vos(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        both = [entitlement(CLIMATE, "manager"), entitlement(BIO)]
        alice, bob = issuer.token(entitlements=both), issuer.token(sub="bob", entitlements=both)
        await put(running, alice)
        assert await listed(running, bob) == []
        assert await listed(running, alice, BIO) == []
        assert (await release(running, "key", subject="bob"))["code"] == "secret_missing"
        assert (await release(running, "key", vo=BIO))["code"] == "secret_missing"
        gone = {"token": bob, "vo": CLIMATE, "name": "key"}
        assert (await running.http.post("/internal/secrets:delete", json=gone)).status_code == 404
        await put(running, bob, value="bob's own")
        assert (await release(running, "key"))["values"] == {"key": encoded(CANARY)}


@pytest.mark.parametrize(("entitlements", "vo", "status"), [
    ([entitlement(CLIMATE, "observer")], CLIMATE, 403), ([entitlement(CLIMATE)], BIO, 403), ([], CLIMATE, 403),
    ([entitlement("serai-platform", "admin")], CLIMATE, 403), ([entitlement(CLIMATE)], CLIMATE, 200),
])  # fmt: skip
async def test_who_may_hand_in_jobs_may_have_secrets(
    tmp_path: Path, entitlements: list[str], vo: str, status: int
) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        assert (await put(running, issuer.token(entitlements=entitlements), vo=vo)).status_code == status


NOT_SECRETS = [
    ("", "x", "invalid_request"), ("-a", "x", "invalid_request"), ("a/b", "x", "invalid_request"),
    ("a" * 65, "x", "invalid_request"), ("a\n", "x", "invalid_request"), ("a", "", "invalid_request"),
    ("a", "x" * 32_769, "secrets_too_large"),
]  # fmt: skip


async def test_what_cannot_be_a_secret_is_refused_without_repeating_it(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        for name, value, code in NOT_SECRETS:
            answer = await put(running, issuer.token(), name, value)
            assert (answer.status_code, answer.json()["code"]) == (422, code), name
            assert await listed(running, issuer.token()) == [], name


async def test_the_largest_secret_and_the_most_secrets(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, most_secrets=2) as running:
        token = issuer.token()
        assert (await put(running, token, "a", "x" * 32_768)).status_code == 200
        assert (await put(running, token, "b")).status_code == 200
        full = await put(running, token, "c")
        assert (full.status_code, full.json()["code"]) == (422, "too_many_secrets")
        assert (await put(running, token, "b", "set anew")).status_code == 200


# -- jobs that name them ------------------------------------------------------------------------------------------


async def grant(running: Auth, token: str, *names: str) -> dict[str, Any]:
    job = a_job(owner=ALICE, vo=CLIMATE, secrets=[{"name": name, "file": name} for name in names])
    (answer,) = await running.grant(token, item_for(job, CLIMATE, demand=demand_of(job.spec)))
    return answer


async def test_a_job_that_names_a_secret_that_is_not_there_gets_no_grant(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token()
        await put(running, token)
        assert (await grant(running, token, "key"))["grant"]
        refused = await grant(running, token, "key", "other")
        assert (refused["grant"], refused["refusal_code"]) == (None, "secret_missing")
        assert "'other'" in refused["refusal"] and "serai secrets set other --vo" in refused["refusal"]
        other = issuer.token(sub="bob")
        assert (await grant(running, other, "key"))["refusal_code"] == "secret_missing"


async def test_a_job_whose_secrets_are_more_than_a_variable_holds_gets_no_grant(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token()
        await put(running, token, "a", "x" * 32_768)
        await put(running, token, "b", "x" * 32_768)
        assert (await grant(running, token, "a"))["grant"]
        assert (await grant(running, token, "a", "b"))["refusal_code"] == "secrets_too_large"


def test_the_limit_of_a_job_is_exact() -> None:
    sizes = {(CLIMATE, "a"): 32_766, (CLIMATE, "b"): 16_384}
    assert 32_766 // 3 * 4 + (16_384 + 2) // 3 * 4 + 2 == 65_538
    assert secret_rules.judged(["a", "b"], CLIMATE, sizes).code == "secrets_too_large"
    assert secret_rules.judged(["a", "b"], CLIMATE, sizes | {(CLIMATE, "b"): 16_380}).allowed


def test_a_demand_without_secrets_has_the_digest_that_older_releases_gave_it() -> None:
    job = a_job()
    assert "secrets" not in demand_of(job.spec).model_dump_json()
    assert demand_of(job.spec).digest() != demand_of(a_job(secrets=NAMED).spec).digest()


# -- releasing ----------------------------------------------------------------------------------------------------


async def test_a_suspended_owners_secrets_stay_where_they_are(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await put(running, issuer.token())
        admin = issuer.token(sub="root", entitlements=[entitlement("serai-platform", "admin")])
        asked = {"kind": "subject", "issuer": URL, "value": "alice", "reason": "stolen"}
        headers = {"Authorization": f"Bearer {admin}"}
        assert (await running.http.post("/v1/suspensions", json=asked, headers=headers)).status_code == 201
        running.clock.forward(2)
        answer = await release(running, "key")
        assert (answer["code"], answer["values"]) == ("subject_suspended", {})


async def test_nobody_is_released_a_secret_of_somebody_never_seen(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        assert (await release(running, "key", subject="nobody"))["code"] == "unknown_principal"


async def test_the_routes_are_for_services_only(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        headers = {"Authorization": f"Bearer {issuer.token()}"}
        for method, path in (("PUT", ""), ("POST", ":list"), ("POST", ":delete"), ("POST", ":release")):
            answer = await running.http.request(method, f"/internal/secrets{path}", json={}, headers=headers)
            assert answer.status_code == 401, path


async def test_every_change_and_release_is_written_down_and_no_value_is(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token()
        await put(running, token)
        await put(running, issuer.token(sub="eve", entitlements=[]))
        await release(running, "key", "none")
        await running.http.post("/internal/secrets:delete", json={"token": token, "vo": CLIMATE, "name": "key"})
        rows = await running.store.read(lambda connection: audit_store.read(connection, 0))
        told = [(row["verb"], row["subject"], row["allowed"], row["code"], row["detail"]) for row in rows
                if row["kind"] == "secret"]  # fmt: skip
        assert told == [
            ("secret.manage", "alice", True, "", "set key"),
            ("secret.manage", "eve", False, "not_in_vo", "set key"),
            ("secret.release", "alice", False, "secret_missing", "j-001 at prague: key, none"),
            ("secret.manage", "alice", True, "", "delete key"),
        ]
        assert isinstance(audit.verify(rows, End(0, audit.GENESIS)), End)


# -- at rest ------------------------------------------------------------------------------------------------------


async def test_a_value_is_nowhere_in_what_auth_keeps(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        token = issuer.token()
        assert (await put(running, token)).status_code == 200
        await release(running, "key")
        kept = await running.store.read(every_row)
    kept += all_of(tmp_path)
    assert b"secret.release" in kept, "the check of the check"
    assert CANARY.encode() not in kept
    assert encoded(CANARY).encode() not in kept


def all_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def every_row(connection: Connection) -> bytes:
    """All that the database holds, whichever it is."""
    found = (value for table in metadata.sorted_tables for row in connection.execute(select(table)) for value in row)
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in found)


async def test_a_row_that_was_moved_to_another_owner_does_not_open(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await put(running, issuer.token())
        await running.context(issuer.token(sub="bob"))
        await running.store.transact(
            lambda connection: connection.execute(update(secrets).values(subject="bob")).rowcount
        )
        asked = {"principal": {"issuer": URL, "subject": "bob"}, "vo": CLIMATE, "site": "s", "attempt": "j-001"}
        answer = await running.http.post("/internal/secrets:release", json=asked | {"names": ["key"]})
        assert (answer.status_code, answer.json()["code"]) == (500, "misconfigured")
        assert CANARY not in answer.text


WHOSE = Whose(CLIMATE, ALICE, "key")


@pytest.mark.parametrize("other", [
    Whose(BIO, ALICE, "key"), Whose(CLIMATE, BOB, "key"), Whose(CLIMATE, ALICE, "other"),
    Whose(CLIMATE, ALICE.model_copy(update={"issuer": "https://other.example"}), "key"),
    Whose(CLIMATE, ALICE.model_copy(update={"issuer": "", "subject": ALICE.issuer + ALICE.subject}), "key"),
])  # fmt: skip
def test_a_sealed_value_opens_as_its_own_only(other: Whose) -> None:
    box = SecretBox("k")
    sealed = box.seal(b"value", WHOSE)
    assert box.open(sealed, WHOSE) == b"value"
    with pytest.raises(Misconfigured):
        box.open(sealed, other)


def test_the_same_value_is_never_sealed_the_same_way_twice() -> None:
    box = SecretBox("k")
    assert len({box.seal(b"value", WHOSE).box for _ in range(100)}) == 100


def test_a_changed_bit_is_noticed() -> None:
    box = SecretBox("k")
    sealed = box.seal(b"value", WHOSE)
    for place in range(len(sealed.box)):
        broken = bytearray(sealed.box)
        broken[place] ^= 1
        with pytest.raises(Misconfigured):
            box.open(Sealed(sealed.key_id, bytes(broken)), WHOSE)


async def test_a_new_key_opens_old_secrets_until_they_are_sealed_anew(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer, secrets_key="first") as running:
        await put(running, issuer.token())
    async with auth(tmp_path, issuer, secrets_key="second", secrets_former_keys=("first",)) as running:
        assert (await release(running, "key"))["values"] == {"key": encoded(CANARY)}
        await tidied(running, lambda: keys_of(running), [SecretBox("second").current])
    async with auth(tmp_path, issuer, secrets_key="second") as running:
        assert (await release(running, "key"))["values"] == {"key": encoded(CANARY)}


async def test_what_no_key_opens_stays_as_it_is_and_holds_up_none_of_the_others(tmp_path: Path) -> None:
    """One was sealed with a key that nobody has any more, one was tampered with; the hundred others are sealed anew."""
    issuer = FakeIssuer()
    second = SecretBox("second").current
    async with auth(tmp_path, issuer, secrets_key="lost") as running:
        await put(running, issuer.token(), "a-lost")
    async with auth(tmp_path, issuer, secrets_key="first", most_secrets=200) as running:
        for number in range(101):
            await put(running, issuer.token(), f"b{number:03}")
        tampered = update(secrets).where(secrets.c.name == "b000").values(box=b"0" * 40)
        await running.store.transact(lambda connection: connection.execute(tampered) and None)
    async with auth(tmp_path, issuer, secrets_key="second", secrets_former_keys=("first",)) as running:
        lost, first = SecretBox("lost").current, SecretBox("first").current
        await tidied(running, lambda: keys_of(running), [lost, first, *[second] * 100])
        assert (await release(running, "b001"))["values"] == {"b001": encoded(CANARY)}


async def keys_of(running: Auth) -> list[str]:
    """Under which key each secret is sealed, by name."""
    query = select(secrets.c.key_id).order_by(secrets.c.name)
    return await running.store.read(lambda connection: [row.key_id for row in connection.execute(query)])


async def tidied(running: Auth, look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Return when the janitor of the service, as it is wired, has come to what is expected, and has nothing left."""
    tidying = asyncio.create_task(running.service.tasks["janitor"](), name="janitor")
    try:
        async with asyncio.timeout(20):
            while await look() != expected:
                await asyncio.sleep(0)
                assert not tidying.done()
    finally:
        tidying.cancel()
        await asyncio.wait([tidying])


async def test_what_nobody_set_or_used_for_a_year_is_deleted(tmp_path: Path) -> None:
    issuer = FakeIssuer()
    async with auth(tmp_path, issuer) as running:
        await put(running, issuer.token(), "old")
        await put(running, issuer.token(), "used")
        running.clock.forward(20 * DAY)
        assert (await release(running, "used"))["values"]
        running.clock.forward(350 * DAY)
        before = running.clock() - timedelta(days=365)
        await running.store.transact(lambda connection: secret_store.forget_unused(connection, before))
        left = await running.store.read(lambda c: [row.name for row in c.execute(select(secrets.c.name))])
        assert left == ["used"]
