"""Consul agents of our own for a while: one server for each datacenter, on loopback, in a throw-away folder.

Used by `make up-real` and by the tests; ended by process id. `consul` is found on PATH or by `CONSUL_BIN` (Debian's
package is enough; its service is not used).
"""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from shared.errors import Misconfigured, Unavailable

READY_S: Final = 60.0
STOP_S: Final = 10.0
VERSION_S: Final = 10.0
_HOST: Final = "127.0.0.1"
_PORTS: Final = range(21_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that nobody gets ours in between."""
_SAYS: Final = re.compile(r"^Consul v(\d+)\.(\d+)", re.MULTILINE)
_GRPC_TLS_SINCE: Final = (1, 14)


def installed() -> Path | None:
    """The binary: `CONSUL_BIN`, or the `consul` on PATH; None when there is none."""
    named = os.environ.get("CONSUL_BIN") or shutil.which("consul")
    return Path(named) if named and os.access(named, os.X_OK) else None


@contextlib.asynccontextmanager
async def datacenters(
    names: Sequence[str], folder: Path | None = None, more: Mapping[str, Any] | None = None
) -> AsyncIterator[dict[str, "ThrowAwayConsul"]]:
    """One agent for each datacenter, ready and WAN-joined with each other; ended after. Raises as `start` does."""
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serai-consul-")))
        agents: dict[str, ThrowAwayConsul] = {}
        for name in names:
            joins = [agent.wan for agent in agents.values()]
            agents[name] = await ThrowAwayConsul.start(folder / name, datacenter=name, join_wan=joins, more=more)
            stack.push_async_callback(agents[name].stop)
        for agent in agents.values():
            await agent.sees(names)
        yield agents


@dataclass(frozen=True, slots=True)
class _Ports:
    http: int
    https: int
    server: int
    serf_lan: int
    serf_wan: int


class ThrowAwayConsul:
    """One server. `kill`, `freeze` and `restart` are for tests: the same folder and ports, hence the same data.

    `tls` is certificate and key for HTTPS at `tls_address`; `more` is laid over the agent's configuration, as ACLs,
    and `token` is one that it honours.
    `address` is its HTTP API, `wan` where others join it.
    """

    def __init__(self, binary: Path, folder: Path, datacenter: str, ports: _Ports, token: str) -> None:
        self.datacenter = datacenter
        self.address = f"http://{_HOST}:{ports.http}"
        self.tls_address = f"https://{_HOST}:{ports.https}"
        self.wan = f"{_HOST}:{ports.serf_wan}"
        self._binary = binary
        self._folder = folder
        self._ports = ports
        self._token = token
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        datacenter: str = "dc1",
        join_wan: Sequence[str] = (),
        tls: tuple[Path, Path] | None = None,
        more: Mapping[str, Any] | None = None,
        token: str = "",
    ) -> "ThrowAwayConsul":
        """Start and wait for a leader. Raises Misconfigured without a binary, Unavailable with its last words."""
        binary = installed()
        if binary is None:
            raise Misconfigured("no Consul is installed: 'apt-get install consul', or set CONSUL_BIN to one")
        made = cls(binary, folder, datacenter, _Ports(*free_ports(5)), token)
        made._write(made._configuration(join_wan, tls, without_grpc(await _version(binary))) | dict(more or {}))
        await made.restart()
        return made

    async def restart(self) -> None:
        """Start it again after `stop` or `kill`, and wait for a leader."""
        with (self._folder / "agent.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                str(self._binary), "agent", "-config-file", str(self._folder / "agent.json"), cwd=self._folder,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self._folder)},
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(READY_S):
                await self._until("/v1/status/leader", lambda leader: bool(leader))
                await self._until("/v1/catalog/datacenters", lambda names: self.datacenter in names)
                if self._token:
                    await self._until("/v1/acl/token/self", bool)
        except TimeoutError as error:
            await self.stop()
            raise Unavailable(f"Consul had no leader after {READY_S:g} s:\n{self._last_words()}") from error
        except BaseException:  # cancelled, too: nobody else would end the program
            await self.stop()
            raise

    async def sees(self, names: Sequence[str]) -> None:
        """Return when this datacenter reaches all the named ones. Raises Unavailable after a minute."""
        try:
            async with asyncio.timeout(READY_S):
                for name in names:
                    await self._until(f"/v1/catalog/nodes?dc={name}", bool)
        except TimeoutError as error:
            raise Unavailable(
                f"{self.datacenter} does not reach all of {', '.join(names)}:\n{self._last_words()}"
            ) from error

    async def stop(self) -> None:
        """End it in order; by force after 10 s."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it without warning."""
        await self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Throw away its data, once it is ended: the next start is a new Consul at the old address."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def freeze(self, frozen: bool = True) -> None:
        """Hold the process without ending it, as a machine that swaps or a network that drops everything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _until(self, path: str, good: Any) -> None:
        headers = {"X-Consul-Token": self._token} if self._token else {}
        async with httpx2.AsyncClient(base_url=self.address, trust_env=False, timeout=3.0, headers=headers) as client:
            while True:
                if self._process is None or self._process.returncode is not None:
                    raise Unavailable(f"Consul ended while starting:\n{self._last_words()}")
                with contextlib.suppress(httpx2.HTTPError, ValueError):
                    answer = await client.get(path)
                    if answer.is_success and good(answer.json()):
                        return
                await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        return (self._folder / "agent.log").read_text(errors="replace")[-2000:]

    def _write(self, configuration: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "agent.json").write_text(json.dumps(configuration, indent=2))

    def _configuration(
        self, join_wan: Sequence[str], tls: tuple[Path, Path] | None, closed: Mapping[str, int]
    ) -> dict[str, Any]:
        ports = self._ports
        return {
            "datacenter": self.datacenter,
            "node_name": f"{self.datacenter}-server",
            "data_dir": str(self._folder / "data"),
            "server": True,
            "bootstrap": True,
            "bind_addr": _HOST,
            "client_addr": _HOST,
            "advertise_addr_wan": _HOST,
            "ports": {
                "http": ports.http, "https": ports.https if tls else -1, "dns": -1, "server": ports.server,
                "serf_lan": ports.serf_lan, "serf_wan": ports.serf_wan, **closed,
            },
            "retry_join_wan": list(join_wan),
            "retry_interval_wan": "1s",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "rejoin_after_leave": True,
            "performance": {"raft_multiplier": 1},
            "check_update_interval": "0s",
            "log_level": "WARN",
        } | ({"cert_file": str(tls[0]), "key_file": str(tls[1])} if tls else {})  # fmt: skip


def without_grpc(version: str) -> dict[str, int]:
    """The ports to close: from 1.14 on a server would take 8503, which only one can have, and before it refuses to be
    told. By what `consul version` says.
    """
    found = _SAYS.search(version)
    newer = found is not None and tuple(map(int, found.groups())) >= _GRPC_TLS_SINCE
    return {"grpc": -1} | ({"grpc_tls": -1} if newer else {})


async def _version(binary: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        str(binary), "version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(VERSION_S):
            return (await process.communicate())[0].decode(errors="replace")
    except TimeoutError as error:
        raise Unavailable(f"{binary} does not tell its version within {VERSION_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Ports that are free for TCP and UDP: gossip uses both."""
    found: list[int] = []
    for port in random.sample(_PORTS, 200):
        with contextlib.ExitStack() as stack:
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind((_HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Unavailable("no free ports for a Consul")
