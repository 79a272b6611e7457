"""The executor: a small process beside the agent that starts tasks, waits for them and notes how they ended.

It outlives the agent, so exit codes do too. Started by `drivers/process.py` as a plain script with nothing but the
standard library; speaks JSON lines on a Unix socket in its directory, which only its user can enter. Ends itself when
it has no child and nobody is connected.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

IDLE_S = 3.0
"""How long it stays without children and without an agent."""
FIRST_S = 60.0
"""How long it waits for the agent that started it: a busy machine may keep that one from connecting for a while."""


def start_ticks(pid: int) -> int:
    """The kernel's start time of a process, which tells it from a later one of the same number; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def note(directory: Path, name: str, value: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    temporary = directory / f"{name}.tmp"
    temporary.write_text(json.dumps(value))
    temporary.replace(directory / name)


class Executor:
    """Children, connections and the loop over both."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: dict[int, str] = {}
        self.connections: dict[int, tuple[socket.socket, bytearray]] = {}
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # A relative name, because a Unix socket's path may not be longer than 107 bytes.
        os.chdir(directory)
        Path("executor.sock").unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind("executor.sock")
        self.listener.listen(8)
        self.reachable = True

    def run(self) -> None:
        """Serve until nobody needs it."""
        idle_since, patience_s = time.monotonic(), FIRST_S
        while True:
            if self.children or self.connections:
                idle_since, patience_s = time.monotonic(), IDLE_S
            elif time.monotonic() - idle_since > patience_s and self.may_leave():
                return
            sources: list[Any] = [self.listener, self.wake_read, *self.connections]
            readable, _, _ = select.select(sources, [], [], 1.0)
            for source in readable:
                self._handle(source)
            self._reap()

    def may_leave(self) -> bool:
        """Take the address away; False when somebody had connected before that, who is served still.

        Whoever comes later finds no address and starts another executor, which this one must not disturb.
        """
        if self.reachable:
            self.reachable = False
            Path("executor.sock").unlink(missing_ok=True)
        waiting, _, _ = select.select([self.listener], [], [], 0)
        return not waiting

    def _handle(self, source: Any) -> None:
        if source is self.listener:
            connection, _ = self.listener.accept()
            self.connections[connection.fileno()] = (connection, bytearray())
        elif source == self.wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_read, 4096)
        else:
            self._read(source)

    def _read(self, fd: int) -> None:
        connection, buffer = self.connections[fd]
        try:
            data = connection.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            del self.connections[fd]
            connection.close()
            return
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            self._command(json.loads(line))

    def _command(self, command: dict[str, Any]) -> None:
        if command["op"] == "start":
            self._tell(self._start(command))
        elif command["op"] == "signal":
            self._signal(command["key"], command["signal"], command["group"])

    def _tell(self, message: dict[str, Any]) -> None:
        """To whoever is connected; one who went away reads the files instead."""
        data = json.dumps(message).encode() + b"\n"
        for connection, _ in self.connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(data)

    def _start(self, command: dict[str, Any]) -> dict[str, Any]:
        key = command["key"]
        read, write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            return {"event": "failed", "key": key, "error": str(error)}
        if pid == 0:
            _become_task(command, write)
        os.close(write)
        with os.fdopen(read) as pipe:
            complaint = pipe.read()
        if complaint:
            os.waitpid(pid, 0)
            return {"event": "failed", "key": key, "error": complaint}
        self.children[pid] = key
        found = {"pid": pid, "start": start_ticks(pid), "at": time.time_ns()}
        note(self.directory, f"{key}.pid", found)
        return {"event": "started", "key": key, **found}

    def _signal(self, key: str, number: int, group: bool) -> None:
        for pid, name in self.children.items():
            if name == key:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if group else os.kill)(pid, number)

    def _reap(self) -> None:
        for pid, key in list(self.children.items()):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            # What the task left behind goes with it; the zombie still holds the group's number.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self.children[pid]
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            ended = {"code": 128 + number if number else os.WEXITSTATUS(status), "signal": number, "at": time.time_ns()}
            note(self.directory, f"{key}.exit", ended)
            self._tell({"event": "exit", "key": key, **ended})


def _become_task(command: dict[str, Any], report: int) -> None:
    """In the child: the task's session, directory and files, then the task itself."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.chdir(command["cwd"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(os.open(command["stdout"], flags, 0o644), 1)
        os.dup2(os.open(command["stderr"], flags, 0o644), 2)
        os.execve(command["argv"][0], command["argv"], command["env"])
    except BaseException as error:
        os.write(report, str(getattr(error, "strerror", None) or error).encode()[:4000])
    finally:
        os._exit(127)


def main() -> None:
    """`executor.py DIRECTORY`: returns when it listens; a child of init goes on, which no agent need wait for."""
    executor = Executor(Path(sys.argv[1]))
    if os.fork() == 0:
        executor.run()


if __name__ == "__main__":
    main()
