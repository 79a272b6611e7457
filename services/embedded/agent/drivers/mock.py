"""The mock driver: tasks that take time and end as told, without a process.

Options as in Nomad's mock_driver: run_for, exit_code, exit_signal, exit_err_msg, start_error, start_error_recoverable,
start_block_for, kill_after, signal_error, stdout_string, stdout_repeat, stdout_repeat_duration and the same for stderr.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from ..jobspec import duration
from .base import DriverFailure, Exit, Handle, TaskContext


def seconds(config: dict[str, Any], name: str) -> float:
    """A duration option."""
    return duration(config.get(name)) / 1e9


class MockHandle:
    """A timer that stands for a task."""

    def __init__(self, config: dict[str, Any], run_for: float) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Exit] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        if run_for <= 0:
            self._end()
        else:
            self._timer = self._loop.call_later(run_for, self._end)

    def _end(self) -> None:
        if not self._done.done():
            config = self._config
            code, signal = int(config.get("exit_code") or 0), int(config.get("exit_signal") or 0)
            self._done.set_result(Exit(code, signal, error=str(config.get("exit_err_msg") or "")))

    async def wait(self) -> Exit:
        """Until run_for is over or it was ended."""
        return await asyncio.shield(self._done)

    async def signal(self, number: int) -> None:
        """Any signal ends it, after kill_after, with its exit_code and no signal, as Nomad's does."""
        if self._config.get("signal_error"):
            raise DriverFailure(str(self._config["signal_error"]))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds(self._config, "kill_after"), self._killed)

    async def kill(self) -> None:
        """End it now."""
        self._killed()

    def _killed(self) -> None:
        if not self._done.done():
            self._done.set_result(Exit(int(self._config.get("exit_code") or 0)))


class MockDriver:
    """Starts `MockHandle`s."""

    async def start(self, context: TaskContext) -> Handle:
        """Start, or fail as told."""
        config = context.config
        if block := seconds(config, "start_block_for"):
            await asyncio.sleep(block)
        if text := config.get("start_error"):
            raise DriverFailure(str(text), bool(config.get("start_error_recoverable")))
        self._print(config, "stdout", context.stdout)
        self._print(config, "stderr", context.stderr)
        return MockHandle(config, seconds(config, "run_for"))

    async def recover(self, context: TaskContext) -> Handle | None:
        """The rest of run_for: the mock's clock does not stop with the agent."""
        gone = (time.time_ns() - context.started_at) / 1e9
        return MockHandle(context.config, seconds(context.config, "run_for") - gone)

    def _print(self, config: dict[str, Any], stream: str, path: Path) -> None:
        text = str(config.get(f"{stream}_string") or "")
        if not text:
            return
        times = 1 + int(config.get(f"{stream}_repeat") or 0)
        gap = seconds(config, f"{stream}_repeat_duration")
        if not gap:
            _append(path, text * times)
            return
        loop = asyncio.get_running_loop()
        for turn in range(times):
            loop.call_later(turn * gap, _append, path, text)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
