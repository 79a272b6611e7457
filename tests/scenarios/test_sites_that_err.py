"""A site answers, but not as it should: errors, slowness, jobs forgotten, a token that sees nothing."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from services.embedded.sites import CLIMATE
from shared.namespaces import namespace_of
from tests.scenarios.world import World, a_site, a_world, site_is, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("prague", "lyon", "bari", "madrid", "oslo", "paris", "rome", "vienna", "spare")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """More than two attempts of a site that vanish together are not believed."""
    sites = [a_site(name) for name in NAMES]
    rules = {"vanish_few": 2, "relist_interval_s": 0.5, "vanish_window_s": 2, "probe_interval_s": 0.3}
    async with a_world(tmp_path_factory.mktemp("err"), *sites, monitor=rules) as up:
        yield up


@pytest.mark.parametrize(("site", "kind"), [("prague", "error-500"), ("lyon", "error-429")])
async def test_a_site_that_errs_for_a_time_delays_its_jobs_and_runs_each_once(
    world: World, site: str, kind: str
) -> None:
    alice = world.alice
    running = await alice.runs(work("500ms", at=[site]))
    await world.fault(site, kind, seconds=1.0)
    jobs = [await alice.submit(work(at=[site])) for _ in range(5)]
    for job in (running.id, *jobs):
        ended = await alice.sees(job, "succeeded")
        assert (ended.attempt, ended.site) == (1, site)
        assert len(await alice.attempt(job, 1)) == len(set(await alice.attempt(job, 1)))


async def test_a_slow_site_holds_up_nobody_else(world: World) -> None:
    alice = world.alice
    await world.fault("bari", "slow", seconds=0.3)
    slow = await alice.submit(work(at=["bari"]))
    quick = await alice.submit(work(at=["spare"]))
    await alice.sees(quick, "succeeded")
    assert (await alice.sees(slow, "succeeded")).attempt == 1
    await world.fault("bari", "clear")


async def test_a_job_forgotten_by_nomad_has_vanished_and_runs_again(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["madrid", "spare"]))).id
    await world.fault("madrid", "forget-job", job=f"{job}-001")

    async def again() -> bool:
        now = await alice.job(job)
        return (now.attempt, now.state) == (2, "running")

    await until(again)
    assert (await alice.attempt(job, 1))[-1] == "lost"
    assert "vanished" in await alice.reasons(job)
    assert "The site no longer knows the attempt, although nobody told us that it ended." in await alice.words(job)
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")


async def test_a_job_that_may_not_run_twice_fails_when_it_has_vanished(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["madrid"], on_lost="fail"))).id
    await world.fault("madrid", "forget-job", job=f"{job}-001")
    failed = await alice.sees(job, "failed")
    assert (failed.reason_code, failed.attempt) == ("vanished", 1)


async def test_many_that_vanish_together_make_the_site_suspect_and_nothing_is_given_up(world: World) -> None:
    alice = world.alice
    jobs = [(await alice.runs(work("1h", at=["oslo"]))).id for _ in range(4)]
    for job in jobs:
        await world.fault("oslo", "forget-job", job=f"{job}-001")
    await site_is(alice, "oslo", suspect=True)
    waiting = await alice.submit(work(at=["oslo"]))

    async def told() -> bool:
        return (await alice.verdicts(waiting)).get("oslo") == "site_suspect"

    await until(told)
    assert "What oslo shows cannot be believed at the moment." in (await alice.why(waiting))["summary"]
    assert [(await alice.job(job)).state for job in jobs] == ["running"] * 4
    assert [(await alice.job(job)).attempt for job in jobs] == [1] * 4
    known = "What oslo shows cannot be believed at the moment; the job was last known to be running."
    assert (await alice.why(jobs[0]))["summary"] == known
    for job in jobs:
        await alice.serai.cancel(job)
        await alice.sees(job, "cancelled")
    await site_is(alice, "oslo", suspect=False)
    assert (await alice.sees(waiting, "succeeded")).site == "oslo"


@pytest.mark.parametrize(("site", "denies"), [("paris", False), ("rome", True)])
async def test_a_narrowed_token_looks_like_no_death_and_all_goes_on_when_it_is_mended(
    world: World, site: str, denies: bool
) -> None:
    alice = world.alice
    jobs = [(await alice.runs(work("1h", at=[site]))).id for _ in range(3)]
    ending = (await alice.runs(work("1s", at=[site]))).id
    await world.fault(site, "narrow-token", deny=denies)
    await site_is(alice, site, suspect=True)
    assert [(await alice.job(job)).state for job in jobs] == ["running"] * 3
    await world.fault(site, "clear")
    await site_is(alice, site, suspect=False, reachable=True)
    later = await alice.submit(work(at=[site]))
    for job in (ending, later):
        assert (await alice.sees(job, "succeeded")).attempt == 1
    for job in jobs:
        await alice.serai.cancel(job)
        ended = await alice.sees(job, "cancelled")
        assert (ended.raw["confirmed"], ended.attempt) == (True, 1)


async def test_a_site_that_collects_its_garbage_takes_nothing_from_anybody(world: World) -> None:
    alice = world.alice
    ended = await alice.submit(work(at=["spare"]))
    await alice.sees(ended, "succeeded")
    running = (await alice.runs(work("700ms", at=["spare"]))).id
    await world.fault("spare", "gc")
    assert (await alice.sees(running, "succeeded")).attempt == 1
    assert f"{ended}-001" not in world.at_site("spare"), "Nomad knows nothing of it any more"
    assert (await alice.job(ended)).state == "succeeded"
    assert (await alice.attempt(ended, 1))[-1] == "succeeded"


async def test_a_job_whose_end_nobody_saw_before_it_was_collected_has_vanished_and_runs_again(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1s", at=["vienna"]))).id
    await world.go_away("vienna")

    async def over() -> bool:
        return world.at_site("vienna").get(f"{job}-001") == "complete"

    await until(over)
    await world.fault("vienna", "gc")
    await world.come_back("vienna", forgetful=True)
    assert (await alice.sees(job, "succeeded")).attempt == 2
    assert (await alice.attempt(job, 1))[-1] == "lost"
    assert "vanished" in await alice.reasons(job)


async def test_what_runs_under_our_name_and_is_no_current_attempt_is_stopped(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["spare"]))).id
    async with httpx2.AsyncClient(base_url=world.agents["spare"].address, trust_env=False) as nomad:
        ours = (await nomad.get(f"/v1/job/{job}-001", params={"namespace": namespace_of(CLIMATE)})).json()
        stray = f"{job}-002"
        copy = {**ours, "ID": stray, "Name": stray, "Meta": {**ours["Meta"], "serai_attempt": "2"}}
        assert (await nomad.put("/v1/jobs", json={"Job": copy})).status_code == 200

    async def began() -> bool:
        return stray in world.at_site("spare")

    await until(began)
    await world.over_at("spare", stray)
    assert world.live_at("spare") == [f"{job}-001"]
    assert (await alice.job(job)).state == "running"
    assert (await alice.steps(job))[-1] == "running 1 spare"
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")
