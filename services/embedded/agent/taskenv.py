"""A task's environment and the interpolation of `${...}` in its configuration.

Pure. In the driver config an unknown name is an error (`UnknownName`), in environment values it is left as written:
both as in Nomad.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobspec import Row
from .placement import node_variable

BASE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_NAME = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_ENV_INDEX = re.compile(r'env\["([^"]+)"\]')
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]")


class UnknownName(Exception):
    """`${...}` names nothing."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one task."""

    alloc_dir: Path
    task: str

    @property
    def task_dir(self) -> Path:
        """`<alloc>/<task>`: the working directory."""
        return self.alloc_dir / self.task

    @property
    def shared(self) -> Path:
        """`<alloc>/alloc`."""
        return self.alloc_dir / "alloc"

    def log(self, stream: str) -> Path:
        """The first log file of a stream."""
        return self.shared / "logs" / f"{self.task}.{stream}.0"


def build(job: Row, group: Row, task: Row, alloc: Row, allocated: Row, node: Row, places: Places) -> dict[str, str]:
    """The whole environment of a task: ours is never inherited."""
    index = re.search(r"\[(\d+)\]$", alloc["Name"])
    env = {
        **BASE_ENV,
        "HOME": str(places.task_dir),
        "NOMAD_ALLOC_DIR": str(places.shared),
        "NOMAD_TASK_DIR": str(places.task_dir / "local"),
        "NOMAD_SECRETS_DIR": str(places.task_dir / "secrets"),
        "NOMAD_ALLOC_ID": alloc["ID"],
        "NOMAD_SHORT_ALLOC_ID": alloc["ID"][:8],
        "NOMAD_ALLOC_NAME": alloc["Name"],
        "NOMAD_ALLOC_INDEX": index.group(1) if index else "0",
        "NOMAD_TASK_NAME": task["Name"],
        "NOMAD_GROUP_NAME": group["Name"],
        "NOMAD_JOB_ID": job["ID"],
        "NOMAD_JOB_NAME": job["Name"],
        "NOMAD_DC": node["Datacenter"],
        "NOMAD_NAMESPACE": job["Namespace"],
        "NOMAD_REGION": job["Region"],
        "NOMAD_CPU_LIMIT": str(task["Resources"]["CPU"]),
        "NOMAD_MEMORY_LIMIT": str(task["Resources"]["MemoryMB"]),
    }
    if task["Resources"]["MemoryMaxMB"]:
        env["NOMAD_MEMORY_MAX_LIMIT"] = str(task["Resources"]["MemoryMaxMB"])
    env.update(_meta({**(job["Meta"] or {}), **(group["Meta"] or {}), **(task["Meta"] or {})}))
    env.update(_ports(allocated["Shared"]["Ports"] or []))
    env.update(_devices(allocated["Tasks"].get(task["Name"], {}).get("Devices") or []))
    for name, value in (task["Env"] or {}).items():
        env[_NOT_PLAIN.sub("_", name)] = interpolate(str(value), env, node, strict=False)
    return env


def _meta(meta: Mapping[str, str]) -> dict[str, str]:
    """Each key as written and in capitals; keys with a dot have no variable."""
    env = {}
    for key, value in meta.items():
        if "." not in key:
            name = _NOT_PLAIN.sub("_", key)
            env[f"NOMAD_META_{name}"] = env[f"NOMAD_META_{name.upper()}"] = str(value)
    return env


def _ports(ports: list[Row]) -> dict[str, str]:
    env: dict[str, str] = {}
    for port in ports:
        label, host, value = _NOT_PLAIN.sub("_", port["Label"]), port["HostIP"], str(port["Value"])
        inside = str(port.get("To") or value)
        env |= {
            f"NOMAD_IP_{label}": host, f"NOMAD_PORT_{label}": inside, f"NOMAD_ADDR_{label}": f"{host}:{value}",
            f"NOMAD_HOST_IP_{label}": host, f"NOMAD_HOST_PORT_{label}": value,
            f"NOMAD_HOST_ADDR_{label}": f"{host}:{value}",
            f"NOMAD_ALLOC_PORT_{label}": inside,
        }  # fmt: skip
    return env


def _devices(devices: list[Row]) -> dict[str, str]:
    """What Nomad's nvidia plugin would set."""
    ids = [i for device in devices if device["Vendor"] == "nvidia" for i in device["DeviceIDs"]]
    return {"NVIDIA_VISIBLE_DEVICES": ",".join(ids)} if ids else {}


def interpolate(text: str, env: Mapping[str, str], node: Row, *, strict: bool) -> str:
    """Replace every `${...}`; `$${` stands for itself without its first `$`. Raises UnknownName when strict."""

    def one(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "${"
        value = lookup(match.group(1).strip(), env, node)
        if value is None and strict:
            raise UnknownName(match.group(1).strip())
        return match.group(0) if value is None else value

    return _NAME.sub(one, text) if "$" in text else text


def lookup(name: str, env: Mapping[str, str], node: Row) -> str | None:
    """The value of a name: task environment, node attributes, node metadata, the node itself."""
    if indexed := _ENV_INDEX.fullmatch(name):
        return env.get(indexed.group(1))
    for prefix, table in (("attr.", "Attributes"), ("meta.", "Meta")):
        if name.startswith(prefix):
            found = node[table].get(name.removeprefix(prefix))
            return None if found is None else str(found)
    if name.startswith("env."):
        return env.get(name.removeprefix("env."))
    return env[name] if name in env else node_variable(name, node)


def interpolate_config(value: Any, env: Mapping[str, str], node: Row) -> Any:
    """`interpolate` through a whole driver config. Raises UnknownName."""
    if isinstance(value, str):
        return interpolate(value, env, node, strict=True)
    if isinstance(value, list):
        return [interpolate_config(item, env, node) for item in value]
    if isinstance(value, dict):
        return {key: interpolate_config(item, env, node) for key, item in value.items()}
    return value
