"""Logs and outputs: live while an attempt lives, kept when it has ended, whatever the site does afterwards."""

import asyncio

import pytest

from services.monitor import kept_store, store
from shared.contracts.events import AttemptRunning, AttemptSucceeded, SiteObserved
from shared.contracts.questions import EventsAnswer, OutputsAnswer
from shared.errors import NotFound, Refused, Unavailable
from tests.builders import job_id
from tests.unit.monitor.builders import ALLOCATION, allocation_seen, an_attempt, ended, job_seen, meta_of, started
from tests.unit.monitor.world import Running, World, a_grant

pytestmark = pytest.mark.fast

ONE = an_attempt()
JOB = f"/internal/jobs/{ONE.job_id}"
OUTPUTS = {"counts": "out/counts.txt", "model": "model.bin", "nothing": "nothing"}


async def runs(world: World) -> None:
    cluster = world.cluster
    cluster.say(job_seen(ONE, 1, "running", meta=meta_of(ONE, outputs=OUTPUTS)))
    cluster.say(allocation_seen(ONE, 2, "running", tasks=(started(),)))
    await world.ear.hears(AttemptRunning)


async def succeeds(world: World) -> None:
    at = world.cluster.index + 1
    world.cluster.say(allocation_seen(ONE, at, "complete", tasks=(ended(),)), job_seen(ONE, at, "dead"))
    await world.ear.hears(AttemptSucceeded)


async def goes_away(world: World) -> None:
    """From here on it answers nothing but its stream; not before it was listed, which would have to be done again."""
    await world.ear.hears(SiteObserved)
    world.cluster.wrong = Unavailable("away")


async def is_kept(running: Running) -> None:
    await running.until(lambda connection: not kept_store.is_owed(connection, ONE.job_id))


async def log(running: Running, grant: str = "good", **params: object) -> bytes:
    return await running.ask.fetch(f"{JOB}/logs", params=params, read_grant=grant)


async def test_the_end_of_each_log_and_the_declared_outputs_are_kept(world: World) -> None:
    world.cluster.write(ALLOCATION, b"0123456789")
    world.cluster.write(ALLOCATION, b"oh\n", "stderr")
    world.cluster.files[ALLOCATION, "main/local/out/counts.txt"] = b"a 1\n"
    world.cluster.files[ALLOCATION, "main/local/model.bin"] = b"x" * 101
    async with world.monitor(log_bytes=4, output_bytes=100) as running:
        await runs(world)
        await succeeds(world)
        await is_kept(running)
        world.cluster.log.clear()
        world.cluster.files.clear()
        assert await log(running) == b"6789"
        assert await log(running, tail=2) == b"89"
        assert await log(running, offset=8) == b"89"
        assert await log(running, stream="stderr", attempt=1) == b"oh\n"
        told = await running.ask.ask("GET", f"{JOB}/outputs", OutputsAnswer, read_grant="good")
        assert {output.name: (output.size, output.problem) for output in told.outputs} == {
            "counts": (4, None), "model": (0, "too_large"), "nothing": (0, "missing"),
        }  # fmt: skip
        assert await running.ask.fetch(f"{JOB}/outputs/counts", read_grant="good") == b"a 1\n"
        with pytest.raises(NotFound, match="too_large"):
            await running.ask.fetch(f"{JOB}/outputs/model", read_grant="good")


async def test_what_is_owed_survives_the_monitor_and_a_site_that_is_away(world: World) -> None:
    world.cluster.write(ALLOCATION, b"hello\n")
    async with world.monitor() as running:
        await runs(world)
        await goes_away(world)
        await succeeds(world)
    async with world.monitor(settle_s=0) as running:
        assert await running.store.read(lambda connection: kept_store.is_owed(connection, ONE.job_id))
        with pytest.raises(Unavailable):
            await running.ask.fetch(f"{JOB}/outputs/counts", read_grant="good")
    world.cluster.wrong = None
    world.clock.forward(3600)
    world.grants["good"] = a_grant()
    async with world.monitor() as running:
        await is_kept(running)
        assert await log(running) == b"hello\n"


async def test_a_site_that_stays_away_is_given_up_and_the_outputs_say_so(world: World) -> None:
    async with world.monitor(keep_for_s=0.5) as running:
        await runs(world)
        await goes_away(world)
        await succeeds(world)
        await is_kept(running)
        told = await running.ask.ask("GET", f"{JOB}/outputs", OutputsAnswer, read_grant="good")
    assert {output.problem for output in told.outputs} == {"unreadable"}


async def test_a_log_is_read_live_while_the_attempt_runs(world: World) -> None:
    async with world.monitor() as running:
        await runs(world)
        assert await log(running) == b""
        world.cluster.write(ALLOCATION, b"one\ntwo\n")
        assert await log(running) == b"one\ntwo\n"
        assert await log(running, tail=4) == b"two\n"
        assert await log(running, offset=6) == b"o\n"


