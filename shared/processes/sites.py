"""The sites of a process: one Nomad adapter for each listed cluster, and the registry that knows their health."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.adapters.consul import ConsulRegistry
from shared.adapters.memory_registry import MemoryRegistry
from shared.adapters.nomad import ClusterSettings, NomadCluster
from shared.adapters.nomad.health import health_probe
from shared.errors import Unavailable
from shared.ports import SiteRegistry
from shared.processes.backing import Backing
from shared.processes.sites_file import ConsulSitesFile, ListedCluster, SitesFile, read_sites_file
from shared.runtime import logs
from shared.site import Site

log = logs.get("processes.sites")


@dataclass(frozen=True, slots=True)
class Sites:
    """`tasks` keep the registry up to date; they run as tasks of the service."""

    registry: SiteRegistry
    clusters: Mapping[str, NomadCluster]
    tasks: Mapping[str, Callable[[], Awaitable[None]]]


async def open_sites(ground: Backing) -> Sites:
    """The clusters and sites of the settings; waits for Consul where that says where they are.

    Raises Misconfigured when the file is not what it must be.
    """
    return await (_from_file(ground) if ground.consul is None else _from_consul(ground))


async def _from_file(ground: Backing) -> Sites:
    listed = read_sites_file(ground.settings.sites, SitesFile)
    sites = listed.site_list()
    clusters = _open(ground, {cluster.name: cluster.opened(service=ground.service) for cluster in listed.clusters})
    registry = MemoryRegistry(
        sites, probe=health_probe(clusters.values()),
        interval_s=ground.settings.site_health_interval_s,
    )  # fmt: skip
    return Sites(registry, clusters, {"registry": registry.run})


async def _from_consul(ground: Backing) -> Sites:
    """A cluster without an address in the file is where Consul says that its sites are."""
    assert ground.consul is not None
    listed = read_sites_file(ground.settings.sites, ConsulSitesFile)
    registry = ConsulRegistry(ground.consul, listed.sites)
    ground.start("registry", registry.run)
    await ground.door.until("consul", registry.ready)

    async def located() -> Mapping[str, str]:
        return locate(listed.clusters, await registry.sites())

    places = await ground.door.until("sites", located)
    for cluster in listed.clusters:
        if cluster.name not in places:
            log.warning("site_without_address", cluster=cluster.name, mend="register the site in Consul")
    opened = {
        each.name: each.opened(places[each.name], ground.service) for each in listed.clusters if each.name in places
    }
    clusters = _open(ground, opened)

    async def follow() -> None:
        async for sites in registry.changes():
            check_unmoved(listed.clusters, places, sites)

    return Sites(registry, clusters, {"site-addresses": follow})


def locate(clusters: Sequence[ListedCluster], sites: Sequence[Site]) -> Mapping[str, str]:
    """Address by cluster, of those that have one. Raises Unavailable while there is none at all."""
    found = {cluster.name: cluster.address for cluster in clusters if cluster.address}
    found |= {cluster: addresses[0] for cluster, addresses in _told(clusters, sites).items()}
    if not found:
        raise Unavailable("Consul knows the address of none of the listed sites: see `serai-site` in docs/consul.md")
    return found


def check_unmoved(clusters: Sequence[ListedCluster], before: Mapping[str, str], sites: Sequence[Site]) -> None:
    """Raises RuntimeError for a cluster that none of its sites is at any more, or that has its first address now.

    Connections, streams and checkpoints belong to an address: another one takes a new start of the process.
    """
    for cluster, addresses in _told(clusters, sites).items():
        if cluster not in before:
            raise RuntimeError(f"the Nomad of {cluster} is known now, at {addresses[0]}: start anew")
        if before[cluster] not in addresses:
            raise RuntimeError(f"the Nomad of {cluster} is at {addresses[0]} now, not at {before[cluster]}: start anew")


def _told(clusters: Sequence[ListedCluster], sites: Sequence[Site]) -> dict[str, list[str]]:
    """Of each cluster that the file leaves to Consul: where its sites are. Two sites may name two of its servers."""
    left_to_consul = {cluster.name for cluster in clusters if not cluster.address}
    found: dict[str, list[str]] = {}
    for site in sites:
        if site.cluster in left_to_consul and site.address:
            found.setdefault(site.cluster, []).append(site.address)
    return found


def _open(ground: Backing, settings: Mapping[str, ClusterSettings]) -> dict[str, NomadCluster]:
    clusters = {name: NomadCluster(each) for name, each in settings.items()}
    for cluster in clusters.values():
        ground.stack.push_async_callback(cluster.aclose)
    return clusters
