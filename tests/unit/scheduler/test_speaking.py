"""B9: whose word a job's own identity is, and what becomes of what a job tells of itself."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.scheduler import speaking
from shared.contracts.commands import Principal, ReportProgress, SubmitJob
from shared.contracts.events import JobProgress
from shared.contracts.questions import WorkloadIdentity
from shared.job import AttemptStatus, JobState
from shared.namespaces import namespace_of
from tests.builders import NOON, VO, a_job, a_site, job_id
from tests.unit.scheduler.world import World, a_world, first

pytestmark = pytest.mark.fast
S, A = JobState, AttemptStatus
TASK = Principal(issuer="https://nomad.prague.example", subject="prague:ns:job:main:main:serai")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague"), a_site("lyon", country="FR")) as made:
        yield made


def identity(**changed: Any) -> WorkloadIdentity:
    good = {"job": f"{job_id(1)}-001", "namespace": namespace_of(VO), "allocation": "a1", "sites": ("prague",)}
    return WorkloadIdentity.model_validate(good | changed)


async def running(world: World, number: int = 1) -> SubmitJob:
    job = a_job(number, placement={"allow_sites": ["prague"]})
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: first(job) in engine.nonces)
    await world.attempt(job, A.RUNNING, node="node-1")
    await world.until_state(job.job_id, S.RUNNING)
    return job


def report(job: SubmitJob, **fields: Any) -> ReportProgress:
    good = {"job_id": job.job_id, "attempt": 1, "vo": VO, "reported_by": TASK, "reported_at": NOON, "fraction": 0.5}
    return ReportProgress.model_validate(good | fields)


async def tells(world: World, told: ReportProgress, whose: WorkloadIdentity | None) -> None:
    claims = {} if whose is None else {"workload": whose.model_dump()}
    await world.command(told, TASK, told.vo, f"{told.job_id}{told.message}", **claims)
    await world.settled()


async def test_what_a_job_tells_is_told_as_an_event_and_moves_nothing(world: World) -> None:
    job = await running(world)
    await tells(world, report(job, message="half", results={"loss": 0.5, "epoch": 3}), identity())
    await world.until(lambda: any(isinstance(event, JobProgress) for event in world.events))
    *_, event = world.told(job.job_id)
    assert isinstance(event, JobProgress)
    assert (event.fraction, event.message, event.results) == (0.5, "half", {"loss": 0.5, "epoch": 3})
    assert (event.attempt, event.site, event.sequence) == (1, "prague", len(world.told(job.job_id)))
    assert (await world.job(job.job_id)).state is S.RUNNING
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    ended = await world.until_state(job.job_id, S.SUCCEEDED)
    assert ended.sequence == event.sequence + 1


FOREIGN = {
    "another job": {"job": f"{job_id(2)}-001"},
    "another attempt": {"job": f"{job_id(1)}-002"},
    "a longer id": {"job": f"{job_id(1)}-0010"},
    "a shorter id": {"job": f"{job_id(1)}-00"},
    "another namespace": {"namespace": "vo-bio-example"},
    "another site": {"sites": ("lyon",)},
    "no site": {"sites": ()},
}


@pytest.mark.parametrize("changed", FOREIGN.values(), ids=FOREIGN)
async def test_b9_nobody_else_speaks_for_it(world: World, changed: dict[str, Any]) -> None:
    job = await running(world)
    await running(world, 2)
    before = len(world.told(job.job_id))
    await tells(world, report(job), identity(**changed))
    assert len(world.told(job.job_id)) == before
    async with world.ask() as http:
        asked = {"job_id": str(job.job_id), "workload": identity(**changed).model_dump()}
        answer = (await http.post("/internal/attempts:speak", json=asked)).json()
    assert (answer["attempt"], bool(answer["why"])) == (0, True)


@pytest.mark.parametrize("fields", [{"attempt": 2}, {"job_id": job_id(2)}])
async def test_b9_a_report_about_another_attempt_than_its_grants_is_not_told(
    world: World, fields: dict[str, Any]
) -> None:
    job, other = await running(world), await running(world, 2)
    before = len(world.told(job.job_id)) + len(world.told(other.job_id))
    await tells(world, report(job, **fields), identity())
    assert len(world.told(job.job_id)) + len(world.told(other.job_id)) == before


async def test_b9_a_report_without_an_identity_is_not_told(world: World) -> None:
    job = await running(world)
    before = len(world.told(job.job_id))
    await tells(world, report(job), None)
    assert len(world.told(job.job_id)) == before


async def test_b9_a_job_that_has_ended_is_not_heard_any_more(world: World) -> None:
    job = await running(world)
    async with world.ask() as http:
        asked = {"job_id": str(job.job_id), "workload": identity().model_dump()}
        answer = (await http.post("/internal/attempts:speak", json=asked)).json()
        assert answer == {"attempt": 1, "vo": VO, "why": ""}
        await world.attempt(job, A.SUCCEEDED, exit_code=0)
        await world.until_state(job.job_id, S.SUCCEEDED)
        await tells(world, report(job), identity())
        answer = (await http.post("/internal/attempts:speak", json=asked)).json()
    assert (answer["attempt"], answer["why"]) == (0, "the attempt is over")
    assert not any(isinstance(event, JobProgress) for event in world.told(job.job_id))


async def test_b9_an_unknown_job_has_no_speaker(world: World) -> None:
    assert speaking.objection(None, identity()) == "there is no such attempt"
    job = await running(world)
    known = await world.job(job.job_id)
    assert speaking.objection(known, identity()) == ""
    assert known.attempt is not None
    assert speaking.objection(replace(known, attempt=None), identity()) == "there is no such attempt"
