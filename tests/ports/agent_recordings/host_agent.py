"""Runs one embedded agent in a process of its own, so that a test can kill it: `host_agent.py DIRECTORY PORT`."""

import asyncio
import signal
import sys
from pathlib import Path

from services.embedded.agent import EmbeddedAgent
from tests.ports.agent_recordings.harness import settings


async def main() -> None:
    """Serve until SIGINT; the line on stdout says that it serves."""
    agent = EmbeddedAgent(settings(Path(sys.argv[1]), port=int(sys.argv[2]), fsync=True))
    await agent.start()
    print(agent.address, flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
    await ended.wait()
    await agent.stop()


if __name__ == "__main__":
    asyncio.run(main())
