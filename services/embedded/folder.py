"""The data folder of an embedded platform: one owner at a time, and what must stay the same over restarts."""

import fcntl
import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.errors import Misconfigured
from shared.runtime.service_identity import SERVICES, Door, Identity, made_key, private_key, public_keys

FIRST_AGENT_PORT = 14_646
LAST_PORT = 32_767


@dataclass(frozen=True, slots=True)
class DataFolder:
    """An opened folder; `lock` is held as long as the process lives."""

    path: Path
    lock: IO[str]
    kept: dict[str, Any]

    @property
    def service_token(self) -> str:
        """What services seal with and derive keys from."""
        return str(self.kept["service_token"])

    @property
    def service_keys(self) -> dict[str, tuple[str, str]]:
        """Private and public key of each service, by which they know each other."""
        return {
            service: (str(private), str(public)) for service, (private, public) in self.kept["service_keys"].items()
        }

    def identity(self, service: str) -> Identity:
        """What a service shows to others."""
        return Identity(service, private_key(self.service_keys[service][0]))

    def door(self, service: str) -> Door:
        """How a service knows others."""
        return Door(service, public_keys(self.public_keys))

    @property
    def public_keys(self) -> str:
        """The public keys of all, as settings spell them."""
        return ",".join(f"{service}={public}" for service, (_, public) in self.service_keys.items())

    def port(self, name: str, first: int) -> int:
        """The port given to `name` before if it is free still, else the next free one from `first` on."""
        ports = self.kept.setdefault("ports", {})
        taken = {port for other, port in ports.items() if other != name}
        before = ports.get(name)
        port = before if before is not None and before >= first and is_free(before) else next_free_port(first, taken)
        ports[name] = port
        self.save()
        return int(port)

    def issuer_port(self, first: int) -> int:
        """As `port`, but once given it is the only one: under another, every user would be somebody else.

        Raises Misconfigured when another process has it now.
        """
        before = self.kept.get("ports", {}).get("issuer")
        if before is None:
            return self.port("issuer", first)
        if not is_free(before):
            raise Misconfigured(
                f"port {before} on 127.0.0.1 is in use; the development issuer must answer there again, because tokens "
                f"and owners of jobs in {self.path} name it: end what listens there (ss -ltnp 'sport = :{before}'), or "
                "begin anew in another folder (--data FOLDER)",
                code="port_in_use",
            )
        return int(before)

    def save(self) -> None:
        file = self.path / "platform.json"
        new = file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(self.kept))
        new.rename(file)


def open_folder(path: Path) -> DataFolder:
    """Open or make a data folder. Raises Misconfigured when another platform uses it or it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (path / "lock").open("w")
    except OSError as error:
        raise Misconfigured(
            f"cannot write to the data folder {path}: {error.strerror}; choose another: --data FOLDER"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Misconfigured(
            f"another platform is running on {path}; stop it, or choose another folder: --data FOLDER"
        ) from error
    folder = DataFolder(path.resolve(), lock, _kept(path / "platform.json"))
    folder.save()
    return folder


def _kept(file: Path) -> dict[str, Any]:
    """What was kept before, or what a new folder begins with."""
    if not file.exists():
        return {"service_token": secrets.token_urlsafe(32), "service_keys": _new_keys()}
    try:
        kept = json.loads(file.read_text())
        known = {**kept, "service_token": str(kept["service_token"])}
        return {**known, "service_keys": known.get("service_keys") or _new_keys()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Misconfigured(f"{file} cannot be read; remove it (jobs are kept, ports may change)") from error


def _new_keys() -> dict[str, tuple[str, str]]:
    return {service: made_key() for service in SERVICES}


def is_free(port: int) -> bool:
    """Whether we could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def next_free_port(first: int, taken: set[int] | frozenset[int] = frozenset()) -> int:
    """The first free loopback port from `first` on, below the ephemeral range."""
    for port in range(first, LAST_PORT + 1):
        if port not in taken and is_free(port):
            return port
    raise Misconfigured(f"no free port from {first} to {LAST_PORT} on 127.0.0.1")
