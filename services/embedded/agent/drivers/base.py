"""What every driver offers, and the words they share. Called by `tasks.py` only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class DriverFailure(Exception):
    """The driver could not start the task; becomes a `Driver Failure` event with this text."""

    def __init__(self, text: str, recoverable: bool = False) -> None:
        super().__init__(text)
        self.text, self.recoverable = text, recoverable


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended. `error` when nobody can know (the process vanished while the agent was away)."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """All a driver needs to know of one task."""

    key: str
    """`<alloc id>.<task>`: names the task towards the executor and its files."""
    config: dict[str, Any]
    env: dict[str, str]
    task_dir: Path
    stdout: Path
    stderr: Path
    started_at: int = 0
    """Unix ns of the start when the agent comes back to a task, else 0."""


class Handle(Protocol):
    """A started task."""

    async def wait(self) -> Exit:
        """Until it has ended."""

    async def signal(self, number: int) -> None:
        """Send a signal to the task's first process. Nothing happens when it has ended."""

    async def kill(self) -> None:
        """End all its processes at once."""


class Driver(Protocol):
    """A way to run tasks."""

    async def start(self, context: TaskContext) -> Handle:
        """Start the task. Raises DriverFailure."""

    async def recover(self, context: TaskContext) -> Handle | None:
        """Take up a task that ran before the agent went away; None when nothing is known of it."""
