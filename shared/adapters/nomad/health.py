"""The registry's look at a cluster where no Consul looks: Nomad's own question, asked with the cluster's trust."""

from collections.abc import Iterable

from shared.adapters.memory_registry import HEALTH_PATH, Probe
from shared.adapters.nomad.cluster import NomadCluster


def health_probe(clusters: Iterable[NomadCluster]) -> Probe:
    """A probe for MemoryRegistry, which asks by the URL of a site's cluster."""
    by_address = {cluster.settings.address: cluster for cluster in clusters}

    async def probe(url: str) -> bool:
        return await by_address[url.removesuffix(HEALTH_PATH)].healthy()

    return probe
