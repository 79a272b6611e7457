"""Broker, database, Consul and sites fail under load, by themselves or by the network: nothing lost, nothing doubled.

The services are left alone meanwhile: none may end, and each must go on by itself. `--long` breaks everything thrice.
"""

import random
from typing import Final

import pytest

from tests import pacing
from tests.system.real import marks
from tests.system.real.breaking import EVERY
from tests.system.real.whole import Whole
from tests.system.real.working import a_load

pytestmark = marks.REAL

SEED: Final = 41
BEFORE_S: Final = (0.5, 1.5)
"""How long the load goes on before each fault."""
ROUNDS_LONG: Final = 3


@pytest.mark.parametrize("part", EVERY)
async def test_a_part_that_fails_under_load_costs_time_and_nothing_else(
    platform: Whole, part: str, request: pytest.FixtureRequest
) -> None:
    rounds = ROUNDS_LONG if request.config.getoption("--long") else 1
    rng, faults = random.Random(SEED), 0
    async with a_load(platform, SEED) as load:
        lives = {kept.name: kept.restarts for kept in platform.copies()}
        async with load.working():
            for each in EVERY[part] * rounds:
                for _ in range(each.times):
                    await pacing.pause(rng.uniform(*BEFORE_S))
                    await each.happens(platform, rng)
                    faults += 1
        await load.judged(f"{part}: {', '.join(each.name for each in EVERY[part])}", faults)
    assert {kept.name: kept.restarts for kept in platform.copies()} == lives, "a service ended"
