"""MessageBus: what is promised of a process that ends, in order or not."""

from tests.ports.bus.buses import RUNG_S, BusUnderTest, acked, ids, next_of, nothing_comes, some, until_depth


async def test_everything_is_there_when_the_bus_is_opened_again(given: BusUnderTest) -> None:
    await given.publish(*range(5))
    async with given.bus.consume(given.queue, prefetch=5) as deliveries:
        acknowledged, dead, retried, *_ = await some(deliveries, 5)
        await acknowledged.ack()
        await dead.dead_letter("no use")
        await retried.retry(after_s=RUNG_S)
        await given.reopen()
    await until_depth(given.bus, given.queue, 3)
    assert [one.message.id for one in await given.bus.dead_letters(given.queue)] == ids(1)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        assert sorted(await acked(deliveries, 3)) == ids(2, 3, 4)
        assert await nothing_comes(deliveries)
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(5)] == ids(*range(5))


async def test_what_publish_returned_for_outlives_a_crash(given: BusUnderTest) -> None:
    await given.publish(*range(300))
    await given.crash()
    async with given.bus.consume(given.queue, prefetch=64) as deliveries:
        assert await acked(deliveries, 300) == ids(*range(300))
    stream = given.bus.read(given.log, after=None)
    assert [(await next_of(stream))[1].id for _ in range(300)] == ids(*range(300))


async def test_a_message_that_waits_for_its_retry_keeps_waiting_over_a_crash(given: BusUnderTest) -> None:
    await given.publish(1)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        await (await next_of(deliveries)).retry(after_s=RUNG_S)
        await given.crash()
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        again = await next_of(deliveries)
    assert (again.message.id, again.attempt) == ("id-1", 2)
