"""Histories of event streams: hearing, resuming, gaps, filters, and how a stream ends."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.gateway import event_log
from services.gateway.changes import Changes
from services.gateway.projection import Holes
from shared.contracts.events import JobPlaced, JobSucceeded, SiteObserved, SiteReachable, SiteUnreachable
from shared.runtime.clock import micros
from shared.runtime.questions import Questions
from shared.runtime.service import drain
from shared.site import SiteCapacity
from tests.builders import NOON, VO
from tests.unit.gateway.world import OTHER_VO, World, a_world, job_event, queued, restarted

pytestmark = pytest.mark.fast


async def test_a_jobs_stream_tells_everything_from_the_beginning_and_ends_with_the_job(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id))
    async with world.stream(f"/v1/jobs/{job_id}/events") as frames:
        first = await frames.next()
        assert (first.event, first.data["data"]["job_id"]) == ("job.queued", job_id)
        await world.tell(job_event(JobPlaced, job_id, 2, attempt=1, site="prague"), job_event(JobSucceeded, job_id, 3))
        assert [(await frames.next()).event for _ in range(2)] == ["job.placed", "job.succeeded"]
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "final"})
        assert await frames.ended()


async def test_a_reader_resumes_behind_the_last_event_it_had_and_hears_nothing_twice(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id))
    async with world.stream(f"/v1/jobs/{job_id}/events") as frames:
        last_id = (await frames.next()).id
    await world.tell(job_event(JobPlaced, job_id, 2, attempt=1, site="prague"), job_event(JobSucceeded, job_id, 3))
    async with world.stream(f"/v1/jobs/{job_id}/events", **{"Last-Event-ID": last_id}) as frames:
        assert (await frames.next()).event == "job.placed"
        final = await frames.next()
    over = await world.http.get(f"/v1/jobs/{job_id}/events", headers=world.as_("alice", **{"Last-Event-ID": final.id}))
    assert (over.status_code, over.content) == (204, b"")


async def test_the_stream_of_a_job_that_ended_is_told_to_who_has_not_heard_it(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id), job_event(JobSucceeded, job_id, 2))
    async with world.stream(f"/v1/jobs/{job_id}/events") as frames:
        assert [(await frames.next()).event for _ in range(3)] == ["job.queued", "job.succeeded", "end"]


async def test_all_events_begin_now_and_reach_whoever_may_hear_them(world: World) -> None:
    old, new = await world.submit(), await world.submit()
    await world.tell(queued(old))
    async with (
        world.stream("/v1/events") as hers,
        world.stream("/v1/events", "bob") as his,
        world.stream("/v1/events", "carol") as managers,
    ):
        bobs = await world.submit("bob")
        await world.tell(queued(new), queued(bobs))
        assert (await hers.next()).data["data"]["job_id"] == new
        assert (await his.next()).data["data"]["job_id"] == bobs
        heard = [(await managers.next()).data["data"]["job_id"] for _ in range(2)]
        assert heard == [new, bobs]


async def test_a_reader_that_is_cut_off_before_its_first_event_misses_nothing(world: World) -> None:
    job_id = await world.submit()
    async with world.http.stream("GET", "/v1/events", headers=world.as_("alice")) as answer:
        opening = (await anext(answer.aiter_raw())).decode()
    await world.tell(queued(job_id))
    place = opening.partition("id: ")[2].strip()
    async with world.stream("/v1/events", **{"Last-Event-ID": place}) as frames:
        assert (await frames.next()).data["data"]["job_id"] == job_id


async def test_filters_choose_by_state_label_and_vo(world: World) -> None:
    plain, labelled = await world.submit(), await world.submit(labels={"run": "7"})
    async with (
        world.stream("/v1/events?label=run:7") as by_label,
        world.stream("/v1/events?state=placed") as by_state,
        world.stream(f"/v1/events?vo={VO}") as by_vo,
    ):
        await world.tell(queued(plain), queued(labelled), job_event(JobPlaced, plain, 2, attempt=1, site="prague"))
        assert (await by_label.next()).data["data"]["job_id"] == labelled
        assert (await by_state.next()).event == "job.placed"
        assert (await by_vo.next()).data["data"]["job_id"] == plain
    foreign = await world.http.get(f"/v1/events?vo={OTHER_VO}", headers=world.as_("alice"))
    assert foreign.status_code == 403


async def test_a_slow_reader_gets_from_the_store_what_memory_has_forgotten(world: World) -> None:
    ids = [await world.submit() for _ in range(3)]
    await world.tell(queued(ids[0]))
    async with world.stream(f"/v1/jobs/{ids[0]}/events") as frames:
        first = await frames.next()
    await world.tell(queued(ids[1]), queued(ids[2]))
    epoch = first.id.split("-")[0]
    async with world.stream(f"/v1/events?after={epoch}-0") as frames:
        assert [(await frames.next()).data["data"]["job_id"] for _ in range(3)] == ids


@pytest.fixture
async def forgetful(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, log_retention_s=60.0) as world:
        yield world


async def test_a_position_that_is_not_kept_any_more_gets_an_explicit_gap(forgetful: World) -> None:
    world, ids = forgetful, []
    for _ in range(3):
        ids.append(await forgetful.submit())
        await world.tell(queued(ids[-1]))
        world.clock.forward(1)
    await world.store.transact(lambda connection: event_log.forget(connection, micros(NOON + timedelta(seconds=2)), 9))
    epoch = (await world.store.read(event_log.state)).epoch
    async with world.stream("/v1/events", **{"Last-Event-ID": f"{epoch}-1"}) as frames:
        gap = await frames.next()
        assert (gap.event, gap.data["reason"], gap.id) == ("gap", "too_old", f"{epoch}-2")
        assert (await frames.next()).data["data"]["job_id"] == ids[2]


async def test_an_id_of_another_log_gets_an_explicit_gap(world: World) -> None:
    job_id = await world.submit()
    async with world.stream("/v1/events", **{"Last-Event-ID": "abcdef-17"}) as frames:
        gap = await frames.next()
        assert (gap.event, gap.data["reason"]) == ("gap", "other_log")
        await world.tell(queued(job_id))
        assert (await frames.next()).event == "job.queued"
    bad = await world.http.get("/v1/events", headers=world.as_("alice", **{"Last-Event-ID": "seven"}))
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_cursor")


async def test_a_stream_ends_with_its_token(world: World) -> None:
    job_id = await world.submit()
    async with world.stream("/v1/events") as frames:
        world.clock.forward(3601)
        await world.tell(queued(job_id))
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "token_expired"})


async def test_a_stream_ends_when_its_token_is_revoked(world: World) -> None:
    job_id = await world.submit()
    async with world.stream("/v1/events") as frames:
        del world.auth.contexts["alice"]
        world.clock.forward(61)
        await world.tell(queued(job_id))
        end = await frames.next()
        assert (end.event, end.data) == ("end", {"reason": "unauthenticated"})


async def test_a_quiet_stream_has_heartbeats_from_which_it_can_resume(tmp_path: Path) -> None:
    async with a_world(tmp_path, heartbeat_s=0.05) as world:
        job_id = await world.submit("bob")
        async with world.stream("/v1/events") as frames:
            await world.tell(queued(job_id))
            world.clock.forward(1)
            beat = await frames.next(comments=True)
            while beat.id.endswith("-0"):
                world.clock.forward(1)
                beat = await frames.next(comments=True)
            assert (beat.comment, beat.id.split("-")[1]) == ("heartbeat", "1")


async def test_streams_are_limited_and_closing_the_service_ends_them(tmp_path: Path) -> None:
    async with a_world(tmp_path, stream_limit=1) as world:
        job_id = await world.submit()
        async with world.stream("/v1/events") as frames:
            for more in ("/v1/events", f"/v1/jobs/{job_id}/logs?follow=true"):
                assert (await world.http.get(more, headers=world.as_("alice"))).status_code == 503
            await drain([world.service])
            assert await frames.ended()


async def test_a_sites_condition_is_told_to_its_vo_and_to_operators_and_figures_to_nobody(world: World) -> None:
    async with world.stream("/v1/events") as hers, world.stream("/v1/events", "oscar") as operators:
        await world.tell(
            SiteObserved(site="prague", occurrence=1, capacity=SiteCapacity()),
            SiteUnreachable(site="prague", occurrence=2, since=NOON),
            SiteUnreachable(site="prague", occurrence=2, since=NOON, vo=VO),
            SiteReachable(site="prague", occurrence=3, vo=OTHER_VO),
        )
        heard = await hers.next()
        assert (heard.event, heard.data["data"]["vo"]) == ("site.unreachable", VO)
        assert (await operators.next()).data["data"]["vo"] is None


async def test_two_copies_of_the_gateway_tell_each_fact_once_and_wake_their_own_readers(tmp_path: Path) -> None:
    async with (
        a_world(tmp_path) as one,
        restarted(tmp_path, one.auth, one.owners, one.bus, one.clock, shared_store=one.store) as two,
    ):
        job_id = await one.submit()
        path = f"/v1/jobs/{job_id}"
        waiting = [
            asyncio.create_task(each.http.get(path, headers=each.as_("alice", Prefer="wait=30"))) for each in (one, two)
        ]
        async with one.stream(f"{path}/events") as first, two.stream(f"{path}/events") as second:
            await one.tell(queued(job_id), job_event(JobSucceeded, job_id, 2))
            heard = [[await frames.next() for _ in range(3)] for frames in (first, second)]
        assert [frame.event for frame in heard[0]] == ["job.queued", "job.succeeded", "end"]
        assert [frame.id for frame in heard[0]] == [frame.id for frame in heard[1]]
        assert all(answer.json()["version"] > 1 for answer in await asyncio.wait_for(asyncio.gather(*waiting), 5))
        assert (await one.store.read(event_log.state)).head == 2


async def test_what_another_copy_filled_into_the_log_wakes_this_ones_readers_too(world: World) -> None:
    """A hole is filled from its owner, not from the bus: nothing comes to the other copies by themselves."""
    job_id = await world.submit()
    await world.tell(queued(job_id))
    here = Changes()
    here.publish(1, (), ())
    nobody = Questions("http://nobody", "nobody", "service-token")
    holes = Holes(world.store, nobody, nobody, here, world.clock, look_again_s=0.02)
    looking = asyncio.create_task(holes.run())
    waiting = asyncio.create_task(here.beyond(1, 5))
    await world.tell(job_event(JobSucceeded, job_id, 2))
    assert await waiting
    assert (here.head, here.after(1, 10)) == (2, None), "the entries themselves are in the store"
    looking.cancel()
