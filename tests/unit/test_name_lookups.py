"""A name that no server answers for holds up no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MANY = """
import asyncio, os
from services import __main__ as command

async def look_up():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    print(len(os.listdir("/proc/self/task")))

command._run(look_up())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_process_has_threads_for_many_lookups_at_once() -> None:
    """Half of libuv's threads look up names; its own choice is four in all."""
    env = {name: value for name, value in os.environ.items() if name != "UV_THREADPOOL_SIZE"}
    told = subprocess.run([sys.executable, "-c", MANY], env=env, capture_output=True, text=True, timeout=60)
    assert 30 < int(told.stdout) < 64, told.stderr
