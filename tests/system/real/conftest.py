"""One platform for all of this folder: its start takes longer than most of what is tried on it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.system.real.whole import Whole, whole


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    """Two copies of each service on PostgreSQL, RabbitMQ, two Consul datacenters and three sites."""
    async with whole(tmp_path_factory.mktemp("real")) as made:
        yield made
