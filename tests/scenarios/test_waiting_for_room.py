"""Jobs that wait: for room, for their turn, for a site that would take them; and what they are told meanwhile."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.scenarios.world import World, a_job, a_site, a_world, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with a_world(tmp_path_factory.mktemp("room"), a_site("prague"), a_site("lyon", country="FR")) as up:
        yield up


def whole(run_for: str, site: str, **fields: object) -> dict[str, object]:
    """A job that takes a whole site."""
    return work(run_for, at=[site]) | {"resources": {"cpu": 2, "memory": 64, "disk": 10}} | fields


async def test_a_job_that_finds_its_sites_full_is_told_so_and_placed_when_room_is_made(world: World) -> None:
    alice = world.alice
    first = (await alice.runs(whole("1h", "prague"))).id
    job = await alice.submit(whole("0s", "prague"))

    async def told() -> bool:
        return "waiting_for_room" in await alice.reasons(job)

    await until(told)
    why = await alice.why(job)
    assert (why["state"], why["position"]) == ("queued", 0)
    assert why["summary"] == "Every site that could run the job is full at the moment."
    verdict = next(each for each in why["verdicts"] if each["site"] == "prague")
    assert (verdict["code"], verdict["asked"], verdict["free"]) == ("cpu_busy", 2000, 0)
    assert (await alice.site("prague"))["cores_free"] == 0
    await alice.serai.cancel(first)
    assert (await alice.sees(job, "succeeded")).site == "prague"
    assert (await alice.reasons(job)).count("waiting_for_room") == 1, "told once, not at every look"


async def test_the_more_important_job_goes_first_and_explain_tells_the_place_in_the_queue(world: World) -> None:
    alice = world.alice
    first = (await alice.runs(whole("1h", "prague"))).id
    plain = await alice.submit(whole("100ms", "prague"))
    await alice.sees(plain, "queued")
    urgent = await alice.submit(whole("100ms", "prague", priority=90))
    await alice.sees(urgent, "queued")
    assert [(await alice.why(job))["position"] for job in (urgent, plain)] == [0, 1]
    await alice.serai.cancel(first)
    for job in (urgent, plain):
        await alice.sees(job, "succeeded")
    began = {job: (await alice.timeline(job))[-1].time for job in (urgent, plain)}
    assert began[urgent] < began[plain]


async def test_one_big_job_that_waits_holds_up_no_small_one(world: World) -> None:
    alice = world.alice
    small = (await alice.runs(work("1h", at=["lyon"]))).id
    big = await alice.submit(whole("0s", "lyon"))
    await alice.sees(big, "queued")
    other = await alice.submit(work(at=["lyon"]))
    assert (await alice.sees(other, "succeeded")).site == "lyon"
    assert (await alice.job(big)).state == "queued"
    await alice.serai.cancel(small)
    await alice.sees(big, "succeeded")


async def test_a_job_that_every_site_refuses_as_it_is_written_fails_with_their_words(world: World) -> None:
    alice = world.alice
    job = await alice.submit(a_job(metadata={"serai.mock": "nonsense=1"}))
    failed = await alice.sees(job, "failed")
    assert failed.reason_code == "refused_by_site"
    assert "'nonsense=1' is not NAME=VALUE" in (failed.reason or "")
    assert failed.attempt == 2, "each site was asked"


async def test_a_job_that_asks_for_too_much_is_told_what_to_change_by_the_names_of_its_own_file(world: World) -> None:
    ask = world.alice.serai.dry_run
    large = await ask(a_job(resources={"memory": "1TiB"}))
    assert {verdict["code"] for verdict in large["verdicts"]} == {"memory_too_small"}
    assert "the largest node of" in large["summary"] and "Advice: lower resources.memory." in large["summary"]
    wide = await ask(a_job(resources={"cpu": 64}))
    assert {verdict["advice"] for verdict in wide["verdicts"]} == {"lower resources.cpu"}
    nowhere = await ask(a_job(placement={"sites": {"deny": ["prague"]}, "countries": {"deny": ["FR"]}}))
    assert {verdict["site"]: verdict["advice"] for verdict in nowhere["verdicts"]} == {
        "prague": "change placement.sites.allow or placement.sites.deny",
        "lyon": "change placement.countries.allow or placement.countries.deny",
    }
