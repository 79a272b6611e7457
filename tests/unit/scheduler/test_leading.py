"""Which copy leads, and what it says of it."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.scheduler import tables
from services.scheduler.leading import LEASE, Leader
from shared.runtime.transactions import Transactions
from tests.builders import TestClock
from tests.pacing import pause
from tests.stores import open_store

pytestmark = pytest.mark.fast

LEASE_S = 0.03


async def test_a_copy_says_once_that_it_stands_by_and_that_it_leads_when_it_does(tmp_path: Path) -> None:
    """A leader whose store was away while another took the lease learns it from no refused write."""
    clock = TestClock()
    store = await open_store(tmp_path / "scheduler.sqlite", "services.scheduler.migrations", synchronous="OFF")
    leader = Leader(Transactions(store, tables.runtime, "scheduler", clock), "one", LEASE_S)
    other = await store.acquire_lease(LEASE, "two", 600, clock())
    assert other is not None
    leads = asyncio.Event()

    async def loop() -> None:
        leads.set()
        await asyncio.Event().wait()

    with capture_logs() as told:
        leading = asyncio.create_task(leader.lead([loop]))
        async with asyncio.timeout(20):
            while not told:
                await pause(LEASE_S)
        await pause(3 * LEASE_S)
        assert [line["event"] for line in told] == ["standing_by"]
        await store.release_lease(other)
        async with asyncio.timeout(20):
            await leads.wait()
        assert [line["event"] for line in told] == ["standing_by", "leading"]
    leading.cancel()
    await asyncio.wait([leading])
    await store.close()
