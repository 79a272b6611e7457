"""Agents to run the suite against: the embedded one, and a real Nomad where a binary is at hand.

The real one is a server and a client as two processes: a client that starts with its server may register before the
keyring exists and then waits up to half a minute (reference/nomad-verified.md, 0.9).
"""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

READY_S = 60.0


def nomad_binary() -> str | None:
    """`NOMAD_BIN`, or the `nomad` on PATH."""
    return os.environ.get("NOMAD_BIN") or shutil.which("nomad")


class RealNomad:
    """A region of one server and, unless `guarded` by ACLs, one client; ends with its processes' whole groups."""

    def __init__(self, folder: Path, *, guarded: bool = False) -> None:
        self.address = ""
        self.token = ""
        self._folder = folder
        self._guarded = guarded
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> "RealNomad":
        http, rpc, serf, client = free_ports(4)
        self.address = f"http://127.0.0.1:{http}"
        self._run("server", self._server(http, rpc, serf))
        until(lambda: bool(self.ask("GET", "/v1/status/leader")), READY_S)
        if self._guarded:
            until(self._bootstrap, READY_S)
            return self
        until(lambda: bool(self.ask("GET", "/.well-known/jwks.json").get("keys")), READY_S)
        self._run("client", self._client(client, rpc))
        until(self._has_a_node, READY_S)
        return self

    def stop(self) -> None:
        """End the agents and every task they left."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Nomad's API by hand, for what the ports do not offer."""
        request = urllib.request.Request(self.address + path, method=method)
        request.add_header("X-Nomad-Token", self.token)
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def _bootstrap(self) -> bool:
        self.token = self.ask("POST", "/v1/acl/bootstrap")["SecretID"]
        return True

    def _has_a_node(self) -> bool:
        assert self._processes[-1].poll() is None, (self._folder / "client" / "log").read_text()[-1000:]
        return any(node["Status"] == "ready" for node in self.ask("GET", "/v1/nodes"))

    def _run(self, name: str, settings: dict[str, Any]) -> None:
        home = self._folder / name
        home.mkdir()
        (home / "agent.json").write_text(json.dumps(settings | {"data_dir": str(home / "data"), "name": name}))
        (home / "data").mkdir()
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for place in (home, home / "data"):
                os.chown(place, nobody.pw_uid, nobody.pw_gid)
            who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        binary = nomad_binary()
        assert binary is not None
        with (home / "log").open("wb") as log:
            environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
            command = [binary, "agent", "-config", str(home / "agent.json")]
            self._processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True, **who
                )
            )

    def _server(self, http: int, rpc: int, serf: int) -> dict[str, Any]:
        return self._common(http, rpc, serf) | {
            "server": {"enabled": True, "bootstrap_expect": 1, "event_buffer_size": 1000},
            "acl": {"enabled": self._guarded},
        }

    def _client(self, http: int, rpc: int) -> dict[str, Any]:
        return self._common(http, 0, 0) | {
            "client": {
                "enabled": True,
                "servers": [f"127.0.0.1:{rpc}"],
                "network_interface": "lo",
                "cpu_total_compute": 4000,
                "memory_total_mb": 2048,
                "min_dynamic_port": 23000,
                "max_dynamic_port": 23999,
                "options": {"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean"},
            },
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
        }

    def _common(self, http: int, rpc: int, serf: int) -> dict[str, Any]:
        loopback = "127.0.0.1"
        ports = {"http": http} | ({"rpc": rpc, "serf": serf} if rpc else {})
        return {
            "region": "real",
            "datacenter": "dc1",
            "bind_addr": loopback,
            "disable_update_check": True,
            "ports": ports,
            "advertise": dict.fromkeys(("http", "rpc", "serf"), loopback),
            "consul": {"auto_advertise": False, "server_auto_join": False, "client_auto_join": False},
        }


def free_ports(count: int) -> list[int]:
    """Loopback ports below the kernel's range for outgoing connections, free at this moment."""
    found: list[int] = []
    for port in range(15_000 + (os.getpid() % 400) * 20, 32_000):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) != 0:
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
        except (OSError, urllib.error.URLError) as failed:
            seen = str(failed)
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {seen}")
        pause.wait(0.1)
