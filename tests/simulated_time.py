"""Simulated time: the clock of a loop jumps to the next timer when there is nothing else to do.

Rooms with tests that are marked `looptime` take the hook into their `conftest.py`. The plugin of looptime is off: it
looks for loops at every fixture of every test, and slows all other loops down.
"""

import asyncio
from collections.abc import Callable, Mapping

import looptime
import pytest

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def loops(*, simulated: bool) -> Loops:
    """What a hook `pytest_asyncio_loop_factories` returns."""
    return {"simulated": looptime.new_event_loop} if simulated else {"real": asyncio.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """The loop that a test runs on."""
    return loops(simulated=item.get_closest_marker("looptime") is not None)
