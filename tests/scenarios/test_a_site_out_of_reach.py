"""Nobody answers at a site any more: what its jobs show, what `on_lost` makes of them, what follows when it is back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest_asyncio

from serai.values import Event
from services.embedded.sites import CLIMATE
from tests.scenarios.world import World, a_site, a_world, shell, site_is, until, work

SITES = (a_site("prague"), a_site("lyon", country="FR"))
BOTH = ["prague", "lyon"]
SHORT = {"site_grace_s": 0.5}


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A platform that gives a site up after half a second."""
    async with a_world(tmp_path, *SITES, scheduler=SHORT) as up:
        yield up


async def test_a_job_at_a_site_that_is_away_for_a_moment_is_shown_as_last_known_and_goes_on(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES) as world:
        alice = world.alice
        job = await alice.runs(work("4s", at=BOTH))
        await world.go_away("prague")
        await site_is(alice, "prague", reachable=False, health="critical")

        async def told() -> str:
            why = await alice.why(job.id)
            return str(why["summary"]) if "cannot be reached since" in why["summary"] else ""

        assert "the job was last known to be running" in await until(told)
        assert (await alice.job(job.id)).state == "running"
        elsewhere = await alice.submit(work(at=BOTH))
        assert (await alice.sees(elsewhere, "succeeded")).site == "lyon"
        receipt = next(e for e in await alice.timeline(elsewhere) if e.kind == "job.placed").data["receipt"]
        assert {verdict["site"]: verdict["code"] for verdict in receipt} == {
            "lyon": "fits", "prague": "site_unreachable",
        }  # fmt: skip
        await world.come_back("prague")
        ended = await alice.sees(job.id, "succeeded")
        assert (ended.site, ended.attempt) == ("prague", 1)
        await site_is(alice, "prague", reachable=True, health="passing")


async def test_its_vo_hears_that_a_site_is_away_and_that_it_is_back(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES) as world:
        job = await world.alice.runs(work("1h", at=["prague"]))
        start = await world.alice.mark()
        await world.go_away("prague")
        await site_is(world.alice, "prague", reachable=False)
        await world.come_back("prague")
        heard: list[str] = []
        facts = world.bob.serai.events(vos=[CLIMATE], after=start)
        async with asyncio.timeout(20), aclosing(facts) as told:  # type: ignore[type-var]
            async for fact in told:
                if isinstance(fact, Event) and fact.kind.startswith("site."):
                    heard.append(f"{fact.kind} {fact.site} {fact.vo}")
                    if fact.kind == "site.reachable":
                        break
        assert heard == [f"site.unreachable prague {CLIMATE}", f"site.reachable prague {CLIMATE}"]
        assert (await world.alice.job(job.id)).state == "running"


async def test_on_lost_retry_runs_it_elsewhere_and_what_was_left_behind_is_stopped(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=BOTH))).id
    await world.go_away("prague")

    async def moved() -> bool:
        now = await alice.job(job)
        return (now.site, now.state) == ("lyon", "running")

    await until(moved)
    assert (await alice.job(job)).attempt == 2
    assert world.live_at("prague") == [f"{job}-001"], "nobody could stop it there"
    assert "site_lost" in await alice.reasons(job)
    assert "The site of the attempt is gone." in await alice.words(job)
    await world.come_back("prague")
    await world.over_at("prague", job)
    assert (await alice.job(job)).state == "running"
    assert world.live_at("lyon") == [f"{job}-002"]
    steps = await alice.steps(job)
    assert steps.count("running 2 lyon") == 1 and steps[-1] == "running 2 lyon"


async def test_on_lost_fail_fails_it_and_stops_it_when_the_site_is_back(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["prague"], on_lost="fail"))).id
    await world.go_away("prague")
    failed = await alice.sees(job, "failed")
    assert (failed.reason_code, failed.attempt) == ("site_lost", 1)
    await world.come_back("prague")
    await world.over_at("prague", job)
    assert (await alice.steps(job))[-1] == "failed 1 prague", "a late outcome changes no final state"


