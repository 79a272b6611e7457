"""What a site has to offer: its ready nodes as the cluster shows them. Pure.

Several sites may share one cluster: a node belongs to the sites whose datacenters and node pool it is in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from shared.engine import NodeSeen
from shared.site import NodeCapacity, Site, SiteCapacity

ALL_POOLS = "all"


def known_nodes(nodes: Iterable[NodeSeen]) -> dict[str, NodeSeen]:
    """Nodes of a listing by id: the truth, also about what others use."""
    return {node.id: node for node in nodes}


def with_node(nodes: Mapping[str, NodeSeen], seen: NodeSeen) -> Mapping[str, NodeSeen]:
    """The nodes after one sight on the stream, which never shows what others use; the same mapping if it was old."""
    known = nodes.get(seen.id)
    if known is not None and seen.modify_index <= known.modify_index:
        return nodes
    return {**nodes, seen.id: replace(seen, capacity=_capacity(known, seen.capacity))}


def _capacity(known: NodeSeen | None, seen: NodeCapacity | None) -> NodeCapacity | None:
    if known is None or known.capacity is None or seen is None:
        return seen if seen is not None or known is None else known.capacity
    used = known.capacity
    foreign = {
        "foreign_cpu_mhz": used.foreign_cpu_mhz, "foreign_memory_mib": used.foreign_memory_mib,
        "foreign_disk_mib": used.foreign_disk_mib,
    }  # fmt: skip
    return seen.model_copy(update=foreign)


def usable(node: NodeSeen) -> bool:
    """Whether Nomad would place something there."""
    return node.status == "ready" and node.eligible and not node.draining and node.capacity is not None


def belongs(node: NodeSeen, site: Site) -> bool:
    """Datacenters may have wildcards; the pool `all` has every node (Nomad's own rules)."""
    pool = site.node_pool in (ALL_POOLS, node.node_pool)
    return pool and any(fnmatchcase(node.datacenter, pattern) for pattern in site.datacenters)


def site_capacity(site: Site, nodes: Iterable[NodeSeen]) -> SiteCapacity:
    """The usable nodes of a site, by name."""
    mine = (node.capacity for node in nodes if usable(node) and belongs(node, site))
    return SiteCapacity(nodes=tuple(sorted((c for c in mine if c is not None), key=lambda capacity: capacity.name)))
