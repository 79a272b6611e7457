"""Real Nomad regions of one server and some clients, each a process of its own that can be killed and started again.

The clients start once the server has its keys: one that registers before waits up to half a minute
(reference: nomad-verified.md, 0.9). The configuration is the one of `make up-real`; tests lay more over it.
"""

import os
import pwd
import random
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.adapters.nomad import local_binary, local_config
from shared.adapters.nomad.local_config import ClientSettings, RegionSettings
from shared.adapters.nomad.local_trust import Authority
from shared.adapters.nomad.operator import NomadOperator
from shared.adapters.nomad.policies import Role
from shared.errors import SeraiError

READY_S = 60.0
END_S = 10.0
More = Mapping[str, Any]


@dataclass
class RealNomad:
    """A region. `guarded`: with ACLs and TLS; then `tokens` are those of the two services. `mutual`: who asks over HTTP
    must show a certificate too.

    `server` and `client` are laid over the agents' configuration, `each` over that of a client by name. `as_root`:
    clients run as root, for docker. `servers`: more than one are peers; `address` is the first one's.
    """

    folder: Path
    name: str = "real"
    guarded: bool = False
    mutual: bool = False
    servers: tuple[str, ...] = ("server",)
    clients: tuple[str, ...] = ("client",)
    namespaces: tuple[str, ...] = ()
    server: More = field(default_factory=dict)
    client: More = field(default_factory=dict)
    each: Mapping[str, More] = field(default_factory=dict)
    as_root: bool = False
    tokens: dict[Role, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = free_ports(3 * len(self.servers) + len(self.clients))
        self._server_ports = {name: tuple(ports[3 * n : 3 * n + 3]) for n, name in enumerate(self.servers)}
        self._client_ports = dict(zip(self.clients, ports[3 * len(self.servers) :], strict=True))
        self.settings = RegionSettings(
            name=self.name, folder=self.folder, ports=(ports[0], ports[1], ports[2]), clients=(),
            namespaces=self.namespaces, guarded=self.guarded,
        )  # fmt: skip
        self.authority = Authority(self.folder, datetime.now(UTC)) if self.guarded else None
        self.context = ssl.create_default_context(cafile=str(self.authority.file)) if self.authority else None
        if self.mutual and self.authority and self.context:
            pair = self.authority.issue(self.folder / "operator", f"cli.{self.name}.nomad")
            self.context.load_cert_chain(pair.certificate, pair.key)
        self.address = f"{'https' if self.guarded else 'http'}://127.0.0.1:{ports[0]}"
        self.operator = NomadOperator(self.address, "", self.context)

    @property
    def token(self) -> str:
        """The operator's."""
        return self.operator.token

    def trusting(self) -> Mapping[str, Any]:
        """What one adapter for both services is told."""
        if self.authority is None:
            return {}
        both = self.operator.make_token("both", *Role)
        return {"ca_file": self.authority.file, "tls_server_name": f"server.{self.name}.nomad", "token": both}

    def start(self) -> "RealNomad":
        """Return when every node is ready."""
        for name in self.servers[1:]:
            self._spawn(name)
        self.begin(self.servers[0])
        if self.guarded:
            self.operator.bootstrap()
        self.make_namespaces()
        if self.guarded:
            self.tokens = self.operator.tokens_for(("default", *self.namespaces))
        for name in self.clients:
            self.begin(name)
        return self

    def make_namespaces(self) -> None:
        """What the operator makes for our VOs."""
        for name in self.namespaces:
            self.operator.make_namespace(name)

    def begin(self, name: str) -> None:
        """Start an agent, also again after `kill`; return when it does its part."""
        self._spawn(name)
        if name in self.servers:
            until(lambda: bool(self.operator.ask("GET", "/v1/status/leader")), READY_S)
            until(lambda: bool(self.operator.ask("GET", "/.well-known/jwks.json").get("keys")), READY_S)
        else:
            until(lambda: self.node(name)["Status"] == "ready", READY_S)

    def kill(self, name: str) -> None:
        """End an agent without warning; its tasks live on."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(END_S)

    def freeze(self, name: str, frozen: bool = True) -> None:
        """Hold an agent without ending it, as a machine that swaps."""
        self.processes[name].send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        """End the agents; tasks were ended by whoever started them."""
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_S)
        self.operator.close()
        if self.as_root:
            self._unmount()

    def _unmount(self) -> None:
        """Root's agents leave the secrets folders of tasks mounted (reference: nomad-verified.md, f)."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in sorted((place for place in mounted if place.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", place], check=True, timeout=END_S)

    def end_jobs(self) -> None:
        """Stop every job and wait until no task of them is left."""
        for job in self.operator.ask("GET", "/v1/jobs?namespace=*"):
            self.operator.ask("DELETE", f"/v1/job/{job['ID']}?namespace={job['Namespace']}")
        until(lambda: not self.running(), READY_S)

    def running(self) -> list[str]:
        """Nomad jobs that have a task running or beginning."""
        found = self.operator.ask("GET", "/v1/allocations?namespace=*")
        return sorted(one["JobID"] for one in found if one["ClientStatus"] in ("pending", "running"))

    def node(self, name: str) -> dict[str, Any]:
        """A client as the server sees it; an empty row before it came."""
        found = self.operator.ask("GET", "/v1/nodes") or ()
        return next((node for node in found if node["Name"] == name), {"Status": "unknown"})

    def _spawn(self, name: str) -> None:
        assert name not in self.processes, f"{name} runs"
        home = self.folder / name
        (home / "data").mkdir(parents=True, exist_ok=True)
        (home / "agent.json").write_bytes(orjson.dumps(self._configuration(name, home)))
        who = {} if self.as_root and name not in self.servers else _nobody(home)
        binary = local_binary.installed()
        assert binary is not None
        with (home / "log").open("ab") as log:
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
            self.processes[name] = subprocess.Popen(
                [binary, "agent", "-config", str(home / "agent.json")], stdout=log, stderr=log, cwd="/",
                env=environment, start_new_session=True, **who,
            )  # fmt: skip

    def _configuration(self, name: str, home: Path) -> dict[str, Any]:
        if name in self.servers:
            made = merged(merged(local_config.server(self.settings), self.server), self._among_peers(name))
        else:
            one = ClientSettings(self._client_ports[name], cpu_mhz=4000, memory_mib=2048)
            made = merged(merged(local_config.client(self.settings, one), self.client), self.each.get(name, {}))
            made["client"]["servers"] = [f"127.0.0.1:{rpc}" for _, rpc, _ in self._server_ports.values()]
        if self.authority is not None and not (home / "tls.pem").exists():
            self.authority.issue(home, f"{'server' if name in self.servers else 'client'}.{self.name}.nomad")
        if self.authority is not None:
            made |= local_config.tls(self.authority.file, home / "tls.pem", home / "tls.key", mutual=self.mutual)
        return made | {"name": name, "data_dir": str(home / "data")}

    def _among_peers(self, name: str) -> dict[str, Any]:
        """Its own ports, and whom it joins."""
        http, rpc, serf = self._server_ports[name]
        peers = [f"127.0.0.1:{ports[2]}" for other, ports in self._server_ports.items() if other != name]
        join = {"retry_join": peers, "retry_interval": "1s", "retry_max": 0}
        return {
            "ports": {"http": http, "rpc": rpc, "serf": serf},
            "server": {"bootstrap_expect": len(self.servers)} | ({"server_join": join} if peers else {}),
        }

    def words(self, name: str) -> str:
        """The end of an agent's log."""
        return (self.folder / name / "log").read_text(errors="replace")[-2000:]


@contextmanager
def real_nomad(**settings: Any) -> Iterator[RealNomad]:
    """A region that runs, in a folder that its user can enter; ended with all its tasks. Skips without a nomad."""
    if local_binary.installed() is None:
        pytest.skip("no nomad on PATH and no NOMAD_BIN: the real Nomad is not tested")
    with tempfile.TemporaryDirectory(prefix="serai-nomad-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        region = RealNomad(Path(folder), **settings)
        try:
            yield region.start()
            region.end_jobs()
        finally:
            region.stop()


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` laid over `base`, block by block."""
    return {
        **base,
        **{
            name: merged(base[name], value)
            if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
            else value
            for name, value in more.items()
        },
    }


def _nobody(home: Path) -> dict[str, Any]:
    """Root's agents run as nobody: tasks of raw_exec have their agent's rights."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for place in (home, *home.rglob("*")):
        if place.lstat().st_uid != nobody.pw_uid:
            os.lchown(place, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """Loopback ports below the kernel's range for outgoing connections, free at this moment."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_500, 31_900), 200):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def until(done: Callable[[], bool], deadline_s: float) -> None:
    """Wait for a process outside ours; an answer that does not come counts as not yet."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        try:
            if done():
                return
            seen = "said no"
        except (OSError, SeraiError) as failed:
            seen = str(failed)
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {seen}")
        pause.wait(0.1)
