"""One suite, two adapters: `bus` is a message bus under test. One broker serves the whole session."""

import inspect
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shared.adapters.rabbitmq import throwaway
from tests.ports.bus.broker import Broker, own_broker
from tests.ports.bus.buses import BusUnderTest, EmbeddedUnderTest, RabbitUnderTest, a_rabbit

LOOP = "session"
ABSENT = "no RabbitMQ here: 'apt-get install rabbitmq-server', or set AMQP_URL to one that runs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The broker lives in the session's loop, and with it whoever starts, stops and asks it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope=LOOP), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope=LOOP)
async def broker() -> AsyncIterator[Broker]:
    """A broker of our own, that may be killed."""
    if throwaway.installed() is None:
        pytest.skip("no RabbitMQ to be killed here: 'apt-get install rabbitmq-server'")
    with tempfile.TemporaryDirectory(prefix="serai-rabbitmq-") as folder:
        async with own_broker(Path(folder)) as started:
            yield started


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    if url := os.environ.get("AMQP_URL"):
        return url
    if throwaway.installed() is None:
        pytest.skip(ABSENT)
    found: Broker = request.getfixturevalue("broker")
    return found.url


@pytest_asyncio.fixture(loop_scope=LOOP)
async def rabbit(amqp_url: str) -> AsyncIterator[RabbitUnderTest]:
    async with a_rabbit(amqp_url) as found:
        yield found


@pytest_asyncio.fixture(loop_scope=LOOP)
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedUnderTest]:
    found = EmbeddedUnderTest(tmp_path)
    await found.open()
    try:
        yield found
    finally:
        await found.clean()


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=[pytest.mark.fast]),
        pytest.param("rabbit", marks=[pytest.mark.rabbitmq], id="rabbitmq"),
    ]
)
def given(request: pytest.FixtureRequest) -> BusUnderTest:
    found: BusUnderTest = request.getfixturevalue(request.param)
    return found
