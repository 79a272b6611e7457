"""MessageBus: what is promised of consuming and settling."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from shared.contracts.routes import Queue
from shared.errors import Misconfigured, Unavailable
from tests.ports.bus.buses import RUNG_S, BusUnderTest, acked, ids, next_of, nothing_comes, some, until_depth
from tests.ports.bus.promises import FIRST_CRASH_COUNTS, GIVING_BACK_IS_FREE


async def test_no_more_than_prefetch_are_unsettled_at_a_time(given: BusUnderTest) -> None:
    await given.publish(*range(10))
    async with given.bus.consume(given.queue, prefetch=3) as deliveries:
        held = await some(deliveries, 3)
        assert [one.message.id for one in held] == ids(0, 1, 2)
        assert await nothing_comes(deliveries)
        await held[1].ack()
        assert (await next_of(deliveries)).message.id == "id-3"
        assert await nothing_comes(deliveries)


async def test_what_comes_while_one_waits_is_delivered(given: BusUnderTest) -> None:
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        waiting = asyncio.create_task(anext(deliveries))
        assert await nothing_comes(given.bus.read(given.log, after=None))
        await given.publish(1)
        assert (await waiting).message.id == "id-1"


async def test_an_acknowledged_message_never_comes_again(given: BusUnderTest) -> None:
    await given.publish(1, 2)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        await acked(deliveries, 1)
    await given.reopen()
    async with given.bus.consume(given.queue, prefetch=5) as deliveries:
        assert await acked(deliveries, 1) == ids(2)
        assert await nothing_comes(deliveries)
    await until_depth(given.bus, given.queue, 0)


async def test_a_retried_message_comes_again_not_too_early_and_others_overtake_it(given: BusUnderTest) -> None:
    await given.publish(1, 2)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        first = await next_of(deliveries)
        given_back = time.monotonic()
        await first.retry(after_s=RUNG_S)
        assert await acked(deliveries, 1) == ids(2)
        again = await next_of(deliveries)
        assert time.monotonic() - given_back >= RUNG_S * 0.95
        assert (again.message, first.attempt, again.attempt) == (first.message, 1, 2)
        await again.retry(after_s=0)
        assert (await next_of(deliveries)).attempt == 3


async def test_leaving_gives_the_unsettled_back_in_their_order(given: BusUnderTest) -> None:
    await given.publish(*range(6))
    async with given.bus.consume(given.queue, prefetch=4) as deliveries:
        held = await some(deliveries, 3)
        await held[1].ack()
    async with given.bus.consume(given.queue, prefetch=9) as deliveries:
        again = await some(deliveries, 5)
    assert [one.message.id for one in again] == ids(0, 2, 3, 4, 5)
    spent = 1 if given.keeps(GIVING_BACK_IS_FREE) else 2
    assert [one.attempt for one in again[:2]] == [spent, spent]
    assert again[-1].attempt == 1


async def test_a_settlement_after_leaving_is_refused_because_the_message_comes_again(given: BusUnderTest) -> None:
    await given.publish(1)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        late = await next_of(deliveries)
    with pytest.raises(Unavailable):
        await late.ack()
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        assert await acked(deliveries, 1) == ids(1)


async def test_settling_twice_is_a_mistake_of_the_program(given: BusUnderTest) -> None:
    await given.publish(1)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        delivery = await next_of(deliveries)
        await delivery.ack()
        with pytest.raises(RuntimeError, match="twice"):
            await delivery.retry(0)


async def test_what_a_crashed_consumer_held_comes_again_and_is_counted(given: BusUnderTest) -> None:
    await given.publish(1, 2)
    attempts = []
    for _ in range(4):
        async with given.bus.consume(given.queue, prefetch=1) as deliveries:
            held = await next_of(deliveries)
            attempts.append((held.message.id, held.attempt))
            await given.crash()
    if not given.keeps(FIRST_CRASH_COUNTS):
        assert attempts[1] in [("id-1", 1), ("id-1", 2)]
        attempts[1:] = [(name, attempt + attempts[0][1] + 1 - attempts[1][1]) for name, attempt in attempts[1:]]
    assert attempts == [("id-1", 1), ("id-1", 2), ("id-1", 3), ("id-1", 4)]
    async with given.bus.consume(given.queue, prefetch=2) as deliveries:
        other = (await some(deliveries, 2))[1]
    assert (other.message.id, other.attempt) == ("id-2", 1)


async def test_retries_and_crashes_are_counted_together(given: BusUnderTest) -> None:
    await given.publish(1)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        await (await next_of(deliveries)).retry(0)
        assert (await next_of(deliveries)).attempt == 2
    await given.reopen()
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        held = await next_of(deliveries)
        await given.crash()
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        assert (await next_of(deliveries)).attempt == held.attempt + 1


async def test_consumers_of_one_queue_share_its_messages(given: BusUnderTest) -> None:
    async with (
        given.bus.consume(given.queue, prefetch=5) as one,
        given.bus.consume(given.queue, prefetch=5) as another,
    ):
        await given.publish(*range(10))
        found = await acked(one, 5) + await acked(another, 5)
    assert sorted(found) == ids(*range(10))


async def test_of_consumers_that_take_turns_only_the_first_gets_anything_until_it_leaves(given: BusUnderTest) -> None:
    queue = await given.with_queue(single_active=True)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(given.bus.consume(queue, prefetch=2))
        async with given.bus.consume(queue, prefetch=2) as second:
            await given.publish(*range(4))
            assert await acked(first, 2) == ids(0, 1)
            assert (await next_of(first)).message.id == "id-2"
            assert await nothing_comes(second)
            await stack.aclose()
            assert await acked(second, 2) == ids(2, 3)


async def test_a_queue_that_is_not_there_is_our_mistake(given: BusUnderTest) -> None:
    with pytest.raises(Misconfigured):
        async with given.bus.consume(Queue(f"{given.prefix}.none", "x", ("#",)), prefetch=1) as deliveries:
            await next_of(deliveries)


async def test_depth_counts_what_waits_what_is_held_and_what_will_come_again(given: BusUnderTest) -> None:
    await given.publish(*range(4))
    await until_depth(given.bus, given.queue, 4)
    async with given.bus.consume(given.queue, prefetch=3) as deliveries:
        held = await some(deliveries, 3)
        await until_depth(given.bus, given.queue, 4)
        await held[0].ack()
        await held[1].dead_letter("no use")
        await held[2].retry(after_s=RUNG_S)
        await until_depth(given.bus, given.queue, 2)


async def test_consumers_and_publishers_of_a_closed_bus_are_told(given: BusUnderTest) -> None:
    closing = given.bus
    async with closing.consume(given.queue, prefetch=1) as deliveries:
        waiting = asyncio.create_task(anext(deliveries))
        reading = asyncio.create_task(anext(closing.read(given.log, after=None)))
        assert await nothing_comes(closing.read(given.log, after=None))
        await given.reopen()
        for task in (waiting, reading):
            with pytest.raises(Unavailable):
                await task
    with pytest.raises(Unavailable):
        await closing.publish([given.message(1)])
    with pytest.raises(Unavailable):
        await closing.ready()
    await given.publish(2)
