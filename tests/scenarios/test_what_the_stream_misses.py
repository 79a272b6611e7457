"""A site's event stream breaks, falls silent or forgets while jobs run: every step is still told exactly once."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.scenarios.world import World, a_site, a_world, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE = ["running", "succeeded"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    sites = [a_site(name) for name in ("prague", "lyon")]
    async with a_world(tmp_path_factory.mktemp("streams"), *sites, monitor={"relist_interval_s": 3600}) as up:
        yield up


async def test_a_stream_dropped_while_a_job_runs_is_resumed_where_it_was(world: World) -> None:
    alice = world.alice
    job = await alice.runs(work("500ms", at=["prague"]))
    for _ in range(3):
        await world.fault("prague", "drop-stream")
    assert (await alice.sees(job.id, "succeeded")).attempt == 1
    assert await alice.since_running(job.id) == WHOLE


async def test_what_ended_while_the_stream_was_away_and_the_buffer_forgot_is_found_by_listing(world: World) -> None:
    alice = world.alice
    job = await alice.runs(work("1s", at=["lyon"]))
    await world.go_away("lyon")

    async def over() -> bool:
        return world.at_site("lyon")[f"{job.id}-001"] == "complete"

    await until(over)
    await world.come_back("lyon", forgetful=True)
    assert (await alice.sees(job.id, "succeeded")).attempt == 1
    assert await alice.since_running(job.id) == WHOLE


async def test_a_reader_dropped_without_a_word_because_it_was_slow_is_made_good_by_the_timer(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("slow")
    async with a_world(folder, a_site("prague"), monitor={"relist_interval_s": 0.4}) as world:
        alice = world.alice
        await world.fault("prague", "drop-stream")
        job = await alice.submit(work(at=["prague"]))
        await world.fault("prague", "prune-buffer")
        assert (await alice.sees(job, "succeeded")).attempt == 1
        assert (await alice.attempt(job, 1))[-1] == "succeeded"
        assert (await alice.steps(job))[-1] == "succeeded 1 prague"


async def test_a_stream_that_falls_silent_is_made_good_by_the_timer(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("silent")
    async with a_world(folder, a_site("prague"), monitor={"relist_interval_s": 0.4}) as world:
        alice = world.alice
        job = await alice.runs(work("300ms", at=["prague"]))
        await world.fault("prague", "silence-stream")
        later = await alice.submit(work("100ms", at=["prague"]))
        assert (await alice.sees(job.id, "succeeded")).attempt == 1
        assert (await alice.sees(later, "succeeded")).attempt == 1
        assert await alice.since_running(job.id) == WHOLE
