"""The leader dies, or sleeps beyond its lease and wakes: the other copy takes over in time, and there is one leader."""

import asyncio
import signal
from typing import Final

import pytest

from services.local.supervising import Kept
from tests import pacing
from tests.system.crash.load import Sort
from tests.system.crash.oracle import END, START
from tests.system.crash.tally import TALLIES, Tally
from tests.system.real import marks
from tests.system.real.leases import leader, leading, succeeded
from tests.system.real.whole import Whole
from tests.system.real.working import a_load

pytestmark = marks.REAL

FAILOVER_S: Final = 15.0
"""The promise, with the leases of production, on a machine that has time for it; the time taken is told at the end."""
AWAKE_S: Final = 3.0
QUICK: Final = Sort(f"{START}; {END}", "succeeded", (True,))
SERVICES: Final = ("scheduler", "monitor")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_leader_that_is_killed_and_stays_away_is_replaced_within_fifteen_seconds(
    platform: Whole, service: str
) -> None:
    await platform.ready()
    async with platform.users(10) as users:
        before, process = await leader(platform, service)
        loop = asyncio.get_running_loop()
        died = loop.time()
        await process.stop(signal.SIGKILL)
        try:
            one = await users.hand_in(QUICK)
            after, took_s = await succeeded(platform, service, before, 2 * FAILOVER_S)
            while (await users.state(one))["state"] != "succeeded":
                await pacing.pause(0.1)
            done_s = loop.time() - died
        finally:
            await process.start()
    TALLIES.append(
        Tally(f"{service}'s leader killed: {took_s:.1f} s to the next leader, a job done after {done_s:.1f} s", 1, 1)
    )
    assert after.fence > before.fence


@pytest.mark.parametrize("service", SERVICES)
async def test_a_leader_that_slept_beyond_its_lease_can_neither_write_nor_place_when_it_wakes(
    platform: Whole, service: str
) -> None:
    async with a_load(platform, 11) as load:
        before, sleeper = await leader(platform, service)
        heard = sleeper.log.stat().st_size
        async with load.working():
            await pacing.pause(1.0)
            sleeper.signal(signal.SIGSTOP)
            try:
                after, took_s = await succeeded(platform, service, before, 2 * FAILOVER_S)
                await pacing.pause(AWAKE_S)
            finally:
                sleeper.signal(signal.SIGCONT)
            await pacing.pause(AWAKE_S)
            assert await leading(platform, service) == after, "the old leader took the lease back"
        await says_that_it_leads_no_more(sleeper, heard)
        await load.judged(f"{service}'s leader asleep beyond its lease, replaced after {took_s:.1f} s", 1)


async def says_that_it_leads_no_more(copy: Kept, heard: int) -> None:
    """In its log, after so many bytes: at a write that is refused, or at its next look at the lease."""
    async with asyncio.timeout(30):
        while not any(words in copy.log.read_bytes()[heard:] for words in (b'"deposed"', b'"standing_by"')):
            await pacing.pause(0.1)
