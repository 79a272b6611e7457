"""What the scheduler answers to other services."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2 as httpx
import pytest

from shared.contracts.events import SiteUnreachable
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


async def test_a_waiting_job_is_explained_with_its_place_in_the_queue(world: World, ask: httpx.AsyncClient) -> None:
    jobs = [a_job(n, resources={"cpu_cores": 64}) for n in (1, 2)]
    for job in jobs:
        await world.submit(job)
        await world.until_state(job.job_id, JobState.QUEUED, times=2)
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
