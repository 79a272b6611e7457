"""MessageBus: what is promised of streams."""

import pytest

from shared.contracts.routes import Stream
from shared.errors import Misconfigured, Unavailable
from tests.ports.bus.buses import BusUnderTest, acked, ids, next_of, nothing_comes

MANY = 700
"""More than any adapter reads at a time."""


async def test_a_reader_gets_everything_in_order_and_offsets_that_grow(given: BusUnderTest) -> None:
    await given.publish(*range(MANY))
    stream = given.bus.read(given.log, after=None)
    found = [await next_of(stream) for _ in range(MANY)]
    assert [message.id for _, message in found] == ids(*range(MANY))
    offsets = [offset for offset, _ in found]
    assert offsets == sorted(set(offsets))


async def test_a_reader_goes_on_behind_the_offset_that_it_kept(given: BusUnderTest) -> None:
    await given.publish(*range(20))
    stream = given.bus.read(given.log, after=None)
    kept = [await next_of(stream) for _ in range(8)][-1][0]
    for _ in range(2):
        again = given.bus.read(given.log, after=kept)
        assert [(await next_of(again))[1].id for _ in range(12)] == ids(*range(8, 20))
        await given.reopen()


async def test_a_reader_waits_at_the_end_for_more(given: BusUnderTest) -> None:
    await given.publish(1)
    stream = given.bus.read(given.log, after=None)
    offset, _ = await next_of(stream)
    behind = given.bus.read(given.log, after=offset)
    await given.publish(2)
    assert (await next_of(stream))[1].id == (await next_of(behind))[1].id == "id-2"
    await given.publish(3)
    assert (await next_of(stream))[1].id == (await next_of(behind))[1].id == "id-3"


async def test_a_stream_that_ends_before_what_was_read_is_not_waited_on_in_silence(given: BusUnderTest) -> None:
    await given.publish(1, 2)
    with pytest.raises(Unavailable, match="made anew") as told:
        await next_of(given.bus.read(given.log, after=4711))
    assert told.value.code == "stream_too_short"


async def test_what_queues_settle_stays_in_the_stream(given: BusUnderTest) -> None:
    await given.publish(1, 2)
    async with given.bus.consume(given.queue, prefetch=2) as deliveries:
        await acked(deliveries, 2)
    await given.reopen()
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(2)] == ids(1, 2)


async def test_a_stream_takes_only_what_is_bound_to_it(given: BusUnderTest) -> None:
    await given.with_queue()
    await given.publish(1, key="work.of.many")
    await given.publish(2, key="note.it")
    stream = given.bus.read(given.log, after=None)
    assert (await next_of(stream))[1].id == "id-2"
    assert await nothing_comes(stream)


async def test_a_stream_that_is_not_there_is_our_mistake(given: BusUnderTest) -> None:
    with pytest.raises(Misconfigured):
        await next_of(given.bus.read(Stream(f"{given.prefix}.none", "x"), after=None))
