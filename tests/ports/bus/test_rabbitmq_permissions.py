"""What each service's user may do on a real broker: what its routes say, and nothing else."""

import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio
from yarl import URL

from shared.adapters.rabbitmq import AmqpBus, declare, topology
from shared.adapters.rabbitmq.permissions import (
    DEPLOY,
    all_permissions,
    commands,
    definitions,
    permissions,
    user_of,
)
from shared.contracts import routes
from shared.contracts.envelope import Message
from shared.contracts.routes import ACCESS, EVENT_LOG, SCHEDULER_COMMANDS, SCHEDULER_REPORTS
from shared.errors import Misconfigured, SeraiError
from tests.ports.bus.broker import Broker
from tests.ports.bus.buses import next_of

VHOST = "serai-permissions"
COMMAND = ("serai.commands", "job.submit")
JOB_EVENT = ("serai.events", "vo.training~example.job.running")
ATTEMPT_EVENT = ("serai.events", "vo.training~example.attempt.running")
SITE_EVENT = ("serai.events", "site.hilltop.reachable")
REPORT = ("serai.reports", "vo.training~example.attempt.running")
RETRY = ("serai.retry", "scheduler.commands")
DEAD = ("serai.dead", "scheduler.commands")
INTO_A_QUEUE = ("", "scheduler.commands")
ROUTES = (COMMAND, JOB_EVENT, ATTEMPT_EVENT, SITE_EVENT, REPORT, RETRY, DEAD, INTO_A_QUEUE)
QUEUES = (
    "scheduler.commands",
    "scheduler.reports",
    "events.log",
    "scheduler.commands.dead",
    "scheduler.commands.retry.5s",
)

