"""A PostgreSQL of our own for a while: Debian's server in a throw-away folder, on loopback, ended by process id.

Used by `make up-real` and by the tests. Not for data that must outlive the run: the folder stays the caller's, but
nothing here keeps a server alive. PostgreSQL refuses to run as root, so root starts it as the user `postgres` or, where
there is none, `nobody`; anybody else starts it as they are.
"""

import asyncio
import contextlib
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from shared.errors import Misconfigured, Unavailable

READY_S: Final = 30.0
STOP_S: Final = 15.0
SUPERUSER: Final = "serai"
_PORTS: Final = range(21_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that nobody gets ours in between."""
_UNPRIVILEGED: Final = ("postgres", "nobody")


def installed() -> Path | None:
    """The folder with `postgres` and `initdb`: of PATH first, else the newest of Debian's; None when there is none."""
    found = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in ([Path(found).resolve().parent] if found else []) + debian:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    return None


@contextlib.asynccontextmanager
async def server(folder: Path | None = None, *, durable: bool = True) -> AsyncIterator["ThrowAway"]:
    """A server that is ready, started in `folder` (a temporary one if left out) and ended after.

    Raises Misconfigured when none is installed, Unavailable when it does not become ready in time.
    """
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="serai-postgres-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            folder.chmod(0o755)
        started = await ThrowAway.start(folder, durable=durable)
        stack.push_async_callback(started.stop)
        yield started


class ThrowAway:
    """One server in one folder. `kill` and `restart` are for tests: the same folder and port, hence the same data."""

    def __init__(self, programs: Path, folder: Path, port: int, password: str, durable: bool) -> None:
        self.port = port
        self._programs = programs
        self._folder = folder
        self._password = password
        self._durable = durable
        self._process: asyncio.subprocess.Process | None = None

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database of this server, as its superuser."""
        return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{database}"

    @classmethod
    async def start(cls, folder: Path, *, durable: bool = True) -> "ThrowAway":
        """Make a cluster in `folder` and start it; without `durable` it does not wait for the disk.

        Raises Misconfigured, Unavailable.
        """
        programs = installed()
        if programs is None:
            raise Misconfigured(
                "no PostgreSQL is installed: 'apt-get install postgresql', or put its `postgres` and `initdb` on PATH"
            )
        made = cls(programs, folder, _free_port(), secrets.token_hex(16), durable)
        await made._make_cluster()
        await made.restart()
        return made

    async def database(self, name: str, *options: str) -> str:
        """Make a database with words of `CREATE DATABASE` as options; its URL."""
        async with await psycopg.AsyncConnection.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
            words = sql.SQL(" ".join(options))
            await connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), words))
        return self.url(name)

    async def restart(self) -> None:
        """Start it again after `stop` or `kill`."""
        arguments = ["-D", str(self._folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        settings = ["max_connections=300", "shared_buffers=64MB", "log_min_messages=warning"]
        if not self._durable:
            settings += ["fsync=off", "full_page_writes=off"]
        for setting in settings:
            arguments += ["-c", setting]
        self._process = await self._spawn("postgres", arguments)
        try:
            async with asyncio.timeout(READY_S):
                await self._serving(self._process)
        except TimeoutError as error:
            await self.stop()
            raise Unavailable(f"PostgreSQL was not ready after {READY_S:g} s:\n{self._last_words()}") from error
        except BaseException:  # cancelled, too: nobody else would end the program
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it in order, without waiting for its clients; by force after 15 s."""
        await self._end(signal.SIGINT)

    async def kill(self) -> None:
        """End it and its children without warning, as `kill -9` or a power cut would."""
        await self._end(signal.SIGKILL)

    async def _make_cluster(self) -> None:
        data = self._folder / "data"
        self._folder.mkdir(parents=True, exist_ok=True)
        data.mkdir(mode=0o700)
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if user := _other_user():
            for path in (data, secret):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        process = await self._spawn(
            "initdb", ["-D", str(data), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
                       "--locale=C", "--no-sync", "--no-instructions"],
        )  # fmt: skip
        if await process.wait() != 0:
            raise Unavailable(f"initdb failed in {self._folder}:\n{self._last_words()}")

    async def _spawn(self, program: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
        command = [str(self._programs / program), *arguments]
        if user := _other_user():
            gid = str(pwd.getpwnam(user).pw_gid)
            command = ["setpriv", f"--reuid={user}", f"--regid={gid}", "--clear-groups", *command]
        with (self._folder / "server.log").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}, cwd="/",
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    async def _serving(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                raise Unavailable(f"PostgreSQL ended while starting:\n{self._last_words()}")
            try:
                connection = await psycopg.AsyncConnection.connect(self.url(), connect_timeout=5)
            except psycopg.OperationalError:
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = _children(process.pid) if how is signal.SIGKILL else []
        for pid in [process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_words(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace")[-2000:]


def _other_user() -> str | None:
    """Whom root runs the server as; None when we are not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in _UNPRIVILEGED if name in names), None)
    if found is None:
        raise Misconfigured("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
    return found


def _children(pid: int) -> list[int]:
    """The server's own processes; each leads a session of its own, so no signal to a group reaches them."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _free_port() -> int:
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Unavailable("no free port for a PostgreSQL")
