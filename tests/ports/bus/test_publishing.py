"""MessageBus: what is promised of publishing."""

import asyncio
import itertools

import pytest

from shared.errors import Misconfigured, Unavailable
from tests.ports.bus.buses import BusUnderTest, acked, ids, next_of, nothing_comes


async def test_a_message_arrives_as_it_was(given: BusUnderTest) -> None:
    message = given.message(1, body=bytes(range(256)) * 4096)
    plain = type(message)("id-2", "t", message.exchange, "work.two", b"", "text/plain", {"grant": "a.b-c", "wörd": "é"})
    await given.bus.publish([message, plain])
    async with given.bus.consume(given.queue, prefetch=2) as deliveries:
        assert [(await next_of(deliveries)).message for _ in range(2)] == [message, plain]


async def test_a_message_comes_to_everything_that_is_bound_to_its_key(given: BusUnderTest) -> None:
    more = await given.with_queue()
    await given.publish(1)
    await given.publish(2, key="work.of.many")
    await given.publish(3, key="note.it")
    async with given.bus.consume(given.queue, prefetch=9) as deliveries:
        assert await acked(deliveries, 1) == ids(1)
        assert await nothing_comes(deliveries)
    async with given.bus.consume(more, prefetch=9) as deliveries:
        assert await acked(deliveries, 2) == ids(1, 2)
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(2)] == ids(1, 3)


async def test_a_batch_keeps_its_order_and_nothing_is_doubled(given: BusUnderTest) -> None:
    count = 600
    bodies = [b"x" * (40_000 if number % 7 == 0 else number) for number in range(count)]
    await given.bus.publish([given.message(number, body=body) for number, body in enumerate(bodies)])
    async with given.bus.consume(given.queue, prefetch=64) as deliveries:
        assert await acked(deliveries, count) == ids(*range(count))
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(count)] == ids(*range(count))


async def test_batches_published_at_the_same_time_come_in_the_order_of_the_calls(given: BusUnderTest) -> None:
    batches = [range(start, start + 100) for start in range(0, 800, 100)]
    await asyncio.gather(*(given.publish(*batch) for batch in batches))
    async with given.bus.consume(given.queue, prefetch=64) as deliveries:
        assert await acked(deliveries, 800) == ids(*range(800))
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(800)] == ids(*range(800))


@pytest.mark.parametrize("key", ["void.x", "work"])
async def test_a_message_that_has_nowhere_to_go_is_our_mistake(given: BusUnderTest, key: str) -> None:
    with pytest.raises(Misconfigured, match=r"bound"):
        await given.publish(1, key=key)
    await given.publish(2)


async def test_an_exchange_that_is_not_there_is_our_mistake(given: BusUnderTest) -> None:
    stray = given.message(1)
    nowhere = type(stray)(stray.id, stray.type, f"{given.prefix}.nowhere", "work.one", b"", "text/plain")
    with pytest.raises(Misconfigured):
        await given.bus.publish([nowhere])
    await given.publish(2)


async def test_one_message_with_nowhere_to_go_is_not_taken_for_another_with_its_id(given: BusUnderTest) -> None:
    async def lost() -> None:
        with pytest.raises(Misconfigured):
            await given.publish(1, key="void.x")

    for _ in range(20):
        await asyncio.gather(given.publish(1), lost(), given.publish(1))


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(given: BusUnderTest) -> None:
    small = await given.with_queue(max_length=5)
    refused = None
    for number in itertools.count():
        try:
            await given.publish(number, key="work.of.many")
        except Unavailable as error:
            refused = error
            break
        assert number < 50, "a queue for 5 messages takes any number"
    assert refused is not None and refused.code == "queue_full"
    async with given.bus.consume(small, prefetch=1) as deliveries:
        await acked(deliveries, number)
    await given.publish(number, key="work.of.many")


async def test_publishing_nothing_does_nothing(given: BusUnderTest) -> None:
    await given.bus.publish([])
    assert await given.bus.depth(given.queue) == 0


async def test_a_bus_that_can_be_used_is_ready(given: BusUnderTest) -> None:
    await given.bus.ready()
