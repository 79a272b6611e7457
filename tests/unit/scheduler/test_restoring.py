"""B2: the scheduler's database is restored from an older backup, and commands of before come again."""

import shutil
from pathlib import Path

import pytest

from services.scheduler import wiring
from shared.contracts.questions import Decision
from shared.job import AttemptStatus, JobState
from tests.builders import ALICE, VO, a_job, a_site
from tests.stores import open_store
from tests.unit.scheduler.world import World, a_world, first

pytestmark = [pytest.mark.fast, pytest.mark.sqlite_only(reason="its backup is a copy of the file")]
S, A = JobState, AttemptStatus
FILE = "scheduler.sqlite"


async def closed(world: World) -> None:
    """The scheduler is down and its database lies still."""
    await world.stop()
    await world.store.close()


async def opened(world: World, folder: Path) -> None:
    world.store = await open_store(folder / FILE, wiring.MIGRATIONS, synchronous="OFF")
    await world.start()


async def backed_up(world: World, folder: Path) -> None:
    await closed(world)
    shutil.copy(folder / FILE, folder / "backup")
    await opened(world, folder)


async def restored(world: World, folder: Path) -> None:
    await closed(world)
    for journal in ("-wal", "-shm"):
        (folder / f"{FILE}{journal}").unlink(missing_ok=True)
    shutil.copy(folder / "backup", folder / FILE)
    await opened(world, folder)


async def test_b2_a_submission_that_comes_again_after_a_restore_makes_one_job_and_nothing_runs_twice(
    tmp_path: Path,
) -> None:
    """The job is made anew under its own id; what runs of it at the site is told apart by the nonce, closed, and the
    next attempt begins when it is over.
    """
    async with a_world(tmp_path, a_site("prague")) as world:
        await backed_up(world, tmp_path)
        job, engine = a_job(), world.engines["prague"]
        message = world.message(job, ALICE, VO, str(job.job_id))
        await world.bus.publish([message])
        await engine.until(lambda engine: first(job) in engine.living)
        await world.attempt(job, A.RUNNING)
        await world.until_state(job.job_id, S.RUNNING)

        await restored(world, tmp_path)
        await world.bus.publish([message])
        await engine.until(lambda engine: first(job) in engine.closed)
        assert [attempt for attempt in engine.living if attempt.job_id == job.job_id] == [first(job)]
        engine.end(first(job))
        await world.attempt(job, A.STOPPED)
        await engine.until(lambda engine: any(attempt.number == 2 for attempt in engine.living))
        await world.bus.publish([message])
        await world.settled()
        living = [attempt.number for attempt in engine.living if attempt.job_id == job.job_id]
        assert living == [2], "one job, one attempt"


async def test_b2_an_old_submission_that_comes_again_after_a_restore_is_decided_afresh(tmp_path: Path) -> None:
    """Its grant is over: whoever has kept it has nothing in hand. Auth says by now that the owner may not."""
    async with a_world(tmp_path, a_site("prague")) as world:
        await backed_up(world, tmp_path)
        job = a_job()
        message = world.message(job, ALICE, VO, str(job.job_id))
        await restored(world, tmp_path)
        world.clock.forward(3_600)
        world.auth.decide = lambda asked: Decision(allowed=False, code="not_in_vo", message="you left the VO")
        await world.bus.publish([message])
        ended = await world.until_state(job.job_id, S.REJECTED)
        assert ended.reason is not None and ended.reason.code == "authorisation_expired"
        assert world.engines["prague"].orders == []
