"""The sites of a process: one Nomad adapter for each listed cluster, and the registry that knows their health."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx2

from shared.adapters.memory_registry import MemoryRegistry, http_probe
from shared.adapters.nomad import NomadCluster
from shared.ports import SiteRegistry
from shared.processes.backing import Backing
from shared.processes.sites_file import read_sites_file


@dataclass(frozen=True, slots=True)
class Sites:
    """`follow` keeps the registry up to date; it runs as a task of the service."""

    registry: SiteRegistry
    clusters: Mapping[str, NomadCluster]
    follow: Callable[[], Awaitable[None]]


async def open_sites(ground: Backing) -> Sites:
    """The clusters and sites of the settings. Raises Misconfigured when the file is not what it must be."""
    listed = read_sites_file(ground.settings.sites)
    clusters = {name: NomadCluster(settings) for name, settings in listed.cluster_settings().items()}
    for cluster in clusters.values():
        ground.stack.push_async_callback(cluster.aclose)
    asker = await ground.stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
    registry = MemoryRegistry(
        listed.site_list(), probe=http_probe(asker), interval_s=ground.settings.site_health_interval_s
    )
    return Sites(registry, clusters, registry.run)
