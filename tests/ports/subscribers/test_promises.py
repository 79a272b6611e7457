"""What the port SubscriberBroker promises, whoever keeps it."""

import pytest

from shared.errors import NotFound
from tests.ports.subscribers.brokers import LENGTH, BrokerUnderTest, a_name, is_cut, letters


async def test_a_login_reads_its_queue_in_the_order_of_publishing(given: BrokerUnderTest) -> None:
    name = a_name()
    await given.broker.open(name, "secret")
    await given.broker.publish(name, letters(1, 3))
    await given.broker.publish(name, letters(4, 5))
    heard = await given.read(name, "secret", 5)
    assert heard == [(each.event_id, each.previous_id, each.body) for each in letters(1, 5)]


async def test_a_wrong_password_is_not_let_in(given: BrokerUnderTest) -> None:
    name, other = a_name(), a_name()
    await given.broker.open(name, "secret")
    await given.broker.open(other, "another")
    for login, password in ((name, "Secret"), (name, ""), (name, "another"), (a_name(), "secret")):
        with pytest.raises(PermissionError):
            await given.read(login, password, 1)


async def test_opening_again_keeps_the_queue_and_its_connections_and_changes_the_password(
    given: BrokerUnderTest,
) -> None:
    name = a_name()
    await given.broker.open(name, "first")
    listening = await given.listen(name, "first")
    await given.broker.open(name, "second")
    assert not listening.cut()
    with pytest.raises(PermissionError):
        await given.listen(name, "first")
    assert not (await given.listen(name, "second")).cut()


async def test_who_is_shut_out_is_cut_and_finds_the_queue_as_it_was_when_let_in_again(given: BrokerUnderTest) -> None:
    name = a_name()
    await given.broker.open(name, "secret")
    listening = await given.listen(name, "secret")
    await given.broker.publish(name, letters(1, 3))
    await given.broker.shut_out(name)
    assert await is_cut(listening)
    with pytest.raises(PermissionError):
        await given.listen(name, "secret")
    await given.broker.publish(name, letters(4, 4))
    await given.broker.open(name, "renewed")
    assert [heard[0] for heard in await given.read(name, "renewed", 4)] == ["e-1", "e-2", "e-3", "e-4"]


async def test_what_is_removed_is_gone_and_removing_it_again_is_harmless(given: BrokerUnderTest) -> None:
    name, stays = a_name(), a_name()
    await given.broker.open(name, "secret")
    await given.broker.open(stays, "secret")
    listening = await given.listen(name, "secret")
    for _ in range(2):
        await given.broker.remove(name)
        await given.broker.shut_out(name)
    assert await is_cut(listening)
    with pytest.raises(NotFound):
        await given.broker.publish(name, letters(1, 1))
    with pytest.raises(PermissionError):
        await given.listen(name, "secret")
    assert name not in await given.broker.seen() and stays in await given.broker.seen()


async def test_a_queue_beyond_its_length_drops_its_oldest_and_never_refuses(given: BrokerUnderTest) -> None:
    name, other = a_name(), a_name()
    await given.broker.open(name, "secret")
    await given.broker.open(other, "secret")
    await given.broker.publish(name, letters(1, LENGTH + 5))
    await given.broker.publish(other, letters(1, 1))
    assert len(await given.read(other, "secret", 1)) == 1
    heard = await given.read(name, "secret", LENGTH)
    assert [each[0] for each in heard] == [f"e-{n}" for n in range(6, LENGTH + 6)]
