"""MessageBus: what is promised of messages that are set aside."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.errors import NotFound
from tests.ports.bus.buses import BusUnderTest, acked, ids, next_of, nothing_comes, until_depth


async def bury(given: BusUnderTest, *numbers: int) -> None:
    await given.publish(*numbers)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        for number in numbers:
            await (await next_of(deliveries)).dead_letter(f"refused: number {number}")


async def test_a_dead_letter_is_listed_with_its_reason_and_never_delivered(given: BusUnderTest) -> None:
    await bury(given, 1)
    (letter,) = await given.bus.dead_letters(given.queue)
    assert (letter.queue, letter.reason, letter.message) == (given.queue.name, "refused: number 1", given.message(1))
    assert abs(datetime.now(UTC) - letter.at) < timedelta(seconds=30)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        assert await nothing_comes(deliveries)


async def test_dead_letters_are_listed_oldest_first_as_many_as_asked_for(given: BusUnderTest) -> None:
    await bury(given, *range(5))
    letters = await given.bus.dead_letters(given.queue, limit=3)
    assert [one.message.id for one in letters] == ids(0, 1, 2)
    assert [one.position for one in letters] == sorted({one.position for one in letters})


async def test_each_queue_has_its_own_dead_letters(given: BusUnderTest) -> None:
    more = await given.with_queue()
    await bury(given, 1)
    assert len(await given.bus.dead_letters(given.queue)) == 1
    assert list(await given.bus.dead_letters(more)) == []
    with pytest.raises(NotFound):
        await given.bus.replay_dead_letter(more, (await given.bus.dead_letters(given.queue))[0].position)


async def test_a_replayed_letter_is_delivered_once_more_as_if_new(given: BusUnderTest) -> None:
    await bury(given, 1, 2, 3)
    letters = await given.bus.dead_letters(given.queue)
    await given.bus.replay_dead_letter(given.queue, letters[1].position)
    assert [one.message.id for one in await given.bus.dead_letters(given.queue)] == ids(1, 3)
    await until_depth(given.bus, given.queue, 1)
    async with given.bus.consume(given.queue, prefetch=2) as deliveries:
        again = await next_of(deliveries)
        assert (again.message, again.attempt) == (given.message(2), 1)
        await again.ack()
        assert await nothing_comes(deliveries)
    with pytest.raises(NotFound):
        await given.bus.replay_dead_letter(given.queue, letters[1].position)


async def test_a_letter_that_was_replayed_may_die_again(given: BusUnderTest) -> None:
    await bury(given, 1)
    (letter,) = await given.bus.dead_letters(given.queue)
    await given.bus.replay_dead_letter(given.queue, letter.position)
    async with given.bus.consume(given.queue, prefetch=1) as deliveries:
        await (await next_of(deliveries)).dead_letter("again")
    (second,) = await given.bus.dead_letters(given.queue)
    assert (second.reason, second.position > letter.position) == ("again", True)


async def test_a_letter_that_is_not_there_cannot_be_replayed(given: BusUnderTest) -> None:
    with pytest.raises(NotFound, match=given.queue.name):
        await given.bus.replay_dead_letter(given.queue, 4711)


async def test_dead_letters_outlive_the_process_and_are_replayed_into_an_idle_queue(given: BusUnderTest) -> None:
    await bury(given, 1, 2)
    await given.reopen()
    letters = await given.bus.dead_letters(given.queue)
    assert [one.reason for one in letters] == ["refused: number 1", "refused: number 2"]
    for letter in letters:
        await given.bus.replay_dead_letter(given.queue, letter.position)
    async with given.bus.consume(given.queue, prefetch=5) as deliveries:
        assert await acked(deliveries, 2) == ids(1, 2)
        assert await nothing_comes(deliveries)
