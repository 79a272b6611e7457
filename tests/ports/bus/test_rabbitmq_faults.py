"""The RabbitMQ adapter when something breaks. One layer tries again: the caller, here `load.Flow`."""

import asyncio
import time
from dataclasses import replace

import pytest
from yarl import URL

from shared.adapters.rabbitmq import AmqpBus, declare
from shared.adapters.rabbitmq.throwaway import free_ports
from shared.errors import Misconfigured, Unavailable
from tests.ports.bus.broker import Broker
from tests.ports.bus.buses import (
    RUNG_S,
    RabbitUnderTest,
    a_rabbit,
    acked,
    ids,
    next_of,
    nothing_comes,
    some,
    until_depth,
)
from tests.ports.bus.load import flowing

pytestmark = pytest.mark.rabbitmq
WRITTEN_DOWN_S = 6.0
"""Until then a 3.10 may forget, when it is killed, where a new stream is (docs/rabbitmq.md)."""


async def test_a_broker_that_is_killed_while_messages_flow_loses_none(broker: Broker) -> None:
    async with a_rabbit(broker.url) as given:
        given.url = given.direct
        await given.reopen()
        async with flowing(given) as flow:
            await flow.lasts(WRITTEN_DOWN_S)
            await broker.process.kill()
            try:
                for look in (given.bus.ready(), AmqpBus.open(broker.url, access=given.access)):
                    with pytest.raises(Unavailable, match=f"127.0.0.1:{broker.process.port}"):
                        await look
            finally:
                await broker.process.restart()
            await flow.reaches(400)
            await given.bus.ready()
        report = flow.report()
    print(report)
    assert report["lost"] == 0 and report["interruptions"] > 0


async def test_connections_that_the_broker_closes_lose_nothing(broker: Broker) -> None:
    async with a_rabbit(broker.url) as given, flowing(given) as flow:
        await flow.reaches(200)
        await broker.process.ctl("close_all_connections", "maintenance")
        await flow.reaches(200)
    print(flow.report())
    assert flow.report()["lost"] == 0 and flow.report()["interruptions"] > 0


async def test_connections_that_are_cut_again_and_again_lose_nothing(rabbit: RabbitUnderTest) -> None:
    assert rabbit.proxy is not None
    async with flowing(rabbit) as flow:
        for _ in range(8):
            await flow.reaches(60)
            rabbit.proxy.cut()
    print(flow.report())
    assert flow.report()["lost"] == 0 and flow.report()["interruptions"] >= 8


async def test_a_broker_with_an_alarm_takes_nothing_but_lets_consumers_drain_it(broker: Broker) -> None:
    async with a_rabbit(broker.url) as given:
        await given.publish(1, 2)
        async with given.bus.consume(given.queue, prefetch=1) as deliveries:
            await broker.process.ctl("set_vm_memory_high_watermark", "0")
            try:
                started = time.monotonic()
                for _ in range(2):
                    with pytest.raises(Unavailable, match="alarm") as refused:
                        await given.publish(3)
                    assert refused.value.code == "bus_blocked"
                assert time.monotonic() - started < 10
                with pytest.raises(Unavailable, match="alarm"):
                    await given.bus.ready()
                assert await acked(deliveries, 2) == ids(1, 2)
            finally:
                await broker.process.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
            async with asyncio.timeout(10):
                while await _refused(given):
                    pass
            seen = await acked(deliveries, 1)
            while not await nothing_comes(deliveries):
                pass
        assert seen == ids(3)
        await given.bus.ready()


async def _refused(given: RabbitUnderTest) -> bool:
    try:
        await given.publish(3)
    except Unavailable:
        return True
    return False


async def test_a_message_that_kills_its_consumers_is_set_aside_and_hurts_only_itself(amqp_url: str) -> None:
    async with a_rabbit(amqp_url, delivery_limit=3) as given:
        await given.publish(*range(3))
        attempts = []
        while True:
            async with given.bus.consume(given.queue, prefetch=1) as deliveries:
                held = await next_of(deliveries)
                if held.message.id != "id-0":
                    break
                attempts.append(held.attempt)
                await given.crash()
        assert attempts == [1, 2, 3, 4]
        async with given.bus.consume(given.queue, prefetch=1) as deliveries:
            assert await acked(deliveries, 2) == ids(1, 2)
        (letter,) = await _letters(given)
        assert (letter.message, letter.reason) == (given.message(0), "broker: delivery_limit")
        await given.bus.replay_dead_letter(given.queue, letter.position)
        async with given.bus.consume(given.queue, prefetch=1) as deliveries:
            again = await next_of(deliveries)
        assert (again.message, again.attempt) == (given.message(0), 1)


async def _letters(given: RabbitUnderTest):  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while not (found := await given.bus.dead_letters(given.queue)):
            pass
    return found


