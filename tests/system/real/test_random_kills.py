"""Processes of every service are killed with SIGKILL at random under load, and nobody outside of them notices.

15 s by default; `--long` is the minute. The order of the faults follows from the seed.
"""

import asyncio
import random
from collections import Counter
from typing import Final

import pytest

from tests import pacing
from tests.system.real import marks
from tests.system.real.whole import Whole
from tests.system.real.working import a_load

pytestmark = marks.REAL

SEED: Final = 29
SHORT_S: Final = 15.0
LONG_S: Final = 60.0
BETWEEN_S: Final = (0.3, 2.0)


async def test_processes_killed_at_random_under_load_lose_nothing_and_double_nothing(
    platform: Whole, request: pytest.FixtureRequest
) -> None:
    seconds = LONG_S if request.config.getoption("--long") else SHORT_S
    killed: Counter[str] = Counter()
    async with a_load(platform, SEED) as load:
        async with load.working(users=6):
            await kill_at_random(platform, seconds, killed)
        assert set(killed) == {"gateway", "scheduler", "monitor", "auth"}
        told = ", ".join(f"{count} x {service}" for service, count in sorted(killed.items()))
        await load.judged(f"kill -9 at random for {seconds:g} s: {told}", killed.total())


async def kill_at_random(platform: Whole, seconds: float, killed: Counter[str]) -> None:
    rng, loop = random.Random(SEED), asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        victim = rng.choice(platform.copies())
        victim.kill()
        killed[victim.name.rpartition("-")[0]] += 1
        await pacing.pause(rng.uniform(*BETWEEN_S))
