"""What each further Ctrl-C does to a platform that takes its time to stop."""

import asyncio
import signal
import sys

import pytest

pytestmark = pytest.mark.fast

SLOW = """
import asyncio
from services.embedded.stopping import Stopping

async def main():
    with Stopping() as stopping:
        stopping.started()
        print("ready", flush=True)
        await stopping.told()
        print("stopping", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_second_signal_is_answered_and_the_third_leaves_at_once() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SLOW, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert await process.stdout.readline() == b"stopping\n"
            process.send_signal(signal.SIGINT)
            await process.stderr.readline()
            assert b"once more leaves at once" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert b"Traceback" not in await process.stderr.read()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