async def test_a_followed_log_grows_and_ends_with_the_attempt(world: World) -> None:
    async with world.monitor() as running:
        await runs(world)
        world.cluster.write(ALLOCATION, b"one\n")
        heard = bytearray()
        async with asyncio.timeout(20):
            async for piece in running.ask.stream(f"{JOB}/logs", params={"follow": True}, read_grant="good"):
                heard += piece
                if heard == b"one\n":
                    world.cluster.write(ALLOCATION, b"two\n")
                if heard == b"one\ntwo\n":
                    world.cluster.write(ALLOCATION, b"three\n")
                    await succeeds(world)
    assert heard == b"one\ntwo\nthree\n"


async def test_the_last_words_of_a_followed_log_come_from_what_is_kept_where_the_site_is_slow(world: World) -> None:
    async with world.monitor() as running:
        await runs(world)
        world.cluster.write(ALLOCATION, b"first\n")
        heard = bytearray()
        async with asyncio.timeout(20):
            async for piece in running.ask.stream(f"{JOB}/logs", params={"follow": True}, read_grant="good"):
                heard += piece
                if heard == b"first\n":
                    world.cluster.may_follow.clear()
                    world.cluster.log[ALLOCATION, "stdout"] += b"last\n"
                    await succeeds(world)
    assert heard == b"first\nlast\n"


async def test_a_log_can_be_followed_before_anything_has_started(world: World) -> None:
    async with world.monitor() as running:
        world.cluster.say(job_seen(ONE, 1, meta=meta_of(ONE)))
        await world.ear.until(lambda events: any(getattr(e, "kind", "") == "attempt.pending" for e in events))
        following = asyncio.create_task(_followed(running))
        await runs(world)
        world.cluster.write(ALLOCATION, b"hello\n")
        await succeeds(world)
        async with asyncio.timeout(20):
            assert await following == b"hello\n"


async def _followed(running: Running) -> bytes:
    pieces = running.ask.stream(f"{JOB}/logs", params={"follow": True}, read_grant="good")
    return b"".join([piece async for piece in pieces])


async def test_a_service_that_moves_is_followed_to_its_new_allocation(world: World) -> None:
    async with world.monitor() as running:
        cluster = world.cluster
        cluster.say(job_seen(ONE, 1, "running", type="service"))
        cluster.say(allocation_seen(ONE, 2, "running", tasks=(started(),)))
        await world.ear.hears(AttemptRunning)
        cluster.write(ALLOCATION, b"here\n")
        cluster.write("b", b"there\n")
        heard = b""
        async with asyncio.timeout(20):
            async for piece in running.ask.stream(f"{JOB}/logs", params={"follow": True}, read_grant="good"):
                heard += piece
                if heard == b"here\n":
                    old = allocation_seen(ONE, 3, "complete", desired_status="stop", next_allocation="b")
                    cluster.say(old, allocation_seen(ONE, 3, "running", id="b", create_index=3, tasks=(started(),)))
                if heard == b"here\nthere\n":
                    break


async def test_events_fill_the_hole_of_a_reader(world: World) -> None:
    async with world.monitor() as running:
        await runs(world)
        await succeeds(world)
        params = {"after": 1, "attempt": 1}
        told = await running.ask.ask("GET", f"{JOB}/events", EventsAnswer, params=params)
    assert [event["type"] for event in told.events] == ["eu.serai.attempt.running.v1", "eu.serai.attempt.succeeded.v1"]


@pytest.mark.parametrize("path", ["logs", "outputs", "outputs/counts"])
async def test_logs_and_outputs_are_for_who_may_read_logs_in_the_vo(world: World, path: str) -> None:
    world.grants |= {"viewer": a_grant(["job.view_vo"]), "other": a_grant(vo="vo.bio.example")}
    async with world.monitor() as running:
        await runs(world)
        for grant, refusal in (("viewer", NotFound), ("other", NotFound), ("forged", Refused), ("", Refused)):
            with pytest.raises(refusal):
                await running.ask.fetch(f"{JOB}/{path}", read_grant=grant)


async def test_what_is_not_there_is_not_found(world: World) -> None:
    async with world.monitor() as running:
        await runs(world)
        for path in (f"/internal/jobs/{job_id(9)}/logs", f"{JOB}/logs?attempt=2", f"{JOB}/outputs/other"):
            with pytest.raises(NotFound):
                await running.ask.fetch(path, read_grant="good")
        for wrong in ("stream=both", "offset=-1", "tail=3&offset=2"):
            with pytest.raises(Refused):
                await running.ask.fetch(f"{JOB}/logs?{wrong}", read_grant="good")


async def test_what_is_past_its_retention_is_forgotten(world: World) -> None:
    world.cluster.write(ALLOCATION, b"hello\n")
    async with world.monitor() as running:
        await runs(world)
        await succeeds(world)
        await is_kept(running)
    world.clock.forward(366 * 86_400)
    world.cluster.forget(ONE.nomad_id)
    world.cluster.prune(0)
    async with world.monitor() as running:
        await running.until(lambda connection: store.record_of(connection, ONE.job_id) is None)
        assert await running.store.read(lambda connection: kept_store.kept_log(connection, ONE, "stdout")) is None
        assert (await running.ask.ask("GET", f"{JOB}/events", EventsAnswer, params={"attempt": 1})).events == ()
