"""Processes that are kept alive: each with a name, a command, an environment and a log; started again when they end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.errors import NotFound
from shared.runtime import logs
from shared.runtime.retrying import Backoff

log = logs.get("local.supervising")

STOP_S: Final = 20.0
_LIVED_S: Final = 10.0
"""A process that lived so long has started well: its next restart waits for the shortest time again."""


@dataclass(slots=True)
class Kept:
    """One process that is kept alive.

    `restarts` counts how often it had to be started again, `failures` how often in a row it ended with an error.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    failures: int = 0
    wanted: bool = True
    _keeper: "asyncio.Task[None] | None" = field(default=None, repr=False)

    async def start(self) -> None:
        """Start it, and again whenever it ends."""
        self.wanted = True
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper:{self.name}")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and leave it ended; by force when it takes longer than 20 s."""
        self.wanted = False
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
            try:
                async with asyncio.timeout(STOP_S):
                    await self.process.wait()
            except TimeoutError:
                log.error("would_not_stop", process=self.name, waited_s=STOP_S)
                self.process.kill()
                await self.process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def kill(self) -> None:
        """End it without warning; it will be started again."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, as SIGSTOP and SIGCONT for a copy that sleeps."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:]

    async def _spawn(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=dict(self.environment), stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip

    async def _keep(self) -> None:
        backoff, loop = Backoff(first_s=0.2, most_s=5.0), asyncio.get_running_loop()
        while True:
            assert self.process is not None
            started = loop.time()
            code = await self.process.wait()
            if not self.wanted:
                return
            if loop.time() - started > _LIVED_S:
                backoff.reset()
            wait_s = backoff.next_s()
            self.restarts += 1
            self.failures = self.failures + 1 if code > 0 else 0
            log.warning("ended", process=self.name, code=code, again_in_s=round(wait_s, 2), log=str(self.log))
            await asyncio.sleep(wait_s)
            await self._spawn()


class Supervisor:
    """All of them, by name. Ends them together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept: dict[str, Kept] = {}

    async def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Kept:
        """Start a process; its log goes on in `<folder>/<name>.log`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        plain = {key: value for key, value in os.environ.items() if not key.startswith("SERAI_")}
        kept = Kept(name, tuple(command), plain | dict(environment), self._folder / f"{name}.log")
        self.kept[name] = kept
        await kept.start()
        return kept

    def __getitem__(self, name: str) -> Kept:
        try:
            return self.kept[name]
        except KeyError:
            raise NotFound(f"there is no process {name!r}: {', '.join(self.kept)}") from None

    async def stop(self) -> None:
        """End them all at once: each waits for its own requests and leases only, and for none of the others."""
        await asyncio.gather(*(kept.stop() for kept in self.kept.values()))
