"""A real Nomad region on this machine: one server and its clients, each a process of the `nomad` that is found.

Used by `serai-platform up --nomad` (services/embedded) and by tests. Clients start once the server has its keyring:
one that starts together with it may register too early and then waits up to half a minute.
"""

import asyncio
import contextlib
import json
import os
import pwd
import signal
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2

from shared.adapters.nomad import local_config
from shared.adapters.nomad.local_config import HOST, RegionSettings
from shared.adapters.nomad.local_trust import Authority
from shared.adapters.nomad.operator import NomadOperator
from shared.adapters.nomad.policies import Role
from shared.errors import Misconfigured, Unavailable

READY_S: Final = 60.0
"""A node is ready after 2 s, or after 8 to 28 s when its client came before the server's keys."""
STOP_S: Final = 15.0
_LOOK_S: Final = 0.1
_SERVER: Final = "server"


class LocalRegion:
    """Start with `start`; `stop` leaves the tasks running, as Nomad does, unless told to end them.

    With an `authority` its agents speak TLS and know tokens: `trusted` is then what clusters in a sites file need.
    """

    def __init__(self, binary: Path, settings: RegionSettings, authority: Authority | None = None) -> None:
        self.address = f"{'https' if authority else 'http'}://{HOST}:{settings.ports[0]}"
        self._binary = binary
        self._settings = settings
        self._authority = authority
        self._context = ssl.create_default_context(cafile=str(authority.file)) if authority else None
        self._token = ""
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def trusted(self) -> Mapping[str, str]:
        """`ca_file`, `tls_server_name` and `token_file` (of each service); nothing without TLS and ACLs."""
        if self._authority is None:
            return {}
        return {
            "ca_file": str(self._authority.file),
            "tls_server_name": f"server.{self._settings.name}.nomad",
            "token_file": str(self._settings.folder / "{service}.token"),
        }

    async def start(self) -> None:
        """Return when every node is ready. Raises Misconfigured, Unavailable with the agent's last words."""
        try:
            await self._run(_SERVER, local_config.server(self._settings))
            await self._until("/v1/status/leader", bool)
            await self._until("/.well-known/jwks.json", lambda found: bool(found.get("keys")))
            await asyncio.to_thread(self._prepare)
            clients = self._settings.clients
            for client in clients:
                await self._run(client.name, local_config.client(self._settings, client))
            await self._until("/v1/nodes", lambda nodes: _ready(nodes) == len(clients))
        except BaseException:  # cancelled, too: nobody else would end the programs
            await self.stop()
            raise

    def _prepare(self) -> None:
        """The site's operator: namespaces for the VOs; with ACLs a token for each of the two services that come."""
        with NomadOperator(self.address, self._token, self._context) as operator:
            if self._authority is not None:
                self._token = operator.bootstrap()
            for name in self._settings.namespaces:
                operator.make_namespace(name)
            if self._authority is not None:
                for role, secret in operator.tokens_for(self._settings.namespaces).items():
                    self._keep(f"{SERVICE_OF[role]}.token", secret)

    def _keep(self, name: str, secret: str) -> None:
        file = self._settings.folder / name
        file.touch(mode=0o600)
        file.write_text(secret)

    @property
    def token(self) -> str:
        """The operator's management token; empty without ACLs."""
        return self._token

    def caller(self) -> httpx2.AsyncClient:
        """A client with the operator's rights."""
        headers = {"X-Nomad-Token": self._token} if self._token else {}
        return httpx2.AsyncClient(
            base_url=self.address, trust_env=False, timeout=5.0, verify=self._context or True, headers=headers
        )

    async def stop(self, *, end_tasks: bool = False) -> None:
        """End its processes in order; by force after 15 s."""
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
        """Stop every job and wait, for a while, until no task of theirs runs; one in trouble answers plain text."""
        with contextlib.suppress(httpx2.HTTPError, TimeoutError, ValueError):
            async with self.caller() as client:
                for job in (await client.get("/v1/jobs", params={"namespace": "*"})).json():
                    params = {"namespace": job["Namespace"]}
                    await client.delete(f"/v1/job/{job['ID']}", params=params)
                async with asyncio.timeout(STOP_S):
                    while True:
                        found = (await client.get("/v1/allocations", params={"namespace": "*"})).json()
                        if all(one["ClientStatus"] not in ("pending", "running") for one in found):
                            return
                        await asyncio.sleep(_LOOK_S)

    async def _until(self, path: str, good: Any) -> None:
        deadline = time.monotonic() + READY_S
        async with self.caller() as client:
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
        if self._authority is not None:
            role = "server" if name == _SERVER else "client"  # what a certificate says: Nomad looks at it
            pair = self._authority.issue(home, f"{role}.{self._settings.name}.nomad")
            settings = settings | local_config.tls(self._authority.file, pair.certificate, pair.key)
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


SERVICE_OF: Final[Mapping[Role, str]] = {Role.SCHEDULER: "scheduler", Role.MONITOR: "monitor"}


def _ready(nodes: Any) -> int:
    return sum(node["Status"] == "ready" for node in nodes)


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
