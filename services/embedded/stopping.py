"""How a person or a supervisor ends `serai-platform up` and `run`: SIGINT (Ctrl-C) and SIGTERM, also repeated.

The first signal stops in order: what is starting is cancelled, what runs is drained. The second one only says that
this is under way. The third leaves at once: nothing is lost by it (a new start goes on), but what was started for the
platform (a broker, tasks at the sites) goes on without it.
"""

import asyncio
import os
import signal
import sys
from types import TracebackType
from typing import Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """As a context manager it takes the signals over. Until `started()` they cancel the task that entered it."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._count = 0
        self._task: asyncio.Task[object] | None = None
        self.exit_code = 0

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._told.is_set()

    def started(self) -> None:
        """From now on a signal cancels nothing: whoever waits for `told` stops in order."""
        self._task = None

    async def told(self) -> None:
        """Return when a signal has come."""
        await self._told.wait()

    def _on(self, number: int) -> None:
        self._count += 1
        if self._count == 1:
            self.exit_code = 128 + number
            self._told.set()
            if self._task is not None:
                self._task.cancel()
        elif self._count == 2:
            _say("Still stopping; once more leaves at once (what was started for the platform then goes on).")
        else:
            _say("Left at once.")
            os._exit(128 + number)


def _say(words: str) -> None:
    print(f"\n{words}", file=sys.stderr, flush=True)
