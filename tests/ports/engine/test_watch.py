"""EngineWatch: what is promised of the stream, listings, presence, logs and files."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

import pytest

from shared.engine import AllocationSeen, EvaluationSeen, Heartbeat, JobSeen, Line, LogChunk, Presence, Seen
from shared.errors import NotFound, Refused
from tests.ports.engine.site import DEADLINE_S, SMALL, SiteUnderTest, a_script, an_order, of


async def lines_from(site: SiteUnderTest, index: int, count: int) -> list[Line]:
    """The first lines of a subscription, behind its first heartbeat."""
    found: list[Line] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(site.watch.stream(index)) as stream:  # type: ignore[type-var]
        assert await anext(stream) == Heartbeat()
        async for item in stream:
            if isinstance(item, Line):
                found.append(item)
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


async def test_a_stream_begins_with_the_proof_of_life(site: SiteUnderTest) -> None:
    async with aclosing(site.watch.stream(0)) as stream:  # type: ignore[type-var]
        assert await anext(stream) == Heartbeat()


async def test_the_stream_tells_a_jobs_story_in_order(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    seen = await site.seen_until(lambda seen: any(job.status == "dead" for job in of(order, seen, JobSeen)))
    jobs, allocations = of(order, seen, JobSeen), of(order, seen, AllocationSeen)
    assert jobs[0].status == "pending"
    assert jobs[0].meta["serai_nonce"] == "n-1"
    assert [e.status for e in of(order, seen, EvaluationSeen)][-1] == "complete"
    assert allocations[0].client_status == "pending"
    assert allocations[-1].client_status == "complete"
    assert [a.modify_index for a in allocations] == sorted(a.modify_index for a in allocations)


async def test_a_resumed_stream_begins_with_the_line_it_is_given(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    last = (await site.dead(order)).modify_index
    (line,) = await lines_from(site, last, 1)
    assert line.index == last


async def test_a_register_is_two_lines_with_one_index_and_both_come_again(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    await site.ended(order)
    seen = await site.seen_until(lambda seen: bool(of(order, seen, EvaluationSeen)))
    index = of(order, seen, JobSeen)[0].modify_index
    lines = await lines_from(site, index, 2)
    assert [line.index for line in lines] == [index, index]
    assert [type(one) for line in lines for one in line.seen] == [JobSeen, EvaluationSeen]


async def test_an_index_from_the_future_gets_the_newest_line(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    last = (await site.dead(order)).modify_index
    (line,) = await lines_from(site, last + 1_000_000, 1)
    assert line.index < last + 1_000_000


async def test_the_listing_holds_what_is_there(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    end = await site.ended(order)
    listing = await site.watch.listing()
    (job,) = of(order, listing.jobs, JobSeen)
    (allocation,) = of(order, listing.allocations, AllocationSeen)
    assert job.meta["serai_nonce"] == "n-1"
    assert (allocation.id, allocation.tasks) == (end.id, end.tasks)
    assert listing.known_leader
    assert listing.index > 0


async def test_a_listing_of_many_pages_is_whole(site: SiteUnderTest) -> None:
    orders = [await site.submitted(an_order(metadata={"serai.mock": "run_for=0s"})) for _ in range(16)]
    listing = await site.watch.listing()
    names = [job.id for job in listing.jobs]
    assert {order.attempt.nomad_id for order in orders} <= set(names)
    assert len(names) == len(set(names))


async def test_nodes_come_with_what_they_have_and_what_strangers_use(site: SiteUnderTest) -> None:
    streamed = await _runs(site, "a-stranger")
    listing = await site.watch.listing()
    (node,) = listing.nodes
    (listed,) = _of_stranger(listing.allocations)
    await site.by_hand("DELETE", "/v1/job/a-stranger")
    ending = await site.seen_until(lambda seen: any(one.client_status == "complete" for one in _of_stranger(seen)))
    await site.by_hand("DELETE", "/v1/job/a-stranger?purge=true")
    assert (node.status, node.eligible, node.draining, node.datacenter) == ("ready", True, False, "dc1")
    assert node.capacity is not None
    assert (node.capacity.cpu_mhz, node.capacity.memory_mib) == (4000, 2048)
    assert {"raw_exec", "mock_driver"} <= set(node.capacity.drivers)
    assert {one.uses for one in (listed, *_of_stranger(streamed))} == {(300, 40, 200)}
    assert listed.node_id == node.id
    assert _of_stranger(ending)[-1].uses == (0, 0, 0)


async def test_a_purge_is_the_last_that_the_stream_tells_of_what_strangers_use(site: SiteUnderTest) -> None:
    """Its allocations are gone with it, without an event: whoever counts what they hold must know by the job."""
    if not await site.since(1, 11, 3):
        pytest.skip("deletions are seen")  # promises.py
    await _runs(site, "a-purged-stranger")
    await site.by_hand("DELETE", "/v1/job/a-purged-stranger?purge=true")
    seen = await site.seen_until(lambda seen: any(isinstance(one, JobSeen) and one.deleted
                                                  and one.id == "a-purged-stranger" for one in seen))  # fmt: skip
    listing = await site.watch.listing()
    assert _of_stranger(seen, "a-purged-stranger")[-1].client_status in ("pending", "running")
    assert _of_stranger(listing.allocations, "a-purged-stranger") == []


async def _runs(site: SiteUnderTest, name: str) -> list[Seen]:
    """A job of somebody else's; what the stream told until it had an allocation."""
    strange = {"Driver": "mock_driver", "Config": {"run_for": "60s"}, "Resources": {"CPU": 300, "MemoryMB": 40}}
    group = {"Name": "g", "EphemeralDisk": {"SizeMB": 200}, "Tasks": [{"Name": "t", **strange}]}
    job = {"ID": name, "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [group]}
    await site.by_hand("POST", "/v1/jobs", {"Job": job})
    return await site.seen_until(lambda seen: any(_of_stranger(seen, name)))


def _of_stranger(seen: Iterable[Seen], name: str = "a-stranger") -> list[AllocationSeen]:
    return [one for one in seen if isinstance(one, AllocationSeen) and one.job_id == name]


async def test_presence_is_proven_both_ways(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    assert await site.watch.presence(order.attempt.nomad_id, "default") is Presence.PRESENT
    assert await site.watch.presence(an_order().attempt.nomad_id, "default") is Presence.ABSENT


async def test_meta_and_allocations_of_a_job(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    await site.ended(order)
    meta = await site.watch.job_meta(order.attempt.nomad_id, "default")
    assert meta is not None
    assert meta["serai_vo"] == order.spec.vo
    (found,) = await site.watch.allocations(order.attempt.nomad_id, "default")
    assert found.client_status == "complete"
    assert await site.watch.job_meta(an_order().attempt.nomad_id, "default") is None
    assert await site.watch.allocations(an_order().attempt.nomad_id, "default") == []


async def test_logs_are_there_after_the_end_from_any_place(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(a_script("printf abcdefghij; printf err >&2")))
    assert await site.output(end) == b"abcdefghij"
    assert await site.output(end, "stderr") == b"err"
    assert await site.output(end, offset=7) == b"hij"
    assert await site.output(end, offset=99) == b""
    assert await site.output(end, offset=4, from_end=True) == b"ghij"
    assert await site.output(end, offset=0, from_end=True) == b""
    assert await site.output(end, offset=99, from_end=True) == b"abcdefghij"


async def test_offsets_count_the_bytes_of_long_logs(site: SiteUnderTest) -> None:
    end = await site.ended(
        await site.submitted(a_script("i=0; while [ $i -lt 3000 ]; do echo $i$i$i$i; i=$((i+1)); done"))
    )
    whole = await site.output(end)
    chunks = [c async for c in site.watch.logs(end.id, "main", "stdout", offset=1000)]
    assert b"".join(chunk.data for chunk in chunks) == whole[1000:]
    assert chunks[-1].offset == len(whole)
    tail = [c async for c in site.watch.logs(end.id, "main", "stdout", offset=10, from_end=True)]
    assert tail[-1].offset == len(whole)


async def test_a_followed_log_goes_on_while_the_task_writes_and_then_stays_alive(site: SiteUnderTest) -> None:
    order = await site.submitted(a_script("echo one; sleep 1; echo two"))
    running = await site.reached(order, "running", "complete")
    chunks: list[LogChunk] = []
    logs = site.watch.logs(running.id, "main", "stdout", follow=True)
    async with asyncio.timeout(DEADLINE_S), aclosing(logs) as following:  # type: ignore[type-var]
        async for chunk in following:
            chunks.append(chunk)
            if chunk == LogChunk(b"", 8):
                break
    assert b"".join(chunk.data for chunk in chunks) == b"one\ntwo\n"


async def test_there_are_no_logs_of_what_never_ran(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(an_order("/nowhere/at/all")))
    for allocation in (end.id, "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(NotFound):
            await anext(site.watch.logs(allocation, "main", "stdout"))


async def test_a_small_output_is_read_and_a_large_one_refused(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(a_script("mkdir out; printf 12345 > out/small; : > out/empty")))
    assert await site.watch.file(end.id, "main/local/out/small", 5) == b"12345"
    assert await site.watch.file(end.id, "main/local/out/empty", 5) == b""
    with pytest.raises(Refused) as refused:
        await site.watch.file(end.id, "main/local/out/small", 4)
    assert refused.value.code == "too_large"


async def test_what_is_no_file_of_the_allocation_is_not_found(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(an_order()))
    for path in ("main/local/none", "main/local", "../../../../../etc/hostname"):
        with pytest.raises(NotFound):
            await site.watch.file(end.id, path, 1000)


async def test_a_file_that_is_none_costs_nobody_a_wait(site: SiteUnderTest) -> None:
    """Nomad opens a pipe that it is asked about and never answers. Links are not followed: they may lead to one."""
    left = "mkfifo pipe; ln -s pipe link; ln -s pipe/x nowhere; : > folder; mkdir many; : > many/one"
    end = await site.ended(await site.submitted(a_script(left)))
    async with asyncio.timeout(5):
        for path in ("pipe", "link", "nowhere"):
            with pytest.raises(Refused) as refused:
                await site.file(end, path)
            assert refused.value.code == "no_plain_file"
        for path in ("pipe/x", "folder/x", "none/x", "many"):
            with pytest.raises(NotFound):
                await site.file(end, path)
        assert await site.file(end, "many/one") == b""


async def test_work_that_waits_for_room_runs_when_there_is_some(site: SiteUnderTest) -> None:
    most = SMALL | {"cpu_cores": 3.9}
    first = await site.submitted(an_order(metadata={"serai.mock": "run_for=1s"}, resources=most))
    second = await site.submitted(an_order(metadata={"serai.mock": "run_for=0s"}, resources=most))
    assert (await site.ended(second)).create_time > (await site.ended(first)).create_time
