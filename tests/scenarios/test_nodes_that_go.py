"""A site's node is lost, drained or too full while a job is there: what `on_lost` and the deadlines make of it."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from tests.scenarios.world import World, a_site, a_world, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("prague", "lyon", "bari", "madrid", "oslo", "paris", "rome", "spare")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A node may be away for half a second; every test has a site of its own, and `spare` takes what has to move."""
    sites = [a_site(name, cores=4 if name == "spare" else 2) for name in NAMES]
    folder = tmp_path_factory.mktemp("nodes")
    async with a_world(
        folder, *sites, scheduler={"node_grace_s": 0.5}, monitor={"relist_interval_s": 5, "probe_interval_s": 0.5}
    ) as up:
        yield up


async def test_a_lost_node_gives_its_job_up_after_the_grace_and_another_site_runs_it(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["prague", "spare"]))).id
    await world.fault("prague", "lose-node", after=0)

    async def moved() -> bool:
        now = await alice.job(job)
        return (now.site, now.state) == ("spare", "running")

    await until(moved)
    assert "node_lost" in await alice.reasons(job)
    assert "disconnected" in await alice.attempt(job, 1)
    assert (await alice.job(job)).attempt == 2
    await world.fault("prague", "return-node")
    await world.over_at("prague", job)
    assert world.live_at("spare") == [f"{job}-002"]
    assert (await alice.steps(job))[-1] == "running 2 spare"
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")


async def test_who_waits_for_a_lost_node_goes_on_where_it_was(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("2s", at=["lyon"], on_lost="wait"))).id
    await world.fault("lyon", "lose-node", after=0)

    async def away() -> bool:
        return (await alice.attempt(job, 1))[-1] == "disconnected"

    await until(away)
    assert (await alice.job(job)).state == "running"
    shown = (await alice.job(job)).raw["attempts"][0]
    assert shown["status"] == "disconnected"
    why = (await alice.why(job))["summary"]
    assert why.startswith("The node of the job at lyon is away since ")
    assert why.endswith("the job was last known to be running. The job waits for it, as it asked.")
    await world.fault("lyon", "return-node")
    ended = await alice.sees(job, "succeeded")
    assert ended.attempt == 1
    steps = await alice.since_running(job)
    assert steps[:2] == ["running", "disconnected"]
    assert steps[2:] in (["running", "succeeded"], ["succeeded"]), "a slow machine's node comes back after the end"


async def test_who_would_rather_fail_fails_when_the_grace_is_over(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["bari"], on_lost="fail"))).id
    await world.fault("bari", "lose-node", after=0)
    failed = await alice.sees(job, "failed")
    assert (failed.reason_code, failed.reason, failed.attempt) == ("node_lost", "The node of the attempt is gone.", 1)
    await world.fault("bari", "return-node")
    await world.over_at("bari", job)
    assert (await alice.steps(job))[-1] == "failed 1 bari"


async def test_a_drained_job_moves_to_another_site_and_it_costs_no_retry(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["madrid", "spare"]))).id
    await world.fault("madrid", "drain")

    async def moved() -> bool:
        now = await alice.job(job)
        return (now.site, now.state) == ("spare", "running")

    await until(moved)
    assert (await alice.attempt(job, 1))[-1] == "failed"
    assert await alice.reasons(job) == ["waiting_to_be_placed", "drained"]
    assert "The node was drained by its operator." in await alice.words(job)
    waiting = await alice.submit(work(at=["madrid"]))

    async def told() -> bool:
        return (await alice.verdicts(waiting)).get("madrid") == "not_observed"

    await until(told)
    assert "madrid has no usable node at the moment." in (await alice.why(waiting))["summary"]
    await world.fault("madrid", "undrain")
    assert (await alice.sees(waiting, "succeeded")).site == "madrid"
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")


async def test_an_attempt_that_cannot_start_in_a_full_site_goes_elsewhere_at_its_start_deadline(world: World) -> None:
    alice = world.alice
    await _fill(world, "oslo")
    job = await alice.submit(work("100ms", at=["oslo", "spare"], start_deadline=0.5))
    ended = await alice.sees(job, "succeeded")
    assert (ended.site, ended.attempt) == ("spare", 2)
    words = await alice.words(job)
    assert "The site had not started the attempt by its start_deadline; it was withdrawn." in words
    assert (await alice.attempt(job, 1))[0] == "pending"
    blocked = [e for e in await alice.timeline(job) if e.kind == "attempt.pending" and e.reason]
    assert blocked, "Nomad's own reason is told while it waits there"
    assert not [name for name in world.at_site("oslo") if name.startswith(job)], "it never ran there"


async def _fill(world: World, site: str) -> None:
    """Somebody else's work takes the whole site, in a way that only a listing shows."""
    task = {
        "Name": "main",
        "Driver": "mock_driver",
        "Config": {"run_for": "1h"},
        "Resources": {"CPU": 1990, "MemoryMB": 64},
    }
    job = {"ID": "theirs", "Name": "theirs", "Type": "batch", "Datacenters": ["dc1"], "Region": site,
           "TaskGroups": [{"Name": "main", "Count": 1, "Tasks": [task]}]}  # fmt: skip
    async with httpx2.AsyncClient(base_url=world.agents[site].address, trust_env=False) as client:
        answer = await client.put("/v1/jobs", json={"Job": job})
        assert answer.status_code == 200, answer.text

    async def runs() -> bool:
        return world.at_site(site).get("theirs") == "running"

    await until(runs)


async def test_max_runtime_is_kept_by_the_platform(world: World) -> None:
    alice = world.alice
    job = await alice.submit(work("1h", at=["spare"], max_runtime=0.4, retries={"attempts": 3}))
    failed = await alice.sees(job, "failed")
    assert (failed.reason_code, failed.attempt) == ("max_runtime_exceeded", 1)
    assert "The job ran longer than its max_runtime and was stopped." in await alice.words(job)
    await world.over_at("spare", job)


async def test_a_job_for_the_site_of_a_lost_node_alone_runs_again_there_and_only_once_at_a_time(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("1h", at=["paris"]))).id
    await world.fault("paris", "lose-node", after=0)

    async def waits() -> bool:
        return (await alice.why(job))["state"] == "queued" and bool((await alice.verdicts(job)).get("paris"))

    await until(waits)
    assert "paris has no usable node at the moment." in (await alice.why(job))["summary"]
    await world.fault("paris", "return-node")

    async def again() -> bool:
        now = await alice.job(job)
        return (now.attempt, now.state) == (2, "running")

    await until(again)

    async def alone() -> bool:
        return world.live_at("paris") == [f"{job}-002"]

    await until(alone)
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")


async def test_a_job_that_ends_before_the_deadline_of_a_drain_has_simply_succeeded(world: World) -> None:
    alice = world.alice
    job = (await alice.runs(work("500ms", at=["rome", "spare"]))).id
    await world.fault("rome", "drain", seconds=60)
    ended = await alice.sees(job, "succeeded")
    assert (ended.site, ended.attempt) == ("rome", 1)
