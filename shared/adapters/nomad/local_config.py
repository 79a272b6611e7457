"""The configuration of a real Nomad region on one machine, as Nomad's agents take it (JSON). Pure.

Used by `local_agent.py` and by tests, which lay more over it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HOST: Final = "127.0.0.1"

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One client of a region: `port` is that of its own HTTP API. CPU in MHz, memory in MiB."""

    port: int
    cpu_mhz: int
    memory_mib: int
    name: str = "client"
    meta: Mapping[str, str] = field(default_factory=dict)
    datacenter: str = "dc1"
    node_pool: str = "default"
    task_ports: tuple[int, int] = (23_000, 23_999)


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """One region. Three loopback ports of its server: HTTP, RPC and serf.

    `guarded`: with ACLs and TLS. `namespaces` are those of the sites' VOs.
    """

    name: str
    folder: Path
    ports: tuple[int, int, int]
    clients: tuple[ClientSettings, ...]
    namespaces: tuple[str, ...] = ()
    guarded: bool = False


def server(settings: RegionSettings) -> Config:
    """The only server of a region. Its event buffer is larger than Nomad's default of 100 lines, and the identities of
    its tasks say whose they are.
    """
    http, rpc, serf = settings.ports
    address = f"{'https' if settings.guarded else 'http'}://{HOST}:{http}"
    return _common(settings, {"http": http, "rpc": rpc, "serf": serf}) | {
        "server": {"enabled": True, "bootstrap_expect": 1, "event_buffer_size": 1000, "oidc_issuer": address}
    }


def client(settings: RegionSettings, one: ClientSettings) -> Config:
    """One client of a region. Cloud metadata are not looked for: there is nobody to answer."""
    return _common(settings, {"http": one.port}) | {
        "datacenter": one.datacenter,
        "client": {
            "enabled": True,
            "servers": [f"{HOST}:{settings.ports[1]}"],
            "node_pool": one.node_pool,
            "network_interface": "lo",
            "cpu_total_compute": one.cpu_mhz,
            "memory_total_mb": one.memory_mib,
            "min_dynamic_port": one.task_ports[0],
            "max_dynamic_port": one.task_ports[1],
            "meta": dict(one.meta),
            "options": {"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean"},
        },
        "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
    }


def tls(ca_file: Path, certificate: Path, key: Path, *, mutual: bool = False) -> Config:
    """TLS for HTTP and between agents, who always show certificates; who asks over HTTP only where it is `mutual`."""
    return {
        "tls": {
            "http": True,
            "rpc": True,
            "ca_file": str(ca_file),
            "cert_file": str(certificate),
            "key_file": str(key),
            "verify_server_hostname": True,
            "verify_https_client": mutual,
        }
    }


def _common(settings: RegionSettings, ports: Mapping[str, int]) -> Config:
    return {
        "region": settings.name,
        "datacenter": "dc1",
        "bind_addr": HOST,
        "disable_update_check": True,
        "ports": dict(ports),
        "advertise": dict.fromkeys(("http", "rpc", "serf"), HOST),
        "acl": {"enabled": settings.guarded},
        "consul": {"auto_advertise": False, "server_auto_join": False, "client_auto_join": False},
    }
