"""Simulated time for tests marked `looptime`: the clock jumps to the next timer when there is nothing else to do.

Rooms with such tests take the hook into their `conftest.py`. The plugin of looptime itself is off: it looks for loops
at every fixture of every test, and slows all other loops down.
"""

import asyncio
from collections.abc import Callable, Mapping

import looptime
import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a test runs on."""
    simulated = item.get_closest_marker("looptime") is not None
    return {"simulated": looptime.new_event_loop} if simulated else {"real": asyncio.new_event_loop}
