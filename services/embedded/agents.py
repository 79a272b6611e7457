"""The agents of the sites' clusters: embedded ones, or real Nomad regions where a `nomad` is at hand."""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from services.embedded.agent import AgentSettings, EmbeddedAgent
from services.embedded.agent.settings import NodeSettings
from services.embedded.folder import FIRST_AGENT_PORT, DataFolder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import EmbeddedSite, clusters_of
from shared.adapters.nomad import local_binary
from shared.adapters.nomad.local_agent import LocalRegion
from shared.adapters.nomad.local_config import ClientSettings, RegionSettings
from shared.adapters.nomad.local_trust import Authority
from shared.errors import Misconfigured
from shared.namespaces import DEFAULT
from shared.runtime.clock import system_clock

HOST: Final = "127.0.0.1"
MHZ_PER_CORE: Final = 1000
_FIRST_TASK_PORT: Final = 25_000
_TASK_PORTS: Final = 300
"""Ports for the tasks of each real client: two that share a machine must not share ports."""


class Agent(Protocol):
    """A cluster's agent that runs."""

    @property
    def address(self) -> str: ...


@runtime_checkable
class GuardedAgent(Agent, Protocol):
    """One with ACLs and TLS: what the adapter must be told to be let in."""

    def trusting(self) -> Mapping[str, Any]:
        """Settings of the cluster, beside name, address and region."""


async def open_agents(
    sites: Sequence[EmbeddedSite], folder: DataFolder, settings: EmbeddedSettings, stack: contextlib.AsyncExitStack,
    *, guarded: bool = False,
) -> Mapping[str, Agent]:  # fmt: skip
    """An agent for each cluster of the sites, by its name; ready, stopped by the stack. Real ones are `guarded` by ACLs
    and TLS if that is wanted.

    Raises Misconfigured when a nomad was asked for in vain.
    """
    clusters = clusters_of(sites)
    binary = await _binary(settings.nomad)
    if binary is None:
        return {name: await _embedded(name, members, folder, settings, stack) for name, members in clusters.items()}
    if settings.mock:
        raise Misconfigured("--mock needs embedded agents: leave out --nomad")
    folder.path.chmod(0o711)  # Nomad runs as another user; what is secret here is closed file by file
    authority = Authority(folder.path / "nomad", system_clock()) if guarded else None
    numbers = {site.name: number for number, site in enumerate(sites)}
    regions = {
        name: LocalRegion(binary, _region(name, members, folder, numbers, guarded=guarded), authority)
        for name, members in clusters.items()
    }
    stack.push_async_callback(_stop_all, regions.values(), end_tasks=settings.end_tasks)
    await asyncio.gather(*(region.start() for region in regions.values()))
    return regions


async def _stop_all(regions: Iterable[LocalRegion], *, end_tasks: bool) -> None:
    await asyncio.gather(*(region.stop(end_tasks=end_tasks) for region in regions))


async def _binary(asked: str) -> Path | None:
    if asked == "embedded":
        return None
    found = local_binary.installed("" if asked == "auto" else asked)
    named = os.environ.get("NOMAD_BIN", "") if asked == "auto" else asked
    if found is None and named:
        raise Misconfigured(f"there is no nomad that can be run at {named}: name the binary, or use --nomad embedded")
    if found is not None:
        await local_binary.check(found)
    return found


def _region(
    name: str, sites: Sequence[EmbeddedSite], folder: DataFolder, numbers: Mapping[str, int], *, guarded: bool
) -> RegionSettings:
    """A region with a client for each of its sites."""
    http, rpc, serf = (folder.port(each, FIRST_AGENT_PORT) for each in (f"site/{name}", *_inner(name, "rpc", "serf")))
    return RegionSettings(
        name=name, folder=folder.path / "nomad" / name, ports=(http, rpc, serf),
        clients=tuple(_client(name, site, folder, numbers[site.name]) for site in sites),
        namespaces=_namespaces(sites), guarded=guarded,
    )  # fmt: skip


def _client(cluster: str, site: EmbeddedSite, folder: DataFolder, number: int) -> ClientSettings:
    alone = site.name == cluster
    (named,) = _inner(cluster, "client" if alone else f"client/{site.name}")
    task_ports = _FIRST_TASK_PORT + number * _TASK_PORTS
    return ClientSettings(
        name="client" if alone else f"client-{site.name}", port=folder.port(named, FIRST_AGENT_PORT),
        cpu_mhz=round(site.cores * MHZ_PER_CORE), memory_mib=site.memory_mib, meta={"country": site.country},
        datacenter=site.datacenter, node_pool=site.node_pool, task_ports=(task_ports, task_ports + _TASK_PORTS - 1),
    )  # fmt: skip


def _inner(cluster: str, *names: str) -> tuple[str, ...]:
    return tuple(f"site/{cluster}/{name}" for name in names)


def _namespaces(sites: Sequence[EmbeddedSite]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(namespace for site in sites for namespace in site.namespaces))


async def _embedded(
    name: str, sites: Sequence[EmbeddedSite], folder: DataFolder, settings: EmbeddedSettings,
    stack: contextlib.AsyncExitStack,
) -> EmbeddedAgent:  # fmt: skip
    drivers = ("raw_exec", "exec", "mock_driver") if settings.mock else ("raw_exec", "exec")
    agent = EmbeddedAgent(
        AgentSettings(
            name=name, region=name, data_dir=folder.path / "sites" / name, host=HOST,
            port=folder.port(f"site/{name}", FIRST_AGENT_PORT), unlike=tuple(_node(site) for site in sites),
            drivers=drivers, client_tick_s=settings.client_tick_s, end_tasks_at_stop=settings.end_tasks,
            event_buffer_size=1000, namespaces=(DEFAULT, *_namespaces(sites)),
        )
    )  # fmt: skip
    await agent.start()
    stack.push_async_callback(agent.stop)
    return agent


def _node(site: EmbeddedSite) -> NodeSettings:
    """The node that is all of a site; named after it."""
    return NodeSettings(
        node_name=site.name, datacenter=site.datacenter, node_pool=site.node_pool,
        cpu_mhz=round(site.cores * MHZ_PER_CORE), memory_mb=site.memory_mib, disk_mb=site.disk_mib,
        gpus=tuple(("nvidia", "gpu", model, count) for model, count in site.gpus.items()), country=site.country,
    )  # fmt: skip
