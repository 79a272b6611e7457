"""A real Nomad region on this machine: one server and one client as two processes of the `nomad` that is found.

Used by `serai-platform up --nomad` (services/embedded) and by tests. The client starts once the server has its keyring:
one that starts together with it may register too early and then waits up to half a minute.
"""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from shared.errors import Misconfigured, Unavailable

READY_S: Final = 60.0
STOP_S: Final = 15.0
_LOOK_S: Final = 0.1
_HOST: Final = "127.0.0.1"


def installed(asked: str = "") -> Path | None:
    """The binary: as asked, or `NOMAD_BIN`, or the `nomad` on PATH; None when there is none."""
    named = asked or os.environ.get("NOMAD_BIN") or shutil.which("nomad")
    return Path(named) if named and os.access(named, os.X_OK) else None


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """One region. Four loopback ports: server's HTTP, RPC and serf, client's HTTP. CPU in MHz, memory in MiB."""

    name: str
    folder: Path
    ports: tuple[int, int, int, int]
    cpu_mhz: int
    memory_mib: int
    meta: dict[str, str]
    namespaces: tuple[str, ...] = ()
    task_ports: tuple[int, int] = (23_000, 23_999)


class LocalRegion:
    """Start with `start`; `stop` leaves the tasks running, as Nomad does, unless told to end them."""

    def __init__(self, binary: Path, settings: RegionSettings) -> None:
        self.address = f"http://{_HOST}:{settings.ports[0]}"
        self._binary = binary
        self._settings = settings
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Return when a node is ready. Raises Misconfigured, Unavailable with the agent's last words."""
        async with httpx2.AsyncClient(base_url=self.address, trust_env=False, timeout=2.0) as client:
            try:
                await self._run("server", self._server())
                await self._until(client, "/v1/status/leader", bool)
                await self._until(client, "/.well-known/jwks.json", lambda found: bool(found.get("keys")))
                for name in self._settings.namespaces:
                    (await client.put("/v1/namespace", json={"Name": name})).raise_for_status()
                await self._run("client", self._client())
                await self._until(client, "/v1/nodes", _one_is_ready)
            except BaseException:
                await self.stop()
                raise

    async def stop(self, *, end_tasks: bool = False) -> None:
        """End both processes in order; by force after 15 s."""
        if end_tasks and self._processes:
            await self._end_jobs()
        while self._processes:
            process = self._processes.pop()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _end_jobs(self) -> None:
        """Stop every job and wait, for a while, until no task of theirs runs."""
        with contextlib.suppress(httpx2.HTTPError, TimeoutError):
            async with httpx2.AsyncClient(base_url=self.address, trust_env=False, timeout=5.0) as client:
                for job in (await client.get("/v1/jobs", params={"namespace": "*"})).json():
                    params = {"namespace": job["Namespace"]}
                    await client.delete(f"/v1/job/{job['ID']}", params=params)
                async with asyncio.timeout(STOP_S):
                    while True:
                        found = (await client.get("/v1/allocations", params={"namespace": "*"})).json()
                        if all(one["ClientStatus"] not in ("pending", "running") for one in found):
                            return
                        await asyncio.sleep(_LOOK_S)

    async def _until(self, client: httpx2.AsyncClient, path: str, good: Any) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._processes[-1].returncode is not None:
                raise Unavailable(f"nomad ended while starting:\n{self._last_words()}")
            with contextlib.suppress(httpx2.HTTPError, ValueError):
                answer = await client.get(path)
                if answer.status_code == 200 and good(answer.json()):
                    return
            await asyncio.sleep(_LOOK_S)
        raise Unavailable(f"nomad {self._settings.name}: {path} not well after {READY_S:g} s:\n{self._last_words()}")

    def _last_words(self) -> str:
        logs = sorted(self._settings.folder.glob("*/log"), key=lambda file: file.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-1500:] if logs else ""

    async def _run(self, name: str, settings: dict[str, Any]) -> None:
        home = self._settings.folder / name
        (home / "data").mkdir(parents=True, exist_ok=True)
        (home / "agent.json").write_text(json.dumps(settings | {"data_dir": str(home / "data"), "name": name}))
        become = _unprivileged(self._settings.folder, home)
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "LANG": "C.UTF-8"}
        with (home / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *become, str(self._binary), "agent", "-config", str(home / "agent.json"),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)

    def _server(self) -> dict[str, Any]:
        http, rpc, serf, _ = self._settings.ports
        return self._common({"http": http, "rpc": rpc, "serf": serf}) | {
            "server": {"enabled": True, "bootstrap_expect": 1, "event_buffer_size": 1000}
        }

    def _client(self) -> dict[str, Any]:
        settings = self._settings
        return self._common({"http": settings.ports[3]}) | {
            "client": {
                "enabled": True,
                "servers": [f"{_HOST}:{settings.ports[1]}"],
                "network_interface": "lo",
                "cpu_total_compute": settings.cpu_mhz,
                "memory_total_mb": settings.memory_mib,
                "min_dynamic_port": settings.task_ports[0],
                "max_dynamic_port": settings.task_ports[1],
                "meta": settings.meta,
                "options": {"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean"},
            },
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
        }

    def _common(self, ports: dict[str, int]) -> dict[str, Any]:
        return {
            "region": self._settings.name,
            "datacenter": "dc1",
            "bind_addr": _HOST,
            "disable_update_check": True,
            "ports": ports,
            "advertise": dict.fromkeys(("http", "rpc", "serf"), _HOST),
            "consul": {"auto_advertise": False, "server_auto_join": False, "client_auto_join": False},
        }


def _one_is_ready(nodes: Any) -> bool:
    return any(node["Status"] == "ready" for node in nodes)


def _unprivileged(folder: Path, home: Path) -> tuple[str, ...]:
    """What to put before the command so that root's agent runs as nobody: raw_exec's tasks have their agent's rights.

    Raises Misconfigured when that user cannot reach the folder.
    """
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    closed = [parent for parent in (folder, *folder.parents) if not parent.stat().st_mode & 0o001]
    if closed:
        raise Misconfigured(
            f"Nomad's agents run as the user nobody, who cannot enter {closed[-1]}: choose another folder "
            f"(--data /var/tmp/serai), or 'chmod o+x {closed[-1]}'"
        )
    for place in (home, *home.rglob("*")):
        if place.stat().st_uid != nobody.pw_uid:
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
    return "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"
