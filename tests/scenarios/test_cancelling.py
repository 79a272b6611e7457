"""A cancel is honest, whenever it comes: before placement, in flight, while it runs, out of reach, too late."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.scenarios.world import World, a_site, a_world, site_is, until, work

SITES = (a_site("prague"), a_site("lyon", country="FR"))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with a_world(tmp_path_factory.mktemp("cancelling"), *SITES) as up:
        yield up


async def test_a_job_that_waits_is_cancelled_at_once_and_the_request_shows_from_the_202_on(world: World) -> None:
    alice = world.alice
    await world.olga.serai.cordon("prague")
    await site_is(alice, "prague", cordoned=True)
    job = await alice.submit(work("1h", at=["prague"]))
    await alice.sees(job, "queued")
    answer = await alice.http.delete(f"/v1/jobs/{job}")
    assert answer.status_code == 202 and answer.json()["cancel_requested_at"]
    ended = await alice.sees(job, "cancelled")
    assert (ended.attempt, ended.raw["confirmed"], ended.reason_code) == (0, True, "cancelled_by_user")
    again = await alice.http.delete(f"/v1/jobs/{job}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    await world.olga.serai.uncordon("prague")
    other = await alice.submit(work(at=["prague"]))
    await alice.sees(other, "succeeded")
    assert not [name for name in world.at_site("prague") if name.startswith(job)]


async def test_a_job_cancelled_in_the_same_breath_never_runs_or_is_stopped(world: World) -> None:
    alice = world.alice
    jobs = [await alice.submit(work("1h")) for _ in range(8)]
    for job in jobs:
        assert (await alice.http.delete(f"/v1/jobs/{job}")).status_code == 202
    for job in jobs:
        ended = await alice.sees(job, "cancelled")
        assert ended.raw["confirmed"]
        for site in ("prague", "lyon"):
            await world.over_at(site, job)


async def test_a_job_cancelled_on_its_way_to_a_site_has_its_id_closed_there_first(world: World) -> None:
    alice = world.alice
    await world.fault("prague", "slow", seconds=0.3)
    job = await alice.submit(work("1h", at=["prague"]))
    await alice.sees(job, "placed", "starting", "running")
    await alice.serai.cancel(job)
    ended = await alice.sees(job, "cancelled")
    assert ended.raw["confirmed"]
    await world.fault("prague", "clear")
    await world.over_at("prague", job)
    steps = [step.split()[0] for step in await alice.steps(job)]
    assert steps[-2:] == ["cancelling", "cancelled"] and "running" not in steps


async def test_a_running_job_is_cancelled_when_its_site_has_confirmed_the_end(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["prague"]))).id
    await alice.serai.cancel(job)
    await alice.serai.cancel(job)
    ended = await alice.sees(job, "cancelled")
    assert (ended.raw["confirmed"], ended.reason_code) == (True, "cancelled_by_user")
    assert [step.split()[0] for step in await alice.steps(job)][-3:] == ["running", "cancelling", "cancelled"]
    assert (await alice.attempt(job, 1))[-1] == "stopped"
    assert not world.live_at("prague")


async def test_a_job_at_a_site_out_of_reach_is_cancelled_unconfirmed_and_the_stop_stays_owed(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, scheduler={"cancel_grace_s": 0.5}) as world:
        alice = world.alice
        job = (await alice.runs(work("1h", at=["prague"]))).id
        await world.go_away("prague")
        await alice.serai.cancel(job)
        ended = await alice.sees(job, "cancelled")
        assert ended.raw["confirmed"] is False
        assert world.live_at("prague") == [f"{job}-001"]
        await world.come_back("prague")
        await world.over_at("prague", job)

        async def stopped() -> bool:
            return (await alice.attempt(job, 1))[-1] == "stopped"

        await until(stopped, "the late outcome enters the timeline")
        assert (await alice.steps(job))[-1] == "cancelled 1 prague"
        assert (await alice.job(job)).raw["confirmed"] is False, "final states never change"


async def test_a_job_that_was_faster_than_its_cancel_has_succeeded(world: World) -> None:
    alice = world.alice
    job = await alice.submit(work())
    await alice.sees(job, "succeeded")
    late = await alice.http.delete(f"/v1/jobs/{job}")
    assert (late.status_code, late.json()["state"], late.json()["cancel_requested_at"]) == (200, "succeeded", None)


async def test_a_job_that_ended_well_while_its_cancel_was_on_the_way_to_the_site_has_succeeded(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1s", at=["prague"]))).id
    await world.go_away("prague")

    async def over() -> bool:
        return world.at_site("prague")[f"{job}-001"] == "complete"

    await until(over)
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelling")
    await world.come_back("prague")
    assert (await alice.sees(job, "succeeded")).raw["cancel_requested_at"]
    assert [step.split()[0] for step in await alice.steps(job)][-2:] == ["cancelling", "succeeded"]


async def test_a_cancel_during_the_pause_before_a_retry_ends_the_job(world: World) -> None:
    alice = world.alice
    job = await alice.submit(work(exit_code=1, retries={"attempts": 20}))

    async def tried() -> bool:
        return (await alice.job(job)).attempt >= 2

    await until(tried)
    await alice.serai.cancel(job)
    ended = await alice.sees(job, "cancelled")
    assert ended.attempt < 20


async def test_a_job_on_a_lost_node_is_cancelled_unconfirmed_and_stopped_when_the_node_is_back(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, scheduler={"cancel_grace_s": 0.5}) as world:
        alice = world.alice
        job = (await alice.runs(work("1h", at=["prague"]))).id
        await world.fault("prague", "lose-node", after=0)

        async def away() -> bool:
            return (await alice.attempt(job, 1))[-1] == "disconnected"

        await until(away)
        await alice.serai.cancel(job)
        assert (await alice.sees(job, "cancelled")).raw["confirmed"] is False
        await world.fault("prague", "return-node")
        await world.over_at("prague", job)
        assert (await alice.steps(job))[-1] == "cancelled 1 prague"


async def test_a_job_over_its_max_runtime_at_a_site_out_of_reach_fails_and_is_stopped_there_later(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, *SITES, scheduler={"cancel_grace_s": 0.5}) as world:
        alice = world.alice
        job = (await alice.runs(work("1h", at=["prague"], max_runtime=1))).id
        await world.go_away("prague")
        assert (await alice.sees(job, "failed")).reason_code == "max_runtime_exceeded"
        await world.come_back("prague")
        await world.over_at("prague", job)
        assert (await alice.steps(job))[-1] == "failed 1 prague"
