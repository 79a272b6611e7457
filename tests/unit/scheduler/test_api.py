"""What the scheduler answers to other services."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from shared.contracts.events import SiteUnreachable
from shared.contracts.policies import Policy
from shared.contracts.questions import Decision, DecisionRequest
from shared.job import AttemptStatus, JobState
from tests.builders import ALICE, BOB, VO, a_job, a_site, job_id
from tests.unit.scheduler.world import World, a_world, read_grant

pytestmark = pytest.mark.fast
MEMBER = ["job.submit", "job.view_own"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague"), a_site("lyon", country="FR")) as made:
        yield made


@pytest.fixture
async def ask(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.ask() as client:
        yield client


def as_user(principal: object, verbs: list[str], vo: str = VO) -> dict[str, str]:
    return {"Serai-Read-Grant": read_grant(principal, {vo: verbs})}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/internal/explain"), ("GET", f"/internal/jobs/{job_id(1)}/explain"), ("GET", "/internal/sites"),
     ("GET", f"/internal/jobs/{job_id(1)}/events"), ("POST", "/internal/attempts:strays")],
)  # fmt: skip
async def test_nobody_but_services_is_answered(ask: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await ask.request(method, path, headers={"Authorization": "Bearer guess"}, json={})
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"


async def test_a_job_is_explained_before_it_is_handed_in(ask: httpx.AsyncClient) -> None:
    fits = (await ask.post("/internal/explain", json={"spec": a_job().spec.model_dump(mode="json")})).json()
    assert fits["summary"].startswith("It would go to ")
    assert fits["reason"] is None
    never = a_job(resources={"cpu_cores": 64}).spec.model_dump(mode="json")
    answer = (await ask.post("/internal/explain", json={"spec": never})).json()
    assert answer["reason"]["code"] == "no_site_fits"
    assert {verdict["code"] for verdict in answer["verdicts"]} == {"cpu_too_small"}


def would_be(**spec: Any) -> dict[str, Any]:
    return {"spec": a_job(**spec).spec.model_dump(mode="json")}


async def test_before_it_is_handed_in_a_ceiling_counts_as_when_it_is_placed(
    world: World, ask: httpx.AsyncClient
) -> None:
    ceiling = Policy.model_validate({"user": {"jobs": 1}})
    world.auth.decide = lambda asked: Decision(allowed=True, policy=ceiling)
    await world.submit(a_job())
    await world.until_state(a_job().job_id, JobState.PLACED)

    mine = (await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))).json()
    assert mine["reason"]["code"] == "ceiling_reached"
    assert mine["summary"] == mine["reason"]["message"]
    assert "all jobs of one user together have 1 jobs at a time: 1 in use" in mine["summary"]
    assert {verdict["code"] for verdict in mine["verdicts"]} == {"ceiling_reached"}
    theirs = (await ask.post("/internal/explain", json=would_be(), headers=as_user(BOB, MEMBER))).json()
    assert theirs["summary"].startswith("It would go to "), "another user is below theirs"


async def test_before_it_is_handed_in_the_rules_of_a_site_close_that_site_alone(
    world: World, ask: httpx.AsyncClient
) -> None:
    def decide(asked: DecisionRequest) -> Decision:
        strict = {"prague": {"drivers": ["docker"]}, "lyon": {"user": {"jobs": 0}}}.get(asked.site or "", {})
        return Decision(allowed=True, policy=Policy.model_validate(strict))

    world.auth.decide = decide
    answer = (await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))).json()
    codes = {verdict["site"]: verdict["code"] for verdict in answer["verdicts"]}
    assert codes == {"prague": "policy_forbids", "lyon": "ceiling_reached"}
    assert answer["reason"]["code"] == "ceiling_reached"


@pytest.mark.parametrize(
    ("decision", "code", "words"),
    [
        ({"allowed": False, "code": "not_in_vo", "message": "you left"}, "not_authorised", "be refused: you left"),
        ({"allowed": False, "code": "vo_suspended", "message": "VO closed"}, "suspended", "VO closed"),
        ({"allowed": True, "policy": {"vo": {"cpu_cores": 0.01}}}, "not_authorised", "this one alone asks for"),
    ],
)
async def test_before_it_is_handed_in_it_is_told_what_no_site_changes(
    world: World, ask: httpx.AsyncClient, decision: dict[str, Any], code: str, words: str
) -> None:
    world.auth.decide = lambda asked: Decision.model_validate(decision)
    answer = (await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))).json()
    assert answer["reason"]["code"] == code
    assert words in answer["summary"]
    assert not any(verdict["code"] == "fits" for verdict in answer["verdicts"])


async def test_who_only_wants_to_know_leaves_no_trace_at_auth_and_no_answer_for_placement(
    world: World, ask: httpx.AsyncClient
) -> None:
    await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))
    assert world.auth.asked and all(asked.foreseen for asked in world.auth.asked)
    world.auth.away = True
    await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))
    world.auth.away = False
    world.auth.asked.clear()
    await world.submit(a_job())
    await world.until_state(a_job().job_id, JobState.PLACED)
    assert world.auth.asked and not any(asked.foreseen for asked in world.auth.asked)


async def test_while_auth_is_away_it_is_said_that_nothing_is_known(world: World, ask: httpx.AsyncClient) -> None:
    world.auth.away = True
    answer = (await ask.post("/internal/explain", json=would_be(), headers=as_user(ALICE, MEMBER))).json()
    assert answer["reason"]["code"] == "waiting_for_authorisation"


async def test_a_waiting_job_is_explained_with_its_place_in_the_queue(world: World, ask: httpx.AsyncClient) -> None:
    jobs = [a_job(n, resources={"cpu_cores": 64}) for n in (1, 2)]
    for job, times in zip(jobs, (2, 1), strict=True):
        await world.submit(job)
        await world.until_state(job.job_id, JobState.QUEUED, times=times)
    answers = [(await ask.get(f"/internal/jobs/{job.job_id}/explain")).json() for job in jobs]
    assert [answer["position"] for answer in answers] == [0, 1]
    assert {answer["reason"]["code"] for answer in answers} == {"no_site_fits"}
    assert all(len(answer["verdicts"]) == 2 for answer in answers)


async def test_a_job_whose_site_is_away_says_what_was_last_known(world: World, ask: httpx.AsyncClient) -> None:
    job = a_job(placement={"allow_sites": ["prague"]})
    await world.submit(job)
    await world.until_state(job.job_id, JobState.PLACED)
    await world.attempt(job, AttemptStatus.RUNNING)
    await world.until_state(job.job_id, JobState.RUNNING)
    plain = (await ask.get(f"/internal/jobs/{job.job_id}/explain")).json()
    assert plain["summary"] == "The job is running at prague, attempt 1."
    await world.tell_site(SiteUnreachable, "prague", since=world.clock())
    await world.settled()
    away = (await ask.get(f"/internal/jobs/{job.job_id}/explain")).json()
    assert "last known to be running" in away["summary"]


async def test_what_an_asker_may_not_see_looks_absent(world: World, ask: httpx.AsyncClient) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, JobState.PLACED)
    path = f"/internal/jobs/{job.job_id}/explain"
    statuses = [
        (await ask.get(path, headers=headers)).status_code
        for headers in (
            as_user(ALICE, MEMBER), as_user(BOB, [*MEMBER, "job.view_vo"]), as_user(BOB, MEMBER),
            as_user(ALICE, MEMBER, vo="vo.other"), {},
        )
    ]  # fmt: skip
    assert statuses == [200, 200, 404, 404, 200]
    assert (await ask.get(f"/internal/jobs/{job_id(77)}/explain")).status_code == 404
    assert (await ask.get(path, headers={"Serai-Read-Grant": "forged"})).status_code >= 400


async def test_a_reader_with_a_hole_gets_the_events_behind_it(world: World, ask: httpx.AsyncClient) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, JobState.PLACED)
    path = f"/internal/jobs/{job.job_id}/events"
    whole = (await ask.get(path)).json()["events"]
    assert [event["data"]["sequence"] for event in whole] == [1, 2]
    rest = (await ask.get(path, params={"after": 1})).json()["events"]
    assert rest == whole[1:]
    assert (await ask.get(path, params={"attempt": 1})).json()["events"] == []
    assert (await ask.get(f"/internal/jobs/{job_id(77)}/events")).status_code == 404


async def test_sites_are_shown_with_what_is_free(world: World, ask: httpx.AsyncClient) -> None:
    job = a_job(resources={"cpu_cores": 1}, placement={"allow_sites": ["prague"]})
    await world.submit(job)
    await world.until_state(job.job_id, JobState.PLACED)
    await world.cordon("lyon", BOB)
    await world.settled()
    lyon, prague = (await ask.get("/internal/sites")).json()["sites"]
    assert (prague["cores_total"], prague["cores_free"], prague["attempts"]) == (4.0, 3.0, 1)
    assert (lyon["cordoned"], lyon["cordon_reason"], lyon["cores_free"]) == (True, "repairs", 4.0)


async def test_strays_are_those_that_are_not_current(world: World, ask: httpx.AsyncClient) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, JobState.PLACED)
    named = [f"{job.job_id}-001", f"{job.job_id}-002", f"{job_id(9)}-001", "somebody-elses-job"]
    strays = (await ask.post("/internal/attempts:strays", json={"attempts": named})).json()["strays"]
    assert sorted(strays) == sorted(named[1:3])
    await world.attempt(job, AttemptStatus.SUCCEEDED)
    await world.until_state(job.job_id, JobState.SUCCEEDED)
    strays = (await ask.post("/internal/attempts:strays", json={"attempts": named[:1]})).json()["strays"]
    assert strays == named[:1]


async def test_the_service_is_ready_when_all_that_it_needs_answers(ask: httpx.AsyncClient) -> None:
    answer = await ask.get("/readyz")
    assert (answer.status_code, set(answer.json()["checks"])) == (200, {"store", "bus", "registry", "auth"})
