"""`serai-platform dead-letters` and `rabbitmq`, as an operator types them, on both buses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from shared.adapters.embedded_bus import EmbeddedBus
from shared.adapters.rabbitmq import AmqpBus, declare, topology
from shared.contracts.envelope import Message
from shared.contracts.routes import QUEUES, SCHEDULER_COMMANDS, STREAMS
from shared.ports import MessageBus
from tests.ports.bus.buses import DEADLINE_S, next_of, removed

GRANT = "eyJhbGciOiJFZERTQSJ9.very.secret"


def platform(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "AMQP" not in name}
    return subprocess.run(
        [sys.executable, "-m", "services", *words], env=kept | environment, capture_output=True, text=True,
        timeout=DEADLINE_S * 3, check=False,
    )  # fmt: skip


async def bury(bus: MessageBus, *numbers: int) -> None:
    for number in numbers:
        body = json.dumps({"job": number}).encode()
        await bus.publish(
            [Message(f"id-{number}", "eu.serai.job.submit.v1", "serai.commands", "job.submit", body, "application/json",
                     {"grant": GRANT})]
        )  # fmt: skip
    async with bus.consume(SCHEDULER_COMMANDS, prefetch=1) as deliveries:
        for number in numbers:
            await (await next_of(deliveries)).dead_letter(f"refused: number {number}")


@pytest_asyncio.fixture(loop_scope="session")
async def folder(tmp_path: Path) -> Path:
    """The data folder of a platform that does not run, with two dead letters."""
    bus = await EmbeddedBus.open(tmp_path / "bus.sqlite")
    await bury(bus, 1, 2)
    await bus.close()
    return tmp_path


@pytest.fixture(params=["folder", pytest.param("url", marks=pytest.mark.rabbitmq)])
def where(request: pytest.FixtureRequest) -> list[str]:
    """The option that names the bus."""
    if request.param == "folder":
        return ["--data", str(request.getfixturevalue("folder"))]
    return ["--amqp-url", request.getfixturevalue("dead_on_rabbitmq")]


@pytest_asyncio.fixture(loop_scope="session")
async def dead_on_rabbitmq(amqp_url: str):  # type: ignore[no-untyped-def]
    await declare(amqp_url)
    bus = await AmqpBus.open(amqp_url)
    await bury(bus, 1, 2)
    await bus.close()
    yield amqp_url
    for queue in QUEUES:
        await removed(amqp_url, queue.name, *(topology.rung_of(queue, wait_s) for wait_s in topology.LADDER_S))
        await removed(amqp_url, topology.dead_of(queue))
    await removed(amqp_url, *(stream.name for stream in STREAMS))


def test_letters_are_listed_shown_and_replayed(where: list[str]) -> None:
    listed = platform("dead-letters", "list", "--json", *where)
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(row["queue"], row["id"], row["reason"]) for row in rows] == [
        ("scheduler.commands", "id-1", "refused: number 1"),
        ("scheduler.commands", "id-2", "refused: number 2"),
    ]
    position = str(rows[1]["position"])
    shown = platform("dead-letters", "show", "scheduler.commands", position, *where)
    letter = json.loads(shown.stdout)
    assert (letter["body"], letter["routing_key"]) == ({"job": 2}, "job.submit")
    assert "very.secret" not in shown.stdout
    replayed = platform("dead-letters", "replay", "scheduler.commands", position, *where)
    assert (replayed.returncode, replayed.stdout) == (
        0, f"scheduler.commands {position}: eu.serai.job.submit.v1 id-2 is back in its queue\n"
    )  # fmt: skip
    left = platform("dead-letters", "list", "scheduler.commands", *where).stdout
    assert "id-1" in left and "id-2" not in left
    again = platform("dead-letters", "replay", "scheduler.commands", position, *where)
    assert again.returncode == 1
    assert f"no dead letter {position}; `serai-platform dead-letters list`" in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "scheduler.orders"], "there are: scheduler.commands, scheduler.reports"),
        (["list", "--data", "{tmp}/nothing"], "--data names the data folder"),
        (["replay", "scheduler.commands", "1", "--data", "{tmp}/nothing"], "--data FOLDER or --amqp-url URL"),
        (["list", "--amqp-url", "amqp://guest:hidden@127.0.0.1:1/"], "RabbitMQ at 127.0.0.1:1 does not answer"),
        (["list", "--amqp-url", "http://guest:hidden@h/"], "amqps://"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(tmp_path: Path, words: list[str], says: str) -> None:
    told = platform("dead-letters", *(word.format(tmp=tmp_path) for word in words))
    assert told.returncode in (1, 78)
    assert told.stderr.startswith("serai-platform: ") and says in told.stderr
    assert len(told.stderr.splitlines()) == 1 and "hidden" not in told.stderr


async def test_a_running_platform_is_looked_at_but_not_replayed_into(folder: Path) -> None:
    bus = await EmbeddedBus.open(folder / "bus.sqlite")
    try:
        assert "id-1" in platform("dead-letters", "list", "--data", str(folder)).stdout
        refused = platform("dead-letters", "replay", "scheduler.commands", "1", "--data", str(folder))
        assert refused.returncode == 78
        assert f"in use by process {os.getpid()}" in refused.stderr
    finally:
        await bus.close()


def test_an_administrator_gets_the_commands_and_the_definitions_of_all_users(tmp_path: Path) -> None:
    lines = platform("rabbitmq", "users", "--vhost", "jobs").stdout.splitlines()
    assert lines[0] == "rabbitmqctl add_vhost jobs"
    users = [line.removeprefix("rabbitmqctl add_user ") for line in lines if " add_user " in line]
    assert users == ["serai-deploy", "serai-gateway", "serai-scheduler", "serai-monitor", "serai-operator"]
    passwords = tmp_path / "passwords.yaml"
    passwords.write_text("".join(f"{user}: hidden\n" for user in users[:-1]))
    missing = platform("rabbitmq", "definitions", "--passwords", str(passwords))
    assert missing.returncode == 78 and "no password for serai-operator" in missing.stderr
    passwords.write_text("".join(f"{user}: hidden\n" for user in users))
    made = json.loads(platform("rabbitmq", "definitions", "--passwords", str(passwords)).stdout)
    assert [user["name"] for user in made["users"]] == users
