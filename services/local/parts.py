"""The real parts under the services: broker, databases, Consul, sites. Each is opened by a stack and ended with it."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from services.embedded.agents import HOST, MHZ_PER_CORE, Agent, open_agents
from services.embedded.folder import DataFolder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import EmbeddedSite, read_sites
from services.local.settings import LocalSettings
from shared.adapters.consul import throwaway as consul
from shared.adapters.nomad.local_agent import LocalRegion
from shared.adapters.nomad.local_trust import Authority
from shared.adapters.postgres import throwaway as postgres
from shared.adapters.rabbitmq import throwaway as rabbitmq
from shared.errors import Misconfigured
from shared.runtime.clock import system_clock

SERVICES: Final = ("auth", "scheduler", "monitor", "gateway")
HOME_DATACENTER: Final = "dc1"
AWAY_DATACENTER: Final = "dc2"
AWAY: Final = frozenset({"bari"})
"""Sites that register in the other of the two WAN-joined Consul datacenters."""


@dataclass(slots=True)
class Parts:
    """What was opened: how processes are told of it (`environment`), and what people are told (`addresses`)."""

    sites: Sequence[EmbeddedSite]
    agents: dict[str, Agent]
    """By cluster."""
    environment: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    consuls: Mapping[str, consul.ThrowAwayConsul] = field(default_factory=dict)
    database: postgres.ThrowAway | None = None
    broker: rabbitmq.ThrowAway | None = None

    def agent_of(self, site: EmbeddedSite) -> Agent:
        """The agent of a site's cluster."""
        return self.agents[site.cluster_name]


async def open_parts(settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack) -> Parts:
    """Everything under the services, ready."""
    embedded = EmbeddedSettings(nomad=settings.nomad, end_tasks=True)
    sites = read_sites(settings.sites)
    parts = Parts(sites, dict(await open_agents(sites, folder, embedded, stack, guarded=True)))
    await _open_database(parts, settings, folder, stack)
    await _open_broker(parts, settings, folder, stack)
    await _open_registry(parts, settings, folder, stack)
    return parts


async def _open_broker(
    parts: Parts, settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack
) -> None:
    """A broker for the services and, where it is ours, for readers outside, who come by TLS."""
    authority = Authority(folder.path / "rabbitmq-tls", system_clock())
    pair = authority.issue(folder.path / "rabbitmq-tls", "rabbitmq")
    tls = rabbitmq.Tls(authority.file, pair.certificate, pair.key)
    offer = (
        rabbitmq.Offer(settings.amqp_url)
        if settings.amqp_url
        else await stack.enter_async_context(rabbitmq.whole_broker(folder.path / "rabbitmq", tls))
    )
    parts.broker = offer.server
    parts.environment["SERAI_AMQP_URL"] = parts.addresses["rabbitmq"] = offer.url
    if offer.subscribers_amqp_url:
        parts.environment["SERAI_GATEWAY_SUBSCRIBERS_AMQP_URL"] = offer.subscribers_amqp_url
        parts.environment["SERAI_GATEWAY_SUBSCRIBERS_MANAGEMENT_URL"] = offer.subscribers_management_url
        parts.environment["SERAI_GATEWAY_SUBSCRIBERS_PUBLIC_URL"] = offer.subscribers_public_url


async def _open_database(
    parts: Parts, settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack
) -> None:
    """One PostgreSQL with a database for each service, or an SQLite file for each."""
    if settings.store == "sqlite" or (settings.store == "auto" and postgres.installed() is None):
        if settings.copies > 1:
            raise Misconfigured("several copies of a service need PostgreSQL: 'apt-get install postgresql'")
        parts.environment["SERAI_DATABASE_URL"] = f"sqlite:///{folder.path}/{{service}}.sqlite"
        parts.addresses["database"] = f"{folder.path}/*.sqlite"
        return
    folder.path.chmod(0o711)  # PostgreSQL runs as another user
    where = folder.path / "postgres" if _reached_by_others(folder.path) else None
    parts.database = await stack.enter_async_context(postgres.server(where))
    for service in SERVICES:
        await parts.database.database(f"serai_{service}")
    parts.environment["SERAI_DATABASE_URL"] = parts.database.url("serai_{service}")
    parts.addresses["database"] = f"127.0.0.1:{parts.database.port} (databases serai_auth, serai_gateway, ...)"


def _reached_by_others(path: Path) -> bool:
    """Whether another user can get at what is in a folder; below a private one it gets a place of its own."""
    return os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


