"""The whole platform as a process of its own, which is killed with SIGKILL and started again on the same folder."""

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
START_S: Final = 30.0
QUICK: Final = {
    "SERAI_SCHEDULER_LEASE_S": "1",
    "SERAI_SCHEDULER_TICK_S": "0.25",
    "SERAI_SCHEDULER_RETRY_FIRST_S": "0.1",
    "SERAI_SCHEDULER_CALL_FIRST_S": "0.1",
    "SERAI_SCHEDULER_STOP_POLL_S": "0.2",
    "SERAI_MONITOR_FIRST_LINE_S": "1",
}
"""Shorter times than in production; no promise depends on them."""


@dataclass
class Process:
    """`serai-platform up` on one folder, life after life. `addresses` is its first line of the newest life.

    `kills`: when it was killed, in Unix nanoseconds.
    """

    folder: Path
    sites: str
    port: int
    addresses: dict[str, Any] = field(default_factory=dict)
    kills: list[int] = field(default_factory=list)
    _running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        await self.spawn()
        assert self._running is not None and self._running.stdout is not None
        async with asyncio.timeout(START_S):
            first = await self._running.stdout.readline()
        assert first, f"it did not start: {(self.folder / 'log').read_text()[-2000:]}"
        self.addresses = json.loads(first)

    async def spawn(self) -> None:
        """Start it, and wait for nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sites = self.folder / "sites.yaml"
        sites.write_text(self.sites)
        with (self.folder / "log").open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services", "up", "--port", str(self.port), "--data", str(self.folder / "data"),
                "--sites", str(sites), "--log-level", "warning",
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True, cwd=ROOT, env=os.environ | QUICK,
            )  # fmt: skip

    async def kill(self) -> None:
        """SIGKILL to the whole process group; returns when it is gone."""
        self.kills.append(time.time_ns())
        if self._running is not None and self._running.returncode is None:
            os.killpg(self._running.pid, signal.SIGKILL)
            await self._running.wait()
        self._running = None

    @property
    def runs(self) -> bool:
        """It has not ended by itself."""
        return self._running is not None and self._running.returncode is None

    def executors(self) -> list[int]:
        """The processes beside the agents that start the jobs' commands: they and the jobs outlive a kill."""
        return [pid for pid, words in _processes() if "executor.py" in words and str(self.folder) in words]


def _processes() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found.append((int(entry.name), words))
    return found
