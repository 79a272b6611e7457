"""What a site has to offer: its ready nodes as the cluster shows them, and what others hold of them. Pure.

Several sites may share one cluster: a node belongs to the sites whose datacenters and node pool it is in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from services.monitor.others import NOTHING, Room, Use
from shared.engine import NodeSeen
from shared.site import NodeCapacity, Site, SiteCapacity

ALL_POOLS = "all"


def known_nodes(nodes: Iterable[NodeSeen]) -> dict[str, NodeSeen]:
    """Nodes of a listing by id: the truth."""
    return {node.id: node for node in nodes}


def with_node(nodes: Mapping[str, NodeSeen], seen: NodeSeen) -> Mapping[str, NodeSeen]:
    """The nodes after one sight on the stream, which may lack capacity; the same mapping if it was old."""
    known = nodes.get(seen.id)
    if known is not None and seen.modify_index <= known.modify_index:
        return nodes
    return {**nodes, seen.id: replace(seen, capacity=seen.capacity or (known.capacity if known else None))}


def usable(node: NodeSeen) -> bool:
    """Whether Nomad would place something there."""
    return node.status == "ready" and node.eligible and not node.draining and node.capacity is not None


def belongs(node: NodeSeen, site: Site) -> bool:
    """Datacenters may have wildcards; the pool `all` has every node (Nomad's own rules)."""
    pool = site.node_pool in (ALL_POOLS, node.node_pool)
    return pool and any(fnmatchcase(node.datacenter, pattern) for pattern in site.datacenters)


def site_capacity(site: Site, nodes: Iterable[NodeSeen], room: Room | None = None) -> SiteCapacity:
    """The usable nodes of a site, by name, and what others hold of them."""
    held = room or {}
    mine = (
        _with_others(node.capacity, held.get(node.id, NOTHING))
        for node in nodes
        if node.capacity is not None and usable(node) and belongs(node, site)
    )
    return SiteCapacity(nodes=tuple(sorted(mine, key=lambda capacity: capacity.name)))


def _with_others(capacity: NodeCapacity, use: Use) -> NodeCapacity:
    cpu, memory, disk = use
    return capacity.model_copy(update={"foreign_cpu_mhz": cpu, "foreign_memory_mib": memory, "foreign_disk_mib": disk})
