"""Secrets on their way through the scheduler: released at the register, never kept, forgotten at the attempt's end."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.scheduler.decisions import Call
from shared.contracts.commands import SubmitJob
from shared.engine import Submission, Submitted
from shared.errors import OutcomeUnknown
from shared.ids import AttemptId
from shared.job import AttemptStatus, FailureClass, JobState
from tests.builders import ALICE, VO, a_job, a_site, job_id
from tests.doubles.engine import EngineDouble
from tests.unit.scheduler.world import World, a_world, first

pytestmark = pytest.mark.fast
S, A = JobState, AttemptStatus
CANARY = b"canary-3e91a77c"
NAMED = [{"name": "key", "file": "key"}, {"name": "key", "file": "again"}]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague"), leftovers_s=0.02) as made:
        made.auth.secrets["key"] = CANARY
        yield made


async def placed(world: World, **spec: object) -> tuple[SubmitJob, EngineDouble]:
    """A job with secrets that its site has taken."""
    job, site = a_job(secrets=NAMED, **spec), world.engines["prague"]
    await world.submit(job)
    await site.until(lambda engine: len(engine.orders) == 1)
    return job, site


async def test_values_are_released_for_the_attempt_and_go_with_its_register(world: World) -> None:
    job, site = await placed(world)
    assert site.orders[0].secrets == {"key": CANARY}
    (asked,) = world.auth.released
    assert (asked.principal, asked.vo, asked.site, asked.names) == (ALICE, VO, "prague", ("key",))
    assert asked.attempt == first(job).nomad_id


async def test_a_job_without_secrets_asks_for_none_and_owes_no_forgetting(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await world.until_state(job.job_id, S.SUCCEEDED)
    await world.settled()
    assert (world.auth.released, await world.owed()) == ([], [])


@pytest.mark.parametrize("outcome", [A.SUCCEEDED, A.FAILED])
async def test_they_are_forgotten_when_the_attempt_has_ended(world: World, outcome: AttemptStatus) -> None:
    job, site = await placed(world)
    failure = {"failure": FailureClass.TASK_ERROR} if outcome is A.FAILED else {}
    await world.attempt(job, outcome, exit_code=0, **failure)
    await site.until(lambda engine: not engine.secrets)


async def test_a_site_out_of_reach_is_owed_the_forgetting(world: World) -> None:
    job, site = await placed(world)
    site.away = True
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await world.until_state(job.job_id, S.SUCCEEDED)
    await world.until_tried(job.job_id, 1)
    assert await world.owed() == [(str(job.job_id), 1, Call.FORGET)]
    site.away = False
    world.clock.forward(60)
    await site.until(lambda engine: not engine.secrets)


async def test_a_restart_still_owes_the_forgetting(world: World) -> None:
    job, site = await placed(world)
    site.away = True
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await world.until_state(job.job_id, S.SUCCEEDED)
    await world.until_tried(job.job_id, 1)
    await world.stop()
    site.away = False
    world.clock.forward(60)
    await world.start()
    await site.until(lambda engine: not engine.secrets)


async def test_each_attempt_gets_its_own_and_leaves_none(world: World) -> None:
    job, site = await placed(world, retries={"attempts": 1})
    world.auth.secrets["key"] = b"changed meanwhile"
    await world.fails(job, FailureClass.TASK_ERROR)
    site.end(first(job))
    await site.until(lambda engine: len(engine.orders) == 2)
    assert (site.orders[1].attempt.number, site.orders[1].secrets) == (2, {"key": b"changed meanwhile"})
    await site.until(lambda engine: set(engine.secrets) == {AttemptId(job.job_id, 2)})


async def test_a_secret_that_was_deleted_while_the_job_waited_ends_it_with_the_reason(world: World) -> None:
    world.auth.secrets.clear()
    job, site = a_job(secrets=NAMED), world.engines["prague"]
    await world.submit(job)
    ended = await world.until_state(job.job_id, S.FAILED)
    assert ended.reason is not None
    assert (ended.reason.code, "'key'" in ended.reason.message) == ("secret_missing", True)
    assert site.orders == []
    await site.until(lambda engine: first(job) in engine.closed)
    await world.until_kept(lambda connection: not connection.exec_driver_sql("select 1 from owed").all())


async def test_a_register_in_doubt_whose_secret_is_gone_is_closed_and_its_work_stopped(world: World) -> None:
    """The first register may have won: then something runs, and must not."""
    site = world.engines["prague"]
    job = a_job(secrets=NAMED)
    site.answers = [OutcomeUnknown("no answer")]
    world.auth.gone_after = 1
    await world.submit(job)
    await world.until_tried(job.job_id, 1)
    world.clock.forward(1)
    ended = await world.until_state(job.job_id, S.FAILED)
    assert ended.reason is not None and ended.reason.code == "secret_missing"
    await site.until(lambda engine: first(job) in engine.closed)


async def test_while_auth_is_away_the_attempt_waits(world: World) -> None:
    site = world.engines["prague"]
    job = a_job(secrets=NAMED)
    world.auth.release_away = True
    await world.submit(job)
    await world.until_tried(job.job_id, 1)
    assert site.orders == []
    world.auth.release_away = False
    world.clock.forward(1)
    await site.until(lambda engine: len(engine.orders) == 1)


@pytest.mark.parametrize("outcome", [Submitted.INVALID, Submitted.CLOSED, Submitted.FOREIGN])
async def test_what_the_site_does_not_take_leaves_no_secret(world: World, outcome: Submitted) -> None:
    site = world.engines["prague"]
    site.answers = [Submission(outcome, "no")]
    job = a_job(secrets=NAMED, placement={"allow_sites": ["prague"]})
    await world.submit(job)
    await site.until(lambda engine: first(job) not in engine.secrets and bool(engine.orders))


async def test_the_sweep_deletes_what_came_after_the_end_and_what_nobody_knows(world: World) -> None:
    job, site = await placed(world)
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await site.until(lambda engine: not engine.secrets)
    running = a_job(2, secrets=NAMED)
    await world.submit(running)
    await site.until(lambda engine: len(engine.orders) == 2)
    site.secrets |= {first(job): {"key": CANARY}, AttemptId(job_id(77), 1): {"key": CANARY}}
    await site.until(lambda engine: set(engine.secrets) == {first(running)})


async def test_the_sweep_spares_the_unknown_where_strays_are_spared(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague"), leftovers_s=0.02, stop_unknown_strays=False) as world:
        world.auth.secrets["key"] = CANARY
        job, site = await placed(world)
        await world.attempt(job, A.SUCCEEDED, exit_code=0)
        await site.until(lambda engine: not engine.secrets)
        site.secrets |= {first(job): {"key": CANARY}, AttemptId(job_id(77), 1): {"key": CANARY}}
        await site.until(lambda engine: set(engine.secrets) == {AttemptId(job_id(77), 1)})


def all_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_no_value_is_kept_or_told(world: World, tmp_path: Path) -> None:
    job, site = await placed(world)
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await site.until(lambda engine: not engine.secrets)
    await world.until_state(job.job_id, S.SUCCEEDED)
    kept = all_of(tmp_path)
    assert str(job.job_id).encode() in kept, "the check of the check: the job itself is kept"
    for spelling in (CANARY, b"Y2FuYXJ5LTNlOTFhNzdj"):
        assert spelling not in kept
        assert spelling.decode() not in repr(site.orders) + repr(world.events)
