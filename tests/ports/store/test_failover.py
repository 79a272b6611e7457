"""How long it takes until another copy leads, when the leader is gone without a word or goes in order."""

import asyncio
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from services.monitor.settings import MonitorSettings
from services.scheduler import leading
from services.scheduler.leading import Leader
from services.scheduler.settings import SchedulerSettings
from shared.ports import Store
from shared.runtime.transactions import Transactions
from tests.builders import NOON
from tests.ports.store.database import Database, runtime

PROMISED_S = 15.0
LEASE_S = 0.03


class Looks:
    """The clock of a copy. Between two looks of it pass `step_s`, however long the machine takes for them."""

    def __init__(self, step_s: float) -> None:
        self.count = 0
        self._step_s = step_s

    def __call__(self) -> datetime:
        self.count += 1
        return NOON + timedelta(seconds=self.count * self._step_s)


async def led(store: Store, holder: str, clock: Looks, since: asyncio.Event) -> None:
    leader = Leader(Transactions(store, runtime, "scheduler", clock), holder, LEASE_S)

    async def loop() -> None:
        since.set()
        await asyncio.Event().wait()

    await leader.lead([loop])


async def test_a_leader_that_died_is_followed_within_a_lease_and_a_third(database: Database) -> None:
    dead, living = await database.copies()
    assert await dead.acquire_lease(leading.LEASE, "dead", LEASE_S, NOON) is not None
    leads, clock = asyncio.Event(), Looks(LEASE_S / 3)
    following = asyncio.create_task(led(living, "living", clock, leads))
    async with asyncio.timeout(60):
        await leads.wait()
    assert 3 <= clock.count <= 4, "it looks at every third of a lease"
    following.cancel()
    await asyncio.wait([following])


async def test_a_leader_that_goes_in_order_is_followed_within_a_third_of_a_lease(database: Database) -> None:
    one, two = await database.copies()
    first, second, clock = asyncio.Event(), asyncio.Event(), Looks(0)
    leading_one = asyncio.create_task(led(one, "one", Looks(0), first))
    await first.wait()
    leading_two = asyncio.create_task(led(two, "two", clock, second))
    leading_one.cancel()
    await asyncio.wait([leading_one])
    before = clock.count
    async with asyncio.timeout(60):
        await second.wait()
    assert clock.count <= before + 1, "at its next look"
    leading_two.cancel()
    await asyncio.wait([leading_two])


@pytest.mark.fast
def test_the_default_leases_keep_the_promise() -> None:
    token = SecretStr("x" * 32)
    for lease_s in (SchedulerSettings(service_token=token).lease_s, MonitorSettings(service_token=token).lease_ttl_s):
        assert lease_s * 4 / 3 < PROMISED_S
