"""One suite, two adapters: `given` is a SubscriberBroker under test. One RabbitMQ serves the whole session."""

import inspect
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shared.adapters.rabbitmq import throwaway
from shared.adapters.rabbitmq.throwaway import ThrowAway
from tests.ports.subscribers.brokers import BrokerUnderTest, MemoryUnderTest, RabbitUnderTest

LOOP = "session"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The broker lives in the session's loop, and with it whoever asks it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope=LOOP), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope=LOOP)
async def process() -> AsyncIterator[ThrowAway]:
    """A RabbitMQ with its management plugin, that may be killed."""
    if throwaway.installed() is None:
        pytest.skip("no RabbitMQ here: 'apt-get install rabbitmq-server'")
    with tempfile.TemporaryDirectory(prefix="serai-rabbitmq-") as folder:
        started = await ThrowAway.start(Path(folder), management=True)
        try:
            yield started
        finally:
            await started.stop()


@pytest_asyncio.fixture(loop_scope=LOOP)
async def rabbit(process: ThrowAway) -> AsyncIterator[RabbitUnderTest]:
    found = await RabbitUnderTest.start(process)
    try:
        yield found
    finally:
        await found.clean()


@pytest.fixture
def memory() -> MemoryUnderTest:
    return MemoryUnderTest()


@pytest.fixture(
    params=[
        pytest.param("memory", marks=[pytest.mark.fast]),
        pytest.param("rabbit", marks=[pytest.mark.rabbitmq], id="rabbitmq"),
    ]
)
def given(request: pytest.FixtureRequest) -> BrokerUnderTest:
    found: BrokerUnderTest = request.getfixturevalue(request.param)
    return found