async def test_on_lost_wait_waits_for_the_site_says_so_and_ends_well(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1s", at=BOTH, on_lost="wait"))).id
    await world.go_away("prague")

    async def told() -> bool:
        return "The job waits for it, as it asked." in (await alice.why(job))["summary"]

    await until(told)
    other = await alice.submit(work(at=BOTH))
    assert (await alice.sees(other, "succeeded")).site == "lyon"
    await world.come_back("prague")
    ended = await alice.sees(job, "succeeded")
    assert (ended.site, ended.attempt) == ("prague", 1)


async def test_a_job_on_its_way_to_a_site_that_is_gone_goes_to_another_and_never_runs_at_the_first(
    world: World,
) -> None:
    alice = world.alice
    await world.go_away("prague")
    job = await alice.submit(work("200ms", at=BOTH))
    ended = await alice.sees(job, "succeeded")
    assert ended.site == "lyon"
    await world.come_back("prague")
    await site_is(alice, "prague", reachable=True)
    after = await alice.submit(work(at=["prague"]))
    await alice.sees(after, "succeeded")
    assert [name for name in world.at_site("prague") if name.startswith(job)] == []
    assert "running 1 prague" not in await alice.steps(job)


async def test_a_job_for_that_site_alone_waits_with_the_reason_until_it_is_back(world: World) -> None:
    alice = world.alice
    await world.go_away("prague")
    await site_is(alice, "prague", reachable=False, health="critical")
    job = await alice.submit(work(at=["prague"]))

    async def told() -> bool:
        return "waiting_for_site" in await alice.reasons(job)

    await until(told)
    why = await alice.why(job)
    assert (why["state"], why["reason"]["code"]) == ("queued", "waiting_for_site")
    assert "prague cannot be reached at the moment." in why["summary"]
    await world.come_back("prague")
    assert (await alice.sees(job, "succeeded")).site == "prague"


async def test_an_agent_that_restarts_finds_its_tasks_again(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, mock=False) as world:
        alice = world.alice
        script = "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after"
        job = await alice.runs(shell(script, placement={"sites": {"allow": ["prague"]}}))
        await world.restart("prague")
        world.folder(await alice.job(job.id)).joinpath("go").touch()
        assert (await alice.sees(job.id, "succeeded")).attempt == 1
        log = b"".join([chunk async for chunk in alice.serai.logs(job.id)])
        assert log == b"before\nafter\n"
        assert await alice.since_running(job.id) == ["running", "succeeded"]


async def test_a_site_that_answers_nothing_but_errors_is_as_good_as_away(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=BOTH))).id
    await world.fault("prague", "error-500", seconds=3600)

    async def moved() -> bool:
        now = await alice.job(job)
        return (now.site, now.state) == ("lyon", "running")

    await until(moved)
    assert "site_lost" in await alice.reasons(job)
    await world.fault("prague", "clear")
    await world.over_at("prague", job)
    assert world.live_at("lyon") == [f"{job}-002"]


async def test_a_job_that_had_no_allocation_yet_when_its_site_went_away_runs_elsewhere(world: World) -> None:
    alice = world.alice
    await world.fault("prague", "lose-node", after=0)
    job = await alice.submit(work(at=BOTH, start_deadline=0.3))
    await world.go_away("prague")
    assert (await alice.sees(job, "succeeded")).site == "lyon"
    await world.come_back("prague")
    await world.over_at("prague", job)


async def test_what_a_job_left_behind_is_there_when_its_site_is_not(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, mock=False, monitor={"log_patience_s": 0.3}) as world:
        alice, there = world.alice, {"sites": {"allow": ["prague"]}}
        script = "echo kept | tee result"
        ended = await alice.submit(shell(script, outputs=[{"name": "result", "path": "result"}], placement=there))
        await alice.sees(ended, "succeeded")
        assert await alice.serai.output(ended, "result") == b"kept\n"
        running = (await alice.runs(shell("echo begun; exec sleep 600", placement=there))).id
        await world.go_away("prague")
        await site_is(alice, "prague", reachable=False)
        assert b"".join([chunk async for chunk in alice.serai.logs(ended)]) == b"kept\n"
        assert await alice.serai.output(ended, "result") == b"kept\n"
        log = await alice.http.get(f"/v1/jobs/{running}/logs")
        assert (log.status_code, log.json()["code"]) == (503, "unavailable")
        assert log.headers["retry-after"] and "prague" in log.json()["detail"]
        await world.come_back("prague")
        await site_is(alice, "prague", reachable=True)
        assert (await alice.http.get(f"/v1/jobs/{running}/logs")).text == "begun\n"


async def test_the_late_success_of_an_attempt_that_was_given_up_is_told_and_changes_nothing(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1s", at=BOTH))).id
    await world.go_away("prague")
    ended = await alice.sees(job, "succeeded")
    assert (ended.site, ended.attempt) == ("lyon", 2)
    await world.come_back("prague")

    async def told() -> bool:
        return (await alice.attempt(job, 1))[-1] in ("succeeded", "stopped")

    await until(told, "how attempt 1 ended")
    now = await alice.job(job)
    assert (now.state, now.site, now.attempt) == ("succeeded", "lyon", 2)
    assert (await alice.steps(job))[-1] == "succeeded 2 lyon"