async def _open_registry(
    parts: Parts, settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack
) -> None:
    """Two Consul datacenters in which the sites are registered, or all in a file."""
    file = folder.path / "sites.yaml"
    gateway = f"http://{HOST}:{folder.port('gateway-1', settings.port)}"
    parts.environment["SERAI_SITES"] = str(file)
    if settings.registry == "file" or (settings.registry == "auto" and consul.installed() is None):
        file.write_text(yaml.safe_dump(_in_file(parts, gateway), sort_keys=False))
        parts.addresses["sites"] = str(file)
        return
    names = (HOME_DATACENTER, AWAY_DATACENTER)
    more = _checking_with_tls(parts.agents.values())
    parts.consuls = await stack.enter_async_context(consul.datacenters(names, folder.path / "consul", more))
    for site in parts.sites:
        await _register(parts.consuls[_datacenter(site)], site, parts.agent_of(site).address)
    file.write_text(yaml.safe_dump(_in_consul(parts, gateway), sort_keys=False))
    parts.environment["SERAI_CONSUL__ADDRESS"] = parts.consuls[HOME_DATACENTER].address
    parts.addresses |= {f"consul {name}": agent.address for name, agent in parts.consuls.items()}


def _datacenter(site: EmbeddedSite) -> str:
    return AWAY_DATACENTER if site.name in AWAY else HOME_DATACENTER


def _in_file(parts: Parts, gateway: str) -> dict[str, Sequence[dict[str, Any]]]:
    """Clusters and sites with every address and fact."""
    return {
        "clusters": [
            {"name": name, "address": agent.address, "region": name, "platform_url": gateway} | _trusted(agent)
            for name, agent in parts.agents.items()
        ],
        "sites": [
            {
                "name": site.name, "cluster": site.cluster_name, "country": site.country, "vos": list(site.vos),
                "datacenters": [site.datacenter], "node_pool": site.node_pool,
                "hardware": list(site.hardware), "mhz_per_core": MHZ_PER_CORE,
                "carbon_g_per_kwh": site.carbon_g_per_kwh, "cost_per_core_hour": site.cost_per_core_hour,
            }
            for site in parts.sites
        ],
    }  # fmt: skip


def _trusted(agent: Agent) -> dict[str, str]:
    """Authority, name and token files of a real region; embedded agents have none of these."""
    return dict(agent.trusted) if isinstance(agent, LocalRegion) else {}


def authority_of(agent: Agent) -> Path | None:
    """The file of who vouches for its certificates, where it speaks TLS."""
    return Path(_trusted(agent)["ca_file"]) if "ca_file" in _trusted(agent) else None


def _in_consul(parts: Parts, gateway: str) -> dict[str, Sequence[dict[str, Any]]]:
    """Which sites there may be and how far each is trusted; where they are is left to Consul."""
    return {
        "clusters": [
            {"name": name, "region": name, "platform_url": gateway} | _trusted(agent)
            for name, agent in parts.agents.items()
        ],
        "sites": [
            {
                "name": site.name, "cluster": site.cluster_name, "datacenter": _datacenter(site),
                "allowed_hosts": ["127.0.0.1"], "vos": list(site.vos),
                "plain_http": parts.agent_of(site).address.startswith("http://"),
            }
            for site in parts.sites
        ],
    }  # fmt: skip


def _checking_with_tls(agents: Iterable[Agent]) -> dict[str, Any]:
    """What Consul's agents need to ask regions with TLS how they are: they verify the certificates as we do."""
    authority = next((found["ca_file"] for agent in agents if (found := _trusted(agent))), None)
    if authority is None:
        return {}
    return {"ca_file": authority, "enable_agent_tls_for_checks": True, "server_name": "localhost"}


async def _register(agent: consul.ThrowAwayConsul, site: EmbeddedSite, address: str) -> None:
    """What the site's operator registers at the Consul agent beside their Nomad (docs/consul.md)."""
    facts = {
        "site": site.name, "country": site.country, "vos": ",".join(site.vos), "nomad_address": address,
        "nomad_region": site.cluster_name, "nomad_datacenters": site.datacenter, "nomad_node_pool": site.node_pool,
        "hardware": ",".join(site.hardware), "mhz_per_core": MHZ_PER_CORE,
        "carbon_g_per_kwh": site.carbon_g_per_kwh, "cost_per_core_hour": site.cost_per_core_hour,
    }  # fmt: skip
    meta = {name: str(fact) for name, fact in facts.items() if fact not in (None, "")}
    host, _, port = address.partition("://")[2].partition(":")
    check = {"HTTP": f"{address}/v1/agent/health?type=server", "Interval": "1s", "Timeout": "1s"}
    body = {
        "ID": f"serai-site-{site.name}", "Name": "serai-site", "Address": host, "Port": int(port), "Meta": meta,
        "Check": check,
    }  # fmt: skip
    async with httpx2.AsyncClient(base_url=agent.address, trust_env=False, timeout=5.0) as client:
        (await client.put("/v1/agent/service/register", json=body)).raise_for_status()


def folder_for(settings: LocalSettings, fresh: Path) -> Path:
    """The folder to use. Raises Misconfigured when it was used before."""
    path = settings.data or fresh
    if (path / "platform.json").exists():
        raise Misconfigured(
            f"{path} was used before, and its parts were thrown away: choose a new folder, --data FOLDER"
        )
    return path