async def test_a_broker_that_is_absent_at_the_start_is_named_and_used_when_it_is_there(rabbit: RabbitUnderTest) -> None:
    assert rabbit.proxy is not None
    (nobody,) = free_ports(1)
    with pytest.raises(Unavailable, match=f"RabbitMQ at 127.0.0.1:{nobody}"):
        await AmqpBus.open(f"amqp://guest:guest@127.0.0.1:{nobody}/", access=rabbit.access)
    rabbit.proxy.absent = True
    rabbit.proxy.cut()
    for call in (rabbit.bus.ready, lambda: rabbit.publish(1), lambda: rabbit.bus.depth(rabbit.queue)):
        with pytest.raises(Unavailable, match=f"RabbitMQ at 127.0.0.1:{rabbit.proxy.port}"):
            await call()
    rabbit.proxy.absent = False
    await rabbit.bus.ready()
    await rabbit.publish(1)


async def test_a_broker_that_went_silent_is_noticed_by_everybody_who_waits(amqp_url: str) -> None:
    async with a_rabbit(amqp_url, heartbeat="1") as given:
        assert given.proxy is not None
        await given.publish(1)
        async with given.bus.consume(given.queue, prefetch=2) as deliveries:
            await next_of(deliveries)
            stream = given.bus.read(given.log, after=None)
            await next_of(stream)
            given.proxy.silent = True
            consuming = asyncio.create_task(anext(deliveries))
            publishing = asyncio.create_task(given.publish(2))
            reading = asyncio.create_task(anext(stream))
            done, _ = await asyncio.wait([consuming, publishing, reading], timeout=20)
            assert len(done) == 3
            for task in done:
                assert isinstance(task.exception(), Unavailable)
            given.proxy.silent = False
            given.proxy.cut()
        await given.publish(2)
        async with given.bus.consume(given.queue, prefetch=2) as deliveries:
            assert (await acked(deliveries, 2))[-1] == "id-2"


async def test_a_message_with_nowhere_to_go_is_noticed_after_a_reconnect_too(rabbit: RabbitUnderTest) -> None:
    for _ in range(2):
        with pytest.raises(Misconfigured, match="bound"):
            await rabbit.publish(1, key="void.x")
        await rabbit.crash()


async def test_a_waiting_consumer_takes_over_when_the_active_one_dies(rabbit: RabbitUnderTest) -> None:
    queue = await rabbit.with_queue(single_active=True)
    direct = await AmqpBus.open(rabbit.direct, access=rabbit.access, ladder_s=(RUNG_S,))
    try:
        async with rabbit.bus.consume(queue, prefetch=2) as active, direct.consume(queue, prefetch=2) as waiting:
            await rabbit.publish(*range(4))
            assert await acked(active, 1) == ids(0)
            await some(active, 2)
            assert await nothing_comes(waiting)
            assert rabbit.proxy is not None
            rabbit.proxy.cut()
            assert await acked(waiting, 3) == ids(1, 2, 3)
            with pytest.raises(Unavailable):
                await next_of(active)
    finally:
        await direct.close()


async def test_declaring_again_changes_nothing_and_keeps_what_is_there(rabbit: RabbitUnderTest) -> None:
    await rabbit.publish(1)
    await asyncio.gather(*(rabbit.declare() for _ in range(3)))
    await until_depth(rabbit.bus, rabbit.queue, 1)
    other = replace(rabbit.queue, max_length=7)
    with pytest.raises(Misconfigured, match="max-length"):
        await declare(rabbit.direct, queues=(other,), streams=(), ladder_s=(RUNG_S,))
    async with rabbit.bus.consume(rabbit.queue, prefetch=1) as deliveries:
        assert await acked(deliveries, 1) == ids(1)


async def test_a_queue_that_somebody_removed_is_missed_and_used_again_when_it_is_declared(
    rabbit: RabbitUnderTest,
) -> None:
    async with rabbit.bus.consume(rabbit.queue, prefetch=1) as deliveries:
        waiting = asyncio.create_task(anext(deliveries))
        await rabbit.publish(1)
        assert (await waiting).message.id == "id-1"
        await rabbit.remove(rabbit.queue.name)
        with pytest.raises(Unavailable):
            await next_of(deliveries)
    with pytest.raises(Misconfigured, match=rf"{rabbit.queue.name}.*declare"):
        await rabbit.bus.ready()
    await rabbit.declare()
    await rabbit.bus.ready()
    await rabbit.publish(2)
    async with rabbit.bus.consume(rabbit.queue, prefetch=1) as deliveries:
        assert await acked(deliveries, 1) == ids(2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda url: url.with_password("guess"), "user name or password"),
        (lambda url: url.with_path("/nowhere"), "virtual host nowhere"),
    ],
)
async def test_credentials_that_are_wrong_are_told_apart_from_a_broker_that_is_away(
    rabbit: RabbitUnderTest,
    wrong,
    says: str,  # type: ignore[no-untyped-def]
) -> None:
    with pytest.raises(Misconfigured, match=says) as told:
        await AmqpBus.open(str(wrong(URL(rabbit.direct))), access=rabbit.access)
    assert "guess" not in told.value.what
