"""The watch over what waits for the bus: one look a second, however many hand in jobs at a time."""

import asyncio
from typing import Any, cast

import pytest

from services.gateway.backlog import Backlog
from shared.errors import Unavailable
from shared.runtime.relay import Relay
from tests.builders import TestClock

pytestmark = pytest.mark.fast


class SlowRelay:
    """Tells how far it is behind when it is let; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked, self.behind_s, self.let = 0, 0.0, asyncio.Event()

    async def lag_s(self) -> float:
        self.asked += 1
        await self.let.wait()
        return self.behind_s


def a_watch() -> tuple[Backlog, SlowRelay, TestClock]:
    relay, clock = SlowRelay(), TestClock()
    return Backlog(cast(Relay, cast(Any, relay)), clock, limit_s=60.0), relay, clock


async def test_many_that_come_at_a_time_are_one_look() -> None:
    watch, relay, clock = a_watch()
    checks = [asyncio.create_task(watch.check()) for _ in range(20)]
    asyncio.get_running_loop().call_soon(relay.let.set)  # behind the first step of each
    await asyncio.gather(*checks)
    assert relay.asked == 1
    clock.forward(1)
    await watch.check()
    assert relay.asked == 2


async def test_who_comes_during_a_look_goes_by_the_one_before() -> None:
    watch, relay, clock = a_watch()
    relay.behind_s = 61.0
    relay.let.set()
    with pytest.raises(Unavailable):
        await watch.check()
    relay.let.clear()
    relay.behind_s = 0.0
    clock.forward(1)
    looking = asyncio.create_task(watch.check())
    with pytest.raises(Unavailable):
        await asyncio.create_task(watch.check())
    relay.let.set()
    await looking
    await watch.check()
    assert relay.asked == 2
