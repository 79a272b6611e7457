"""The RabbitMQ adapter over TLS, and what it says about addresses that cannot work."""

import asyncio

import pytest

from shared.adapters.rabbitmq import AmqpBus, declare
from shared.adapters.rabbitmq.addresses import address
from shared.errors import Misconfigured
from tests.ports.bus.broker import Broker
from tests.ports.bus.buses import RabbitUnderTest, acked, ids


@pytest.mark.rabbitmq
async def test_messages_travel_over_tls(broker: Broker) -> None:
    given = RabbitUnderTest(broker.tls_url(cafile=str(broker.ca)))
    await given.open()
    try:
        await given.publish(1, 2)
        async with given.bus.consume(given.queue, prefetch=2) as deliveries:
            assert await acked(deliveries, 2) == ids(1, 2)
    finally:
        given.direct = broker.url
        await given.clean()


@pytest.mark.rabbitmq
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_broker_that_we_cannot_trust_gets_nothing(broker: Broker, host: str) -> None:
    wrong = broker.tls_url(host, cafile=str(broker.stranger if host == "localhost" else broker.ca))
    for url in (wrong, broker.tls_url(host)):
        with pytest.raises(Misconfigured, match=r"certificate that we do not trust.*cafile"):
            await AmqpBus.open(url)
        with pytest.raises(Misconfigured, match="certificate"):
            await declare(url)


@pytest.mark.rabbitmq
async def test_plain_words_at_a_tls_port_end_soon(broker: Broker) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(Exception, match=f"RabbitMQ at 127.0.0.1:{broker.tls_port}"):
            await AmqpBus.open(f"amqp://guest:guest@127.0.0.1:{broker.tls_port}/")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("amqps://u:hidden@h/?no_verify_ssl=1", "no_verify_ssl"),
        ("amqps://u:hidden@h/?cafile=/does/not/exist.pem", "/does/not/exist.pem"),
        ("amqp://u:hidden@h/?cafile=/etc/ca.pem", "amqps://"),
        ("http://u:hidden@h/", "begins with 'http'"),
        ("rabbit", "amqp://user:password@host"),
        ("amqp://u:hidden@h:port/", "cannot be read"),
        ("", "amqp://user:password@host"),
    ],
)
def test_an_address_that_cannot_work_is_told_without_its_password(wrong: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as told:
        address(wrong)
    assert "hidden" not in told.value.what


@pytest.mark.fast
def test_an_address_is_named_without_credentials() -> None:
    assert address("amqp://u:hidden@broker.example/jobs").where == "RabbitMQ at broker.example:5672 (virtual host jobs)"
    assert address("amqp://u:hidden@broker.example").where == "RabbitMQ at broker.example:5672"
