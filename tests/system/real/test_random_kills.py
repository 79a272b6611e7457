"""Processes of every service are killed with SIGKILL at random under load, and nobody outside of them notices.

15 s by default; `--long` is the minute. The order of the faults follows from the seed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests import pacing
from tests.system.crash.load import HandedIn
from tests.system.real.readers import SseReader, StreamReader, running
from tests.system.real.verdict import tell, verdict
from tests.system.real.whole import Whole, needs_parts

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"), pytest.mark.crash, pytest.mark.rabbitmq, pytest.mark.postgres,
    pytest.mark.consul, needs_parts, pytest.mark.timeout(600),
]  # fmt: skip

SEED = 29
USERS = 3
PAUSE_S = 0.4
SHORT_S, LONG_S = 15.0, 60.0
BETWEEN_S = (0.3, 2.0)


async def test_processes_killed_at_random_under_load_lose_nothing_and_double_nothing(
    platform: Whole, request: pytest.FixtureRequest
) -> None:
    seconds = LONG_S if request.config.getoption("--long") else SHORT_S
    rng = random.Random(SEED)
    sse = SseReader(platform.up.addresses["gateway"], platform.up.issuer, stay_s=4)
    stream = StreamReader(platform.up.parts.environment["SERAI_AMQP_URL"])
    killed: Counter[str] = Counter()
    async with running(sse, stream):
        async with load(platform):
            ends = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < ends:
                victim = rng.choice(platform.copies())
                victim.kill()
                killed[victim.name.rpartition("-")[0]] += 1
                await pacing.pause(rng.uniform(*BETWEEN_S))
        await platform.ready()
        wrong = await verdict(platform, sse, stream)
    tally = tell(
        f"kill -9 of processes for {seconds:g} s {dict(killed)}, SSE at {dict(sse.at)}", killed.total(), platform, wrong
    )
    assert set(killed) == {"gateway", "scheduler", "monitor", "auth"}
    assert len(platform.users.jobs) > 10
    assert not wrong, f"{tally}\n{tally.details()}"


@asynccontextmanager
async def load(platform: Whole) -> AsyncIterator[None]:
    """Users at work; at the end everything that they began is handed in to its 202."""
    users = platform.users
    working = [asyncio.create_task(users.hand_in_for_ever(PAUSE_S), name=f"user-{n}") for n in range(USERS)]
    try:
        yield
    finally:
        for work in working:
            work.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    await asyncio.gather(*(finished(platform, one) for one in users.jobs))


async def finished(platform: Whole, one: HandedIn) -> None:
    async with asyncio.timeout(60):
        await platform.users.finish(one)
