"""The platform and its commands as a newcomer starts them: real processes, each with a deadline and in its own folder.

Used by the tests of this folder. A process is ended by its id, and its whole process group with it.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
"""Where `serai` and `serai-platform` are: beside the Python that runs the tests."""

START_S = 30.0
STOP_S = 10.0
COMMAND_S = 30.0
FIRST_PORT = 18_080


def environment(folder: Path, **further: str) -> dict[str, str]:
    """What a newcomer's shell has: programs on PATH, a home of its own, no setting of ours."""
    foreign = ("SERAI_", "MAKE", "AMQP_", "OIDC_", "BEARER_TOKEN", "XDG_RUNTIME_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    ours = {
        "PATH": f"{PROGRAMS}:{kept.get('PATH', '')}",
        "HOME": str(folder),
        "SERAI_CONFIG_DIR": str(folder / "config"),
        "SERAI_KEYRING": "off",
    }
    return {**kept, **ours, "NO_COLOR": "1", "COLUMNS": "200", **further}


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """Both outputs; an error box of the command line parser without its frame."""
        return " ".join(self.out.split() + self.err.replace("│", " ").split())


async def run(
    *words: str, folder: Path, deadline_s: float = COMMAND_S, where: Path = CHECKOUT, **further: str
) -> Ended:
    """Run a command to its end. One that is not done in time is ended, and fails the test."""
    async with started(*words, folder=folder, where=where, **further) as process:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *words: str, folder: Path, where: Path = CHECKOUT, **further: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running command in a process group of its own; whatever of it is left at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=where, env=environment(folder, **further), start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@dataclass
class Up:
    """A platform that was started with `up`, and what its first line says."""

    process: asyncio.subprocess.Process
    folder: Path
    first: dict[str, Any]

    @property
    def gateway(self) -> str:
        return str(self.first["gateway"])

    async def serai(self, *words: str, deadline_s: float = COMMAND_S, **further: str) -> Ended:
        """A command of a researcher against this platform."""
        return await run("serai", *words, folder=self.folder, deadline_s=deadline_s, SERAI_URL=self.gateway, **further)

    def follow(self, *words: str) -> Any:
        """A command that stays, as a context manager that gives its process."""
        return started("serai", *words, folder=self.folder, SERAI_URL=self.gateway)

    async def stop(self, number: signal.Signals = signal.SIGINT, deadline_s: float = STOP_S) -> Ended:
        """Signal it as Ctrl-C or a supervisor would, and wait for its end."""
        self.process.send_signal(number)
        async with asyncio.timeout(deadline_s):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def up(folder: Path, *options: str, port: int = FIRST_PORT, data: str = "data") -> AsyncIterator[Up]:
    """`serai-platform up` in a folder, ready; killed at the end unless it was stopped."""
    words = ("serai-platform", "up", "--data", str(folder / data), "--port", str(port), *options)
    async with started(*words, folder=folder) as process:
        yield Up(process, folder, await first_line(process))


async def first_line(process: asyncio.subprocess.Process, deadline_s: float = START_S) -> dict[str, Any]:
    """The first line of standard output, which is one JSON object."""
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(deadline_s):
        line = await process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended before it was ready: {(await process.stderr.read()).decode()}")
    told: dict[str, Any] = json.loads(line)
    return told


async def line_with(stream: asyncio.StreamReader | None, words: str, deadline_s: float = COMMAND_S) -> str:
    """The next line of a stream that contains the words."""
    assert stream is not None
    async with asyncio.timeout(deadline_s):
        while line := (await stream.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"the stream ended without {words!r}")


def make_variables(folder: Path) -> Mapping[str, str]:
    """The environment in which `make` uses the programs that are there instead of making an environment."""
    venv = folder / "venv"
    venv.mkdir()
    (venv / "bin").symlink_to(PROGRAMS)
    for mark in (".run-ready", ".dev-ready"):
        (venv / mark).touch()
    return {"VENV": str(venv)}


async def gone(pid: int) -> None:
    """Return when a process, which need not be a child of ours, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def running_in(folder: Path) -> list[int]:
    """Processes that work in a folder or below it: what a site's agent started there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve(strict=True).is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found