MAY_PUBLISH = {
    "gateway": {COMMAND},
    "scheduler": {JOB_EVENT, RETRY, DEAD},
    "monitor": {ATTEMPT_EVENT, SITE_EVENT, REPORT},
    "operator": {RETRY, DEAD},
}
MAY_READ = {
    "gateway": {"events.log"},
    "scheduler": {"scheduler.commands", "scheduler.reports"},
    "monitor": set(),
    "operator": {"scheduler.commands.dead"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url_of(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The URL of a user on a virtual host with every user and the topology."""
    users = all_permissions()
    passwords = {one.user: secrets.token_hex(8) for one in users}
    file = Path(tmp_path_factory.mktemp("definitions")) / "definitions.json"
    file.write_text(json.dumps(definitions(VHOST, users, passwords, lambda: secrets.token_bytes(4))))
    await broker.process.ctl("import_definitions", str(file))

    def url(user: str) -> str:
        return str(URL(broker.url).with_user(user).with_password(passwords[user]).with_path(f"/{VHOST}"))

    await declare(url(DEPLOY))
    return url


def a_message(exchange: str, key: str) -> Message:
    return Message("id-1", "t", exchange, key, b"{}", "application/json")


async def allowed(work: Callable[[], Awaitable[object]]) -> bool:
    try:
        await work()
    except SeraiError as error:
        assert isinstance(error, Misconfigured) and "permit" in error.what, error.what
        return False
    return True


def test_every_service_on_the_bus_has_its_user() -> None:
    assert set(MAY_PUBLISH) == set(MAY_READ) == set(ACCESS)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("service", sorted(ACCESS))
async def test_a_service_publishes_what_its_routes_say_and_nothing_else(
    service: str, url_of: Callable[[str], str]
) -> None:
    bus = await AmqpBus.open(url_of(user_of(service)), access=ACCESS[service])
    try:
        found = {route for route in ROUTES if await allowed(lambda route=route: bus.publish([a_message(*route)]))}
    finally:
        await bus.close()
    assert found == MAY_PUBLISH[service]


@pytest.mark.rabbitmq
@pytest.mark.parametrize("service", sorted(ACCESS))
async def test_a_service_reads_what_its_routes_say_and_nothing_else(service: str, url_of: Callable[[str], str]) -> None:
    async with await aio_pika.connect(url_of(user_of(service)), timeout=5) as connection:
        found = {name for name in QUEUES if await _consumes(connection, name)}
    assert found == MAY_READ[service]


async def _consumes(connection: aio_pika.abc.AbstractConnection, name: str) -> bool:
    channel = await connection.channel()
    await channel.set_qos(1)
    try:
        queue = await channel.get_queue(name, ensure=False)
        await queue.consume(_ignore)
    except aio_pika.exceptions.ChannelClosed as error:
        assert "ACCESS_REFUSED" in str(error)
        return False
    await channel.close()
    return True


async def _ignore(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """It goes back when the channel closes."""


@pytest.mark.rabbitmq
@pytest.mark.parametrize("service", sorted(ACCESS))
async def test_a_service_makes_removes_and_binds_nothing(service: str, url_of: Callable[[str], str]) -> None:
    async with await aio_pika.connect(url_of(user_of(service)), timeout=5) as connection:
        for refused in (
            lambda channel: channel.declare_queue("mine"),
            lambda channel: channel.queue_delete("scheduler.commands"),
            lambda channel: channel.declare_exchange("mine"),
            lambda channel: _bind(channel),
        ):
            with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
                await refused(await connection.channel())


async def _bind(channel: aio_pika.abc.AbstractChannel) -> None:
    await (await channel.get_queue("events.log", ensure=False)).bind("serai.commands", "#")


@pytest.mark.rabbitmq
async def test_the_gateway_cannot_take_the_schedulers_commands(url_of: Callable[[str], str]) -> None:
    bus = await AmqpBus.open(url_of(user_of("gateway")), access=ACCESS["gateway"])
    try:
        with pytest.raises(Misconfigured, match=r"permit.*consume scheduler\.commands"):
            async with bus.consume(SCHEDULER_COMMANDS, prefetch=1):
                pass
        with pytest.raises(Misconfigured, match="permit"):
            await bus.dead_letters(SCHEDULER_COMMANDS)
    finally:
        await bus.close()


@pytest.mark.rabbitmq
async def test_the_services_users_suffice_for_a_messages_whole_way(url_of: Callable[[str], str]) -> None:
    buses = {name: await AmqpBus.open(url_of(user_of(name)), access=ACCESS[name]) for name in ACCESS}
    try:
        async with buses["scheduler"].consume(SCHEDULER_REPORTS, prefetch=9) as deliveries:
            await buses["monitor"].publish([a_message(*REPORT), a_message(*ATTEMPT_EVENT)])
            delivery = await next_of(deliveries)
            while delivery.message.routing_key != REPORT[1]:
                delivery = await next_of(deliveries)
            await delivery.dead_letter("on purpose")
            operator = buses["operator"]
            letter = (await operator.dead_letters(SCHEDULER_REPORTS))[-1]
            assert letter.reason == "on purpose"
            await operator.replay_dead_letter(SCHEDULER_REPORTS, letter.position)
            again = await next_of(deliveries)
            assert again.message == letter.message
            await again.retry(0)
        await next_of(buses["gateway"].read(EVENT_LOG, after=None))
    finally:
        for bus in buses.values():
            await bus.close()


@pytest.mark.fast
def test_commands_and_definitions_give_the_same_rights() -> None:
    users = all_permissions()
    made = definitions("v", users, {one.user: "secret" for one in users}, lambda: b"salt")
    lines = commands("v", users)
    assert lines[0] == ["add_vhost", "v"]
    assert [line[3:] for line in lines if line[0] == "set_permissions"] == [
        [one["user"], one["configure"], one["write"], one["read"]] for one in made["permissions"]
    ]
    assert [line[3:6] for line in lines if line[0] == "set_topic_permissions"] == [
        [one["user"], one["exchange"], one["write"]] for one in made["topic_permissions"]
    ]
    assert "secret" not in json.dumps(made)


@pytest.mark.fast
def test_no_right_is_given_about_an_exchange_before_it_is_made() -> None:
    """From 4.3.2 on RabbitMQ refuses topic permissions on an exchange that is not there."""
    users = all_permissions()
    made = definitions("v", users, {one.user: "secret" for one in users}, lambda: b"salt")
    assert {one["exchange"] for one in made["topic_permissions"]} == {one["name"] for one in made["exchanges"]}
    kinds = [line[0] == "set_topic_permissions" for line in commands("v", users)]
    assert any(kinds) and kinds == sorted(kinds)


@pytest.mark.fast
def test_patterns_stand_for_their_names_alone() -> None:
    scheduler = permissions("scheduler", ACCESS["scheduler"])
    assert scheduler.read == r"^(scheduler\.commands|scheduler\.reports)$"
    assert scheduler.configure == "^$"
    assert permissions("nobody", routes.Access()).write == "^$"
    assert topology.queues_of(ACCESS["operator"]) == ("scheduler.commands.dead", "scheduler.reports.dead")
