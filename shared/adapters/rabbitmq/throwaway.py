"""A RabbitMQ of our own for a while: Debian's broker in a throw-away folder, on loopback, ended by process id.

Used by `make run BUS=amqp` (services/embedded) and by the tests. Not for data that must outlive the run: the folder
stays the caller's, but nothing here keeps a broker alive. Runs as root and as any other user, because it starts the
broker's own script and not Debian's wrapper, which insists on the account `rabbitmq`.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aio_pika

from shared.adapters.rabbitmq import permissions
from shared.adapters.rabbitmq.failures import translated
from shared.adapters.rabbitmq.management import Management
from shared.adapters.rabbitmq.permissions import SALT_BYTES
from shared.contracts.subscriptions import VHOST
from shared.errors import Misconfigured, SeraiError, Unavailable

SCRIPT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's `rabbitmq-server` package; elsewhere the script is found by `RABBITMQ_BIN` or on PATH."""
READY_S: Final = 60.0
STOP_S: Final = 15.0
CTL_S: Final = 30.0
_PORTS: Final = range(21_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that nobody gets ours in between."""


def installed() -> Path | None:
    """The broker's start script: `RABBITMQ_BIN`, Debian's, or the one on PATH; None when there is none."""
    debian = str(SCRIPT) if SCRIPT.exists() else None
    found = os.environ.get("RABBITMQ_BIN") or debian or shutil.which("rabbitmq-server")
    return Path(found) if found and os.access(found, os.X_OK) and shutil.which("epmd") else None


@contextlib.asynccontextmanager
async def broker(folder: Path | None = None) -> AsyncIterator[str]:
    """The URL of a broker that is ready: `AMQP_URL` when that is set, else one started in `folder` and ended after.

    Raises Misconfigured when none is installed, Unavailable when it does not become ready within a minute.
    """
    if url := os.environ.get("AMQP_URL"):
        yield url
        return
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serai-rabbitmq-")))
        started = await ThrowAway.start(folder)
        stack.push_async_callback(started.stop)
        yield started.url


@dataclass(frozen=True, slots=True)
class Offer:
    """`url` is for the services; the others are for the gateway's queues for readers outside, empty where unknown.

    `subscribers_public_url` is for those readers: without a login, and it names who vouches for the broker. `server` is
    the broker itself where it is ours.
    """

    url: str
    subscribers_amqp_url: str = ""
    subscribers_management_url: str = ""
    subscribers_public_url: str = ""
    server: "ThrowAway | None" = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files, PEM: who vouches for the broker, its certificate for 127.0.0.1, and the key of that."""

    authority: Path
    certificate: Path
    key: Path


@contextlib.asynccontextmanager
async def whole_broker(folder: Path, tls: Tls | None = None) -> AsyncIterator[Offer]:
    """As `broker`, with the management plugin and the virtual host for readers outside, who come by TLS if it is given.

    Of a broker that `AMQP_URL` names, only its operators know these; the gateway's settings tell.
    """
    if url := os.environ.get("AMQP_URL"):
        yield Offer(url)
        return
    started = await ThrowAway.start(folder, management=True, tls=tls)
    try:
        yield replace(await started.for_subscribers(), server=started)
    finally:
        await started.stop()


@dataclass(frozen=True, slots=True)
class Ports:
    """`management` is 0 where that plugin is off: it makes the start a second longer. `tls` is 0 without."""

    amqp: int
    distribution: int
    epmd: int
    management: int = 0
    tls: int = 0


class ThrowAway:
    """One broker in one folder. `kill` and `restart` are for tests: the same folder and ports, hence the same data."""

    def __init__(
        self, script: Path, folder: Path, ports: Ports, settings: Sequence[str], tls: Tls | None = None
    ) -> None:  # fmt: skip
        self.url = f"amqp://guest:guest@127.0.0.1:{ports.amqp}/"
        self.management_url = f"http://guest:guest@127.0.0.1:{ports.management}" if ports.management else ""
        self.port = ports.amqp
        self._script = script
        self._folder = folder
        self._ports = ports
        self._settings = tuple(settings)
        self._tls = tls
        self._processes: list[asyncio.subprocess.Process] = []

    @classmethod
    async def start(
        cls, folder: Path, settings: Sequence[str] = (), *, management: bool = False, tls: Tls | None = None
    ) -> "ThrowAway":
        """Start and wait until it serves; `settings` are further lines of rabbitmq.conf.

        Raises Misconfigured, Unavailable.
        """
        script = installed()
        if script is None:
            raise Misconfigured(
                "no RabbitMQ is installed: 'apt-get install rabbitmq-server', or set AMQP_URL to one that runs"
            )
        amqp, distribution, epmd, *more = free_ports(5)
        ports = Ports(amqp, distribution, epmd, more[0] if management else 0, more[1] if tls else 0)
        made = cls(script, folder, ports, settings, tls)
        made._write_settings()
        await made.restart()
        return made

    async def restart(self) -> None:
        """Start it again after `stop` or `kill`."""
        environment = self._environment()
        try:
            await self._spawn("epmd.log", environment, "epmd", "-address", "127.0.0.1", "-port", str(self._ports.epmd))
            await self._spawn("broker.log", environment, str(self._script))
            async with asyncio.timeout(READY_S):
                await self._serving()
        except TimeoutError as error:
            await self.stop()
            raise Unavailable(f"RabbitMQ was not ready after {READY_S:g} s:\n{self._last_words()}") from error
        except BaseException:  # cancelled, too: nobody else would end the programs
            await self.stop()
            raise

    async def for_subscribers(self) -> Offer:
        """Make the virtual host for readers outside and the gateway's user there, as an operator would."""
        user, password = permissions.subscribers(), secrets.token_urlsafe(16)
        made = permissions.definitions(VHOST, (user,), {user.user: password}, lambda: secrets.token_bytes(SALT_BYTES))
        management = Management(self.management_url)
        try:
            await management.post("definitions", body=made)
        finally:
            await management.close()
        login = f"{user.user}:{password}@127.0.0.1"
        scheme, port, query = "amqp", self.port, ""
        if self._tls:
            scheme, port, query = "amqps", self._ports.tls, f"?cafile={self._tls.authority}"
        return Offer(
            self.url, f"{scheme}://{login}:{port}/{VHOST}{query}", f"http://{login}:{self._ports.management}",
            f"{scheme}://127.0.0.1:{port}/{VHOST}{query}",
        )  # fmt: skip

    async def stop(self) -> None:
        """End it in order; by force after 15 s."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it without warning, as `kill -9` or a power cut would."""
        await self._end(signal.SIGKILL)

    async def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` with these arguments prints. Raises Unavailable when it fails."""
        process = await asyncio.create_subprocess_exec(
            str(self._script.with_name("rabbitmqctl")), "--quiet", *arguments, env=self._environment(),
            cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CTL_S):
                said = (await process.communicate())[0].decode(errors="replace")
        except BaseException:  # cancelled, too: nobody else would end the program
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if process.returncode:
            raise Unavailable(f"rabbitmqctl {arguments[0]} failed:\n{said}")
        return said

    async def _spawn(self, log: str, environment: dict[str, str], *command: str) -> None:
        with (self._folder / log).open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)

    async def _end(self, how: signal.Signals) -> None:
        while self._processes:
            process = self._processes.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def _serving(self) -> None:
        while True:
            if self._processes[-1].returncode is not None:
                raise Unavailable(f"RabbitMQ ended while starting:\n{self._last_words()}")
            try:
                async with translated("RabbitMQ", "begin to serve"):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await (await aio_pika.connect(self.url, timeout=5)).close()
                    if self._ports.management:
                        _, writer = await asyncio.open_connection("127.0.0.1", self._ports.management)
                        writer.close()
                return
            except SeraiError:
                await asyncio.sleep(0.1)

    def _last_words(self) -> str:
        return (self._folder / "broker.log").read_text(errors="replace")[-2000:]

    def _write_settings(self) -> None:
        for name in ("home", "data", "logs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._ports.amqp}\n"
            "disk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "raft.wal_max_size_bytes = 33554432\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            + "".join(f"{line}\n" for line in (*self._management_settings(), *self._tls_settings(), *self._settings))
        )
        (self._folder / "rabbitmq-env.conf").write_text("")
        plugins = "rabbitmq_management" if self._ports.management else ""
        (self._folder / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _management_settings(self) -> tuple[str, ...]:
        """Its figures are young, so that whoever waits for room in a queue waits a second and not ten."""
        if not self._ports.management:
            return ()
        where = ("management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._ports.management}")
        return (*where, "collect_statistics_interval = 1000")

    def _tls_settings(self) -> tuple[str, ...]:
        if self._tls is None:
            return ()
        files = {
            "cacertfile": self._tls.authority, "certfile": self._tls.certificate, "keyfile": self._tls.key,
        }  # fmt: skip
        return (
            f"listeners.ssl.1 = 127.0.0.1:{self._ports.tls}",
            *(f"ssl_options.{option} = {file}" for option, file in files.items()),
        )

    def _environment(self) -> dict[str, str]:
        folder, ports = self._folder, self._ports
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(ports.epmd),
            "RABBITMQ_NODENAME": f"serai{ports.amqp}@localhost",
            "RABBITMQ_DIST_PORT": str(ports.distribution),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"
            + (" -rabbit quorum_tick_interval 1000" if ports.management else ""),
        }


def free_ports(count: int) -> list[int]:
    """So many loopback ports that nobody listens on. Raises Unavailable."""
    found: list[int] = []
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Unavailable("no free ports for a RabbitMQ")
