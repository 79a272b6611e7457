"""Administering trust over HTTP: every route and role, policies with their versions, and records of all of it."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import Connection, func, select, text

from services.auth import admin_api, audit_store, tables
from services.auth.demo_users import BIO, CLIMATE
from shared.contracts.policies import Policy, demand_of
from tests.builders import ALICE, a_job
from tests.unit.auth.world import Auth, FakeIssuer, auth, entitlement, item_for

pytestmark = pytest.mark.fast
SUBJECT = {"kind": "subject", "issuer": "https://issuer.example", "value": "mallory", "reason": "stolen laptop"}

ROLES = {
    "nobody": [], "observer": [(CLIMATE, "observer")], "member": [(CLIMATE, "member")],
    "other manager": [(BIO, "manager")], "operator": [(CLIMATE, "operator")], "manager": [(CLIMATE, "manager")],
    "site-operator": [("serai-platform", "site-operator")], "admin": [("serai-platform", "admin")],
}  # fmt: skip
COLUMNS = ("no token", *ROLES)
MATRIX = """
                                       no token  nobody  observer  member  other manager  operator  manager  site-operator  admin
GET    /v1/vos/{vo}/policy             401       403     403       200     403            200       200      403            200
PUT    /v1/vos/{vo}/policy             401       403     403       403     403            403       200      403            200
GET    /v1/vos/{vo}/policy/versions    401       403     403       200     403            200       200      403            200
GET    /v1/suspensions                 401       403     403       403     403            403       403      403            200
POST   /v1/suspensions                 401       403     403       403     403            403       403      403            201
DELETE /v1/suspensions/{id}            401       403     403       403     403            403       403      403            404
GET    /v1/audit                       401       403     403       403     403            403       403      403            200
GET    /v1/issuers                     401       403     403       403     403            403       403      403            200
GET    /v1/can-i                       401       200     200       200     200            200       200      200            200
"""  # noqa: E501
"""Status by role. The manager and everybody else are of the climate VO, whose policy is asked for."""
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/v1/vos/{vo}/policy"): {}, ("POST", "/v1/suspensions"): SUBJECT,
}  # fmt: skip


def rows() -> list[tuple[str, str, dict[str, int]]]:
    found = []
    for line in MATRIX.strip().splitlines()[1:]:
        method, path, *statuses = line.split()
        found.append((method, path, dict(zip(COLUMNS, map(int, statuses), strict=True))))
    return found


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer()


@pytest.fixture
async def running(tmp_path: Path, issuer: FakeIssuer) -> AsyncIterator[Auth]:
    async with auth(tmp_path, issuer) as made:
        yield made


def token_of(issuer: FakeIssuer, role: str, **changed: Any) -> str:
    held = [entitlement(vo, name) for vo, name in ROLES[role]]
    return issuer.token(**({"sub": role.replace(" ", "-"), "entitlements": held} | changed))


async def call(
    running: Auth, issuer: FakeIssuer, role: str, method: str, path: str, **more: Any
) -> httpx.Response:  # fmt: skip
    headers = {"Authorization": ""} if role == "no token" else {"Authorization": f"Bearer {token_of(issuer, role)}"}
    headers |= more.pop("headers", {})
    return await running.http.request(method, path, headers=headers, **more)


def count(connection: Connection, table: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


# -- every route and every role (A3, A7) --------------------------------------------------------------------------


async def test_a7_the_matrix_has_every_route_that_is_not_for_services(running: Auth) -> None:
    told = {
        (method, route.path)
        for route in running.service.app.routes
        if isinstance(route, APIRoute) and not route.path.startswith("/internal/")
        for method in route.methods
    }
    open_to_all = {("GET", "/.well-known/jwks.json"), ("GET", "/healthz"), ("GET", "/readyz")}
    assert told - open_to_all == {(method, path) for method, path, _ in rows()}
    assert {(method, path) for method, path, _, _ in admin_api.ROUTES} == told - open_to_all


@pytest.mark.parametrize(("method", "path", "statuses"), rows())
async def test_a3_a7_who_may_do_what(
    running: Auth, issuer: FakeIssuer, method: str, path: str, statuses: dict[str, int]
) -> None:
    where = path.replace("{vo}", CLIMATE).replace("{id}", "none")
    more: dict[str, Any] = {"json": BODIES[method, path]} if (method, path) in BODIES else {}
    more["headers"] = {"If-None-Match": "*"} if method == "PUT" else {}
    if path == "/v1/can-i":
        more["params"] = {"verb": "job.submit", "vo": CLIMATE}
    refused_first = sorted(statuses, key=lambda role: statuses[role] not in (401, 403))
    for role in refused_first:
        before = await running.store.read(partial(count, table=tables.audit))
        answer = await call(running, issuer, role, method, where, **more)
        assert answer.status_code == statuses[role], (role, answer.text)
        if statuses[role] in (401, 403):
            for table in (tables.suspensions, tables.policies):
                assert await running.store.read(partial(count, table=table)) == 0, "nothing was left behind"
            if statuses[role] == 403 and method != "GET":
                [record] = await running.store.read(partial(audit_store.read, after=before))
                assert (record["allowed"], record["kind"]) == (False, "admin"), role
        elif method == "PUT":
            more["headers"] = {"If-Match": answer.headers["etag"]}


async def test_h1_one_token_in_one_header(running: Auth, issuer: FakeIssuer) -> None:
    token = token_of(issuer, "admin")
    twice = httpx.Headers([("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")])
    del running.http.headers["authorization"]
    assert (await running.http.get("/v1/audit", headers=twice)).status_code == 422
    both = await running.http.get(
        "/v1/audit", headers={"Authorization": f"Bearer {token}"}, params={"access_token": "x"}
    )
    assert both.status_code == 422
    assert (await running.http.get("/v1/audit", headers={"Authorization": f"bearer {token}"})).status_code == 200


async def test_the_services_secret_opens_no_route_for_people(running: Auth) -> None:
    assert (await running.http.get("/v1/audit")).status_code == 401


async def test_can_i_says_why_not(running: Auth, issuer: FakeIssuer) -> None:
    asked = {"verb": "job.submit", "vo": CLIMATE}
    told = (await call(running, issuer, "observer", "GET", "/v1/can-i", params=asked)).json()
    assert (told["allowed"], told["code"]) == (False, "role_insufficient")
    assert "as observer; submitting needs member" in told["message"]
    assert (await call(running, issuer, "member", "GET", "/v1/can-i", params=asked)).json()["allowed"]


# -- policies -----------------------------------------------------------------------------------------------------

POLICY = f"/v1/vos/{CLIMATE}/policy"


async def write(
    running: Auth, issuer: FakeIssuer, document: Any, role: str = "manager", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(running, issuer, role, "PUT", POLICY, json=document, headers=named)


async def test_a_policy_has_versions_and_nobody_overwrites_what_they_have_not_read(
    running: Auth, issuer: FakeIssuer
) -> None:
    first = await call(running, issuer, "member", "GET", POLICY)
    assert (first.json()["version"], first.json()["policy"]) == (0, {})
    assert (await write(running, issuer, {"sites": ["prague"]})).status_code == 412
    one = await write(running, issuer, {"sites": ["prague"]}, If_None_Match="*")
    assert (one.status_code, one.json()["version"]) == (200, 1)
    assert (await write(running, issuer, {}, If_None_Match="*")).status_code == 412
    assert (await write(running, issuer, {}, If_Match=first.headers["etag"])).status_code == 412
    two = await write(running, issuer, {"sites": ["prague", "lyon"]}, If_Match=one.headers["etag"])
    assert two.json()["version"] == 2
    assert two.headers["etag"] != one.headers["etag"]
    versions = (await call(running, issuer, "member", "GET", f"{POLICY}/versions")).json()["versions"]
    assert [(each["version"], each["policy"]["sites"]) for each in versions] == [
        (2, ["lyon", "prague"]),
        (1, ["prague"]),
    ]
    assert versions[0]["written_by"] == "manager of https://issuer.example"


async def test_a_dry_run_tells_the_difference_and_writes_nothing(tmp_path: Path, issuer: FakeIssuer) -> None:
    platform = Policy.model_validate({"job": {"cpu_cores": 4}})
    async with auth(tmp_path, issuer, platform_policy=platform) as running:
        document = {"job": {"cpu_cores": 8}, "sites": ["prague"]}
        told = await call(running, issuer, "manager", "PUT", POLICY, json=document, params={"dry_run": "true"})
        assert told.json()["differences"] == [
            {"pointer": "/job/cpu_cores", "before": None, "after": 8.0},
            {"pointer": "/sites", "before": None, "after": ["prague"]},
        ]
        assert told.json()["without_effect"] == ["/job/cpu_cores"]
        assert told.json()["effective"] == {"job": {"cpu_cores": 4.0}, "sites": ["prague"]}
        assert await running.store.read(partial(count, table=tables.policies)) == 0
        assert await running.store.read(partial(count, table=tables.audit)) == 0


async def test_a_bad_document_is_refused_with_its_place(running: Auth, issuer: FakeIssuer) -> None:
    answer = await write(running, issuer, {"job": {"cpus": 1}}, If_None_Match="*")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/job/cpus"


# -- policies at work ---------------------------------------------------------------------------------------------


async def refusal(running: Auth, issuer: FakeIssuer, **spec: Any) -> tuple[str | None, str]:
    """The code and words of the refusal of a submission by a member."""
    job = a_job(owner=ALICE, **spec)
    item = item_for(job, CLIMATE, demand=demand_of(job.spec))
    [answer] = await running.grant(token_of(issuer, "member", sub="alice"), item)
    return answer["refusal_code"], answer["refusal"] or ""


async def test_a_policy_decides_at_acceptance_and_its_words_say_what_to_change(
    running: Auth, issuer: FakeIssuer
) -> None:
    assert (await refusal(running, issuer, resources={"cpu_cores": 16}))[0] is None
    assert (await write(running, issuer, {"job": {"cpu_cores": 8}}, If_None_Match="*")).status_code == 200
    assert (await refusal(running, issuer, resources={"cpu_cores": 8}))[0] is None
    code, words = await refusal(running, issuer, resources={"cpu_cores": 16})
    assert code == "cpu_above_ceiling"
    assert words == (
        f"the VO {CLIMATE} allows at most 8 cores for one job, this one asks for 16: lower `resources.cpu` in the job "
        "file, or ask a manager of the VO for more"
    )


async def test_a_job_that_alone_is_above_the_ceiling_of_all_jobs_together_is_refused_with_the_limit(
    running: Auth, issuer: FakeIssuer
) -> None:
    policy = {"user": {"cpu_cores": 8, "gpus": 0}, "vo": {"memory_mib": 4096}}
    assert (await write(running, issuer, policy, If_None_Match="*")).status_code == 200
    assert (await refusal(running, issuer, resources={"cpu_cores": 8, "memory_mib": 4096}))[0] is None
    code, words = await refusal(running, issuer, resources={"cpu_cores": 9})
    assert code == "cpu_above_user_ceiling"
    assert words == (
        f"the VO {CLIMATE} lets all jobs of one user together have at most 8 cores, this one alone asks for 9 and "
        "could never be placed: lower `resources.cpu` in the job file, or ask a manager of the VO for more"
    )
    assert (await refusal(running, issuer, resources={"gpus": {"count": 1}}))[0] == "gpus_above_user_ceiling"
    assert (await refusal(running, issuer, resources={"memory_mib": 4097}))[0] == "memory_above_vo_ceiling"


async def test_a_vo_that_may_have_no_job_takes_none(running: Auth, issuer: FakeIssuer) -> None:
    await write(running, issuer, {"vo": {"jobs": 0}}, If_None_Match="*")
    assert (await refusal(running, issuer))[0] == "jobs_above_vo_ceiling"


async def test_services_are_told_where_suspensions_stop_what_runs(tmp_path: Path, issuer: FakeIssuer) -> None:
    stop = Policy.model_validate({"on_suspension": "stop"})
    async with auth(tmp_path, issuer, site_policies={"prague": stop, "lyon": Policy()}) as running:
        before = (await running.http.get("/internal/trust")).json()
        assert before["stops"] == {"everywhere": False, "vos": [], "sites": ["prague"]}
        await write(running, issuer, {"on_suspension": "stop"}, If_None_Match="*")
        after = (await running.http.get("/internal/trust")).json()
        assert (after["stops"]["vos"], after["version"] > before["version"]) == ([CLIMATE], True)
    async with auth(tmp_path / "other", issuer, platform_policy=stop) as running:
        assert (await running.http.get("/internal/trust")).json()["stops"]["everywhere"] is True


async def test_who_does_not_say_what_a_job_asks_gets_nothing_where_that_is_restricted(
    running: Auth, issuer: FakeIssuer
) -> None:
    token, item = token_of(issuer, "member", sub="alice"), item_for(a_job(owner=ALICE), CLIMATE)
    [answer] = await running.grant(token, item)
    assert answer["grant"]
    await write(running, issuer, {"max_runtime_s": 3_600}, If_None_Match="*")
    [answer] = await running.grant(token, item)
    assert answer["refusal_code"] == "demand_missing"


async def test_a_vo_asks_for_better_proven_identities(running: Auth, issuer: FakeIssuer) -> None:
    await write(running, issuer, {"assurance": ["https://refeds.org/assurance/IAP/medium"]}, If_None_Match="*")
    assert (await refusal(running, issuer))[0] == "assurance_too_low"
    job = a_job(owner=ALICE)
    proven = token_of(issuer, "member", sub="alice", eduperson_assurance=["https://refeds.org/assurance/IAP/medium"])
    [answer] = await running.grant(proven, item_for(job, CLIMATE, demand=demand_of(job.spec)))
    assert answer["grant"]


async def test_a_vo_cannot_widen_what_the_platform_gives(tmp_path: Path, issuer: FakeIssuer) -> None:
    platform = Policy.model_validate({"job": {"cpu_cores": 4}})
    async with auth(tmp_path, issuer, platform_policy=platform) as running:
        await write(running, issuer, {"job": {"cpu_cores": 64}}, If_None_Match="*")
        code, words = await refusal(running, issuer, resources={"cpu_cores": 5})
        assert code == "cpu_above_ceiling"
        assert words.startswith("the platform allows at most 4 cores")


async def test_at_dispatch_the_site_list_decides_and_the_whole_policy_goes_along(
    tmp_path: Path, issuer: FakeIssuer
) -> None:
    sites = {"prague": Policy.model_validate({"job": {"memory_mib": 512}})}
    async with auth(tmp_path, issuer, site_policies=sites) as running:
        await running.context(token_of(issuer, "member", sub="alice"))
        asked = {"principal": ALICE.model_dump(), "vo": CLIMATE, "verb": "job.submit"}

        async def decision(site: str | None) -> dict[str, Any]:
            return dict((await running.http.post("/internal/decisions", json={**asked, "site": site})).json())

        assert (await decision("lyon"))["policy"] is None
        assert (await decision("prague"))["policy"]["job"]["memory_mib"] == 512
        await write(running, issuer, {"sites": ["prague"], "job": {"cpu_cores": 2}}, If_None_Match="*")
        assert (await decision("lyon"))["code"] == "site_not_allowed"
        there = await decision("prague")
        assert (there["policy"]["job"]["memory_mib"], there["policy"]["job"]["cpu_cores"]) == (512, 2)
        assert there["policy_version"].startswith("1-")
        assert (await decision(None))["policy"]["job"]["memory_mib"] is None


# -- records ------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_written_down_is_not_done(running: Auth, issuer: FakeIssuer) -> None:
    made = await call(running, issuer, "admin", "POST", "/v1/suspensions", json={**SUBJECT, "value": "before"})
    kept = await running.store.read(partial(count, table=tables.audit))
    await running.store.transact(lambda connection: connection.execute(text("DELETE FROM audit_ends")) and None)
    lifted = await call(running, issuer, "admin", "DELETE", f"/v1/suspensions/{made.json()['id']}")
    asked = {"principal": ALICE.model_dump(), "vo": CLIMATE, "verb": "job.submit", "site": "prague"}
    dispatched = await running.http.post("/internal/decisions", json=asked)
    refused = await call(running, issuer, "member", "POST", "/v1/suspensions", json=SUBJECT)
    suspended = await call(running, issuer, "admin", "POST", "/v1/suspensions", json=SUBJECT)
    written = await write(running, issuer, {}, If_None_Match="*")
    job = {"token": token_of(issuer, "member"), "items": [item_for(a_job(), CLIMATE).model_dump()]}
    granted = await running.http.post("/internal/grants", json=job)
    answers = (lifted, dispatched, refused, suspended, written, granted)
    assert {answer.status_code for answer in answers} <= {500, 503}
    held = (await running.http.get("/internal/trust")).json()["suspensions"]
    assert [each["value"] for each in held] == ["before"], "it was not lifted, and no other was made"
    assert await running.store.read(partial(count, table=tables.policies)) == 0
    assert await running.store.read(partial(count, table=tables.audit)) == kept


async def test_what_somebody_only_wants_to_know_is_not_in_the_log(running: Auth, issuer: FakeIssuer) -> None:
    asked = {"principal": ALICE.model_dump(), "vo": CLIMATE, "verb": "job.submit", "site": "prague"}
    kept = await running.store.read(partial(count, table=tables.audit))
    await running.http.post("/internal/decisions", json=asked | {"foreseen": True})
    assert await running.store.read(partial(count, table=tables.audit)) == kept
    await running.http.post("/internal/decisions", json=asked)
    assert await running.store.read(partial(count, table=tables.audit)) == kept + 1


async def test_changes_and_refused_changes_are_in_the_log_with_what_was_changed(
    running: Auth, issuer: FakeIssuer
) -> None:
    await call(running, issuer, "member", "POST", "/v1/suspensions", json=SUBJECT)
    made = await call(running, issuer, "admin", "POST", "/v1/suspensions", json=SUBJECT)
    await call(running, issuer, "admin", "DELETE", f"/v1/suspensions/{made.json()['id']}")
    await write(running, issuer, {"max_runtime_s": 60}, If_None_Match="*")
    told = (await call(running, issuer, "admin", "GET", "/v1/audit")).json()
    assert [(each["subject"], each["verb"], each["allowed"]) for each in told["records"]] == [
        ("member", "trust.suspend", False), ("admin", "trust.suspend", True), ("admin", "trust.suspend", True),
        ("manager", "vo.policy.write", True),
    ]  # fmt: skip
    assert '"value":"mallory"' in told["records"][1]["detail"]
    assert told["records"][3]["detail"] == '{"max_runtime_s":60.0}'
    assert told["head"]["position"] == 4


async def test_issuers_are_shown_with_their_keys_and_troubles(running: Auth, issuer: FakeIssuer) -> None:
    [told] = (await call(running, issuer, "admin", "GET", "/v1/issuers")).json()["issuers"]
    assert (told["keys"], told["trouble"], told["vos"]) == (["first"], "", [CLIMATE, BIO])
