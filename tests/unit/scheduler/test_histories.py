"""Histories of whole jobs: given these messages, when this one comes, then that is told and done."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.job import AttemptStatus, FailureClass, JobState
from tests.builders import a_job, a_site
from tests.unit.scheduler.world import World, a_world, first

pytestmark = pytest.mark.fast
S = JobState


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague")) as made:
        yield made


async def test_a_job_runs_and_succeeds(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    await world.attempt(job, AttemptStatus.STARTING, node="node-1")
    await world.attempt(job, AttemptStatus.RUNNING, node="node-1")
    await world.attempt(job, AttemptStatus.SUCCEEDED, node="node-1", exit_code=0)
    ended = await world.until_state(job.job_id, S.SUCCEEDED)

    assert world.states(job.job_id) == ["queued", "placed", "starting", "running", "succeeded"]
    assert [event.sequence for event in world.told(job.job_id)] == [1, 2, 3, 4, 5]
    assert (ended.attempt, ended.site) == (1, "prague")
    await world.settled()
    assert await world.owed() == []
    assert world.engines["prague"].closed == []


async def test_a_failed_attempt_is_closed_and_then_tried_again(world: World) -> None:
    job = a_job(retries={"attempts": 1})
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    world.engines["prague"].end(first(job))
    await world.fails(job, FailureClass.TASK_ERROR)
    await world.until_state(job.job_id, S.PLACED, times=2)
    await world.fails(job, FailureClass.TASK_ERROR, number=2)
    ended = await world.until_state(job.job_id, S.FAILED)

    assert world.states(job.job_id) == ["queued", "placed", "queued", "placed", "failed"]
    assert world.engines["prague"].closed == [first(job)]
    assert ended.reason is not None and ended.reason.code == "task_error"
    assert ended.exit_code == 3  # type: ignore[attr-defined]
