"""raw_exec and exec: real local processes, started by the executor beside the agent.

The agent's side of `executor.py`: starts it when first needed, gives orders, hears of ends. When the executor itself is
gone it watches the task by pid and start time, and says honestly that the exit code is unknown.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from .base import DriverFailure, Exit, Handle, TaskContext
from .executor import start_ticks

SCRIPT = Path(__file__).with_name("executor.py")
CONNECT_S = 10.0
POLL_S = 0.5
NOTE_POLL_S = 0.05
NOTE_S = 30.0
"""How long a task that is gone may wait for its executor's note: a busy machine may keep that one from writing it."""
LAUNCH_FAILED = "failed to launch command with executor: rpc error: code = Unknown desc = "
VANISHED = "task process is gone and left no exit code"


class ProcessDriver:
    """Tasks as local processes; one executor for all of an agent's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starts: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._exits: dict[str, asyncio.Future[Exit]] = {}

    async def start(self, context: TaskContext) -> Handle:
        """Start `command` with `args`. Raises DriverFailure with Nomad's words where they are known."""
        argv = _argv(context)
        loop = asyncio.get_running_loop()
        for suffix in ("pid", "exit"):
            (self.directory / f"{context.key}.{suffix}").unlink(missing_ok=True)
        await self._connect()
        answer = self._starts[context.key] = loop.create_future()
        self._exits[context.key] = loop.create_future()
        order = {
            "op": "start", "key": context.key, "argv": argv, "env": context.env,
            "cwd": str(context.config.get("work_dir") or context.task_dir),
            "stdout": str(context.stdout), "stderr": str(context.stderr),
        }  # fmt: skip
        self._order(order)
        try:
            started = await answer
        finally:
            self._starts.pop(context.key, None)
        if "error" in started:
            self._exits.pop(context.key, None)
            raise DriverFailure(f"{LAUNCH_FAILED}{started['error']}")
        return ProcessHandle(self, context.key, started["pid"], started["start"])

    async def recover(self, context: TaskContext) -> Handle | None:
        """A task of before: still running, ended meanwhile, or vanished."""
        found = self._read(f"{context.key}.pid")
        if found is None:
            return None
        handle = ProcessHandle(self, context.key, found["pid"], found["start"])
        if self.exit_of(context.key) is None and await self._reached():
            self._exits.setdefault(context.key, asyncio.get_running_loop().create_future())
        return handle

    def forget(self, key: str) -> None:
        """Remove the notes of a task that is over for good."""
        self._exits.pop(key, None)
        for suffix in ("pid", "exit"):
            (self.directory / f"{key}.{suffix}").unlink(missing_ok=True)

    def exit_of(self, key: str) -> Exit | None:
        """The end that the executor noted."""
        found = self._read(f"{key}.exit")
        return Exit(found["code"], found["signal"]) if found else None

    async def wait(self, key: str, pid: int, start: int) -> Exit:
        """Until the task has ended, by the executor's word or by its absence."""
        while True:
            if ended := self.exit_of(key):
                return ended
            if start_ticks(pid) != start:
                return await self._noted(key)
            heard = self._exits.get(key)
            if heard is None or self._writer is None:
                await asyncio.sleep(POLL_S)
                continue
            done, _ = await asyncio.wait([heard], timeout=5.0)
            if done and not heard.cancelled():
                return heard.result()

    async def _noted(self, key: str) -> Exit:
        """The end of a task that is gone: as long as there is an executor, it may be about to see and note it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + NOTE_S
        while True:
            if ended := self.exit_of(key):
                return ended
            if loop.time() > deadline or not await self._reached():
                return self.exit_of(key) or Exit(-1, error=VANISHED)
            await asyncio.sleep(NOTE_POLL_S)

    def send_signal(self, key: str, pid: int, start: int, number: int, *, group: bool) -> None:
        """Through the executor, which cannot mistake a reused pid; else directly, after a look at the start time."""
        if self._writer is not None:
            self._order({"op": "signal", "key": key, "signal": number, "group": group})
        if self._writer is None and start_ticks(pid) == start:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, number)

    async def close(self) -> None:
        """Let go of the executor; the tasks go on."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._hung_up()

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.directory / name).read_text())
        except (OSError, ValueError):
            return None
        return found

    def _order(self, order: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(order).encode() + b"\n")

    async def _connect(self) -> None:
        if await self._reached():
            return
        async with self._lock:
            if self._writer is None:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                await self._spawn()

    async def _reached(self) -> bool:
        """Whether there is an executor; connected to it then."""
        async with self._lock:
            return self._writer is not None or await self._try_connect()

    async def _spawn(self) -> None:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-E", str(SCRIPT), str(self.directory),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True, close_fds=True, env=environment, cwd="/",
        )  # fmt: skip
        # It ends as soon as the executor proper listens.
        async with asyncio.timeout(CONNECT_S):
            await process.wait()
        if not await self._try_connect():
            raise DriverFailure("failed to create executor: timeout while waiting for plugin to start")

    async def _try_connect(self) -> bool:
        """Reached through a directory descriptor: the path may be too long for a socket address."""
        try:
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return False
        try:
            reader, self._writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{descriptor}/executor.sock", limit=1 << 22
            )
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._reader = asyncio.create_task(self._listen(reader), name="executor-reader")
        return True

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        self._hung_up()

    def _hear(self, message: dict[str, Any]) -> None:
        key = message["key"]
        if message["event"] == "exit":
            heard = self._exits.get(key)
            if heard is not None and not heard.done():
                heard.set_result(Exit(message["code"], message["signal"]))
        else:
            answer = self._starts.get(key)
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _hung_up(self) -> None:
        """The executor is gone: waiting starts fail, waiting ends are watched by pid."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._starts.values():
            if not answer.done():
                answer.set_result({"error": "executor is gone"})
        for heard in self._exits.values():
            heard.cancel()
        self._exits.clear()


class ProcessHandle:
    """One running process."""

    def __init__(self, driver: ProcessDriver, key: str, pid: int, start: int) -> None:
        self._driver, self._key, self.pid, self._start = driver, key, pid, start

    async def wait(self) -> Exit:
        """Until it has ended."""
        return await self._driver.wait(self._key, self.pid, self._start)

    async def signal(self, number: int) -> None:
        """To the first process only, as Nomad does."""
        self._driver.send_signal(self._key, self.pid, self._start, number, group=False)

    async def kill(self) -> None:
        """SIGKILL to the whole process group."""
        self._driver.send_signal(self._key, self.pid, self._start, signal.SIGKILL, group=True)


def _argv(context: TaskContext) -> list[str]:
    """The command found, and its arguments; no shell ever reads them."""
    command = str(context.config.get("command") or "")
    if not command:
        raise DriverFailure('failed to decode driver config: missing required argument: "command"')
    args = [str(arg) for arg in context.config.get("args") or []]
    inside = context.task_dir / command
    local = context.task_dir / "local" / command
    if "/" in command and Path(command).is_absolute():
        found = command if Path(command).exists() else None
    elif local.is_file() or inside.is_file():
        found = str(local if local.is_file() else inside)
    else:
        found = shutil.which(command, path=context.env.get("PATH"))
    if found is None:
        raise DriverFailure(f'{LAUNCH_FAILED}binary "{command}" could not be found')
    return [found, *args]
