"""How long it takes until another copy leads, when the leader is gone without a word or goes in order."""

import asyncio
import time

import pytest
from pydantic import SecretStr

from services.monitor.settings import MonitorSettings
from services.scheduler import leading
from services.scheduler.leading import Leader
from services.scheduler.settings import SchedulerSettings
from shared.ports import Store
from shared.runtime.clock import system_clock
from shared.runtime.transactions import Transactions
from tests.ports.store.database import Database, runtime

PROMISED_S = 15.0
LEASE_S = 0.6


async def led(store: Store, holder: str, since: asyncio.Event) -> None:
    leader = Leader(Transactions(store, runtime, "scheduler", system_clock), holder, LEASE_S)

    async def loop() -> None:
        since.set()
        await asyncio.Event().wait()

    await leader.lead([loop])


async def test_a_leader_that_died_is_followed_within_a_lease_and_a_third(database: Database) -> None:
    dead, living = await database.copies()
    assert await dead.acquire_lease(leading.LEASE, "dead", LEASE_S, system_clock()) is not None
    died = time.monotonic()
    leads = asyncio.Event()
    following = asyncio.create_task(led(living, "living", leads))
    async with asyncio.timeout(10):
        await leads.wait()
    took = time.monotonic() - died
    following.cancel()
    await asyncio.wait([following])
    assert LEASE_S * 0.9 < took < LEASE_S * 4 / 3 + 0.5


async def test_a_leader_that_goes_in_order_is_followed_within_a_third_of_a_lease(database: Database) -> None:
    one, two = await database.copies()
    first, second = asyncio.Event(), asyncio.Event()
    leading_one = asyncio.create_task(led(one, "one", first))
    await first.wait()
    leading_two = asyncio.create_task(led(two, "two", second))
    leading_one.cancel()
    await asyncio.wait([leading_one])
    went = time.monotonic()
    async with asyncio.timeout(10):
        await second.wait()
    assert time.monotonic() - went < LEASE_S / 3 + 0.5
    leading_two.cancel()
    await asyncio.wait([leading_two])


@pytest.mark.fast
def test_the_default_leases_keep_the_promise() -> None:
    token = SecretStr("x" * 32)
    for lease_s in (SchedulerSettings(service_token=token).lease_s, MonitorSettings(service_token=token).lease_ttl_s):
        assert lease_s * 4 / 3 < PROMISED_S
