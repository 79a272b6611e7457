"""A reader outside on a real RabbitMQ: everything but reading its own queue is refused (attack rows B3, B4, B6)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from shared.adapters.rabbitmq import declare
from shared.contracts import routes
from shared.ports import QueueSeen
from tests.pacing import pause
from tests.ports.subscribers.brokers import RabbitUnderTest, a_name, letters

pytestmark = pytest.mark.rabbitmq
REFUSED = (aio_pika.exceptions.ChannelClosed, aio_pika.exceptions.ConnectionClosed, PermissionError)
Deed = Callable[[AbstractChannel, str], Awaitable[Any]]
BODY = aio_pika.Message(b"forged")


async def declares_a_queue(channel: AbstractChannel, other: str) -> None:
    await channel.declare_queue("sub.mine", durable=True)


async def declares_a_queue_that_dead_letters_into_ours(channel: AbstractChannel, other: str) -> None:
    arguments = {"x-dead-letter-exchange": routes.COMMANDS_EXCHANGE, "x-dead-letter-routing-key": "job.submit"}
    await channel.declare_queue("", exclusive=True, arguments=arguments)


async def declares_an_exchange(channel: AbstractChannel, other: str) -> None:
    await channel.declare_exchange("mine", "topic")


async def binds_its_queue(channel: AbstractChannel, other: str) -> None:
    queue = await channel.get_queue(other, ensure=False)
    await queue.bind("amq.topic", "#")


async def publishes_into_a_queue(channel: AbstractChannel, other: str) -> None:
    await channel.default_exchange.publish(BODY, other)


async def publishes_to_an_exchange(channel: AbstractChannel, other: str) -> None:
    exchange = await channel.get_exchange("amq.topic", ensure=False)
    await exchange.publish(BODY, "vo.x.job.succeeded")


async def reads_anothers_queue(channel: AbstractChannel, other: str) -> None:
    await (await channel.get_queue(other, ensure=False)).get(fail=False)


async def consumes_anothers_queue(channel: AbstractChannel, other: str) -> None:
    await (await channel.get_queue(other, ensure=False)).consume(_nothing)


async def purges_anothers_queue(channel: AbstractChannel, other: str) -> None:
    await (await channel.get_queue(other, ensure=False)).purge()


async def deletes_anothers_queue(channel: AbstractChannel, other: str) -> None:
    await (await channel.get_queue(other, ensure=False)).delete(if_unused=False, if_empty=False)


async def _nothing(message: object) -> None:
    """Takes nothing."""


DEEDS: list[Deed] = [
    declares_a_queue, declares_a_queue_that_dead_letters_into_ours, declares_an_exchange, binds_its_queue,
    publishes_into_a_queue, publishes_to_an_exchange, reads_anothers_queue, consumes_anothers_queue,
    purges_anothers_queue, deletes_anothers_queue,
]  # fmt: skip


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
async def test_b3_b6_a_reader_may_do_nothing_but_read_its_own_queue(rabbit: RabbitUnderTest, deed: Deed) -> None:
    mine, other = a_name(), a_name()
    await rabbit.broker.open(mine, "secret")
    await rabbit.broker.open(other, "another")
    await rabbit.broker.publish(other, letters(1, 2))
    channel = await (await rabbit.connect(mine, "secret")).channel()
    with pytest.raises(REFUSED, match="ACCESS_REFUSED"):
        async with asyncio.timeout(10):
            await deed(channel, other)
            await (await channel.get_queue(mine, ensure=False)).get(fail=False)  # a refusal of a publish comes late
    assert [each[2] for each in await rabbit.read(other, "another", 2)] == [b"1", b"2"]


@pytest.mark.parametrize("vhost", ["", "serai", "none"])
async def test_b3_no_other_virtual_host_is_open_to_it(rabbit: RabbitUnderTest, vhost: str) -> None:
    await declare(rabbit.process.url)
    mine = a_name()
    await rabbit.broker.open(mine, "secret")
    with pytest.raises(PermissionError):
        await rabbit.connect(mine, "secret", vhost)


async def test_b4_a_message_with_anothers_user_id_is_refused(rabbit: RabbitUnderTest) -> None:
    """The broker checks `user_id` against the login, also of who may publish."""
    url = rabbit.offer.subscribers_amqp_url
    mine = a_name()
    await rabbit.broker.open(mine, "secret")
    connection = await aio_pika.connect(url, timeout=5)
    try:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed, match="user_id"):
            await channel.default_exchange.publish(aio_pika.Message(b"forged", user_id="serai-scheduler"), mine)
    finally:
        await connection.close()


async def test_the_gateways_own_user_reads_no_queue_and_makes_no_others(rabbit: RabbitUnderTest) -> None:
    name = a_name()
    await rabbit.broker.open(name, "secret")
    connection = await aio_pika.connect(rabbit.offer.subscribers_amqp_url, timeout=5)
    try:
        for deed, target in ((reads_anothers_queue, name), (declares_an_exchange, name)):
            with pytest.raises(REFUSED, match="ACCESS_REFUSED"):
                await deed(await connection.channel(), target)
    finally:
        await connection.close()


async def test_a_login_has_no_management(rabbit: RabbitUnderTest) -> None:
    from shared.adapters.rabbitmq.management import Management
    from shared.errors import Misconfigured

    name = a_name()
    await rabbit.broker.open(name, "secret")
    host = rabbit.offer.subscribers_management_url.partition("@")[2]
    management = Management(f"http://{name}:secret@{host}")
    try:
        with pytest.raises(Misconfigured):
            await management.get("users")
    finally:
        await management.close()


async def test_one_reader_at_a_time_gets_letters_so_that_order_holds(rabbit: RabbitUnderTest) -> None:
    name = a_name()
    await rabbit.broker.open(name, "secret")
    first = await rabbit.listen(name, "secret")
    second = await rabbit.connect(name, "secret")
    channel = await second.channel()
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack()
        came.put_nowait(message.body)

    await (await channel.get_queue(name, ensure=False)).consume(keep)
    await rabbit.broker.publish(name, letters(1, 3))
    assert came.empty()
    await first.leave()
    async with asyncio.timeout(10):
        assert [await came.get() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_figures_are_right_within_the_lag_and_count_what_is_handed_out(rabbit: RabbitUnderTest) -> None:
    name = a_name()
    await rabbit.broker.open(name, "secret")
    await rabbit.broker.publish(name, letters(1, 5))
    await rabbit.listen(name, "secret")
    assert (await counted(rabbit, name, 5)).readers == 1


async def counted(rabbit: RabbitUnderTest, name: str, messages: int) -> QueueSeen:
    """The broker's figures, once they say that there are so many letters."""
    async with asyncio.timeout(rabbit.broker.lag_s + 10):
        while (seen := (await rabbit.broker.seen()).get(name)) is None or seen.messages != messages:
            await pause(0.1)
    return seen


async def test_what_was_confirmed_outlives_a_broker_that_is_killed(rabbit: RabbitUnderTest) -> None:
    name = a_name()
    await rabbit.broker.open(name, "secret")
    await rabbit.broker.publish(name, letters(1, 5))
    await counted(rabbit, name, 5)  # 3.10 may lose a quorum queue, if it is killed in the seconds after its making
    await rabbit.process.kill()
    await rabbit.process.restart()
    heard: list[bytes] = []
    async with asyncio.timeout(60):
        while not heard:  # a queue that is just being recovered lets its readers wait, and they come again
            with contextlib.suppress(TimeoutError, PermissionError, *REFUSED):
                heard = [each[2] for each in await rabbit.read(name, "secret", 5)]
    assert heard == [b"1", b"2", b"3", b"4", b"5"]
