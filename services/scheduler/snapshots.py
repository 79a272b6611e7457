"""One immutable snapshot of all sites, put together from what the registry, the monitor and our own records say.

Pure. `store.read_facts` reads the records, `placement.py` decides over the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.scheduler.placement import NodeRoom, SiteView, Snapshot, occupied
from services.scheduler.records import Need
from shared.site import NodeCapacity, Site, SiteCapacity


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """What was last observed of a site."""

    name: str
    capacity: SiteCapacity | None = None
    observed_at: datetime | None = None
    unreachable_since: datetime | None = None
    suspect: bool = False
    critical_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """`count` attempts of ours that take the same room at a site; `node` is None where Nomad's choice is not known."""

    site: str
    node: str | None
    need: Need
    count: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the scheduler's own records say of the sites at one moment."""

    records: Mapping[str, SiteRecord] = field(default_factory=dict)
    cordons: Mapping[str, str] = field(default_factory=dict)
    usage: Sequence[Usage] = ()


def take(sites: Sequence[Site], facts: Facts, namespaces: Mapping[str, frozenset[str]] | None = None) -> Snapshot:
    """The snapshot; `namespaces` by cluster, where known."""
    views = {site.name: _view(site, facts, (namespaces or {}).get(site.cluster)) for site in sites}
    for used in sorted(facts.usage, key=lambda used: used.node is None):
        for _ in range(used.count if used.site in views else 0):
            views[used.site] = occupied(views[used.site], used.need, used.node)
    return Snapshot(views)


def _view(site: Site, facts: Facts, namespaces: frozenset[str] | None) -> SiteView:
    record = facts.records.get(site.name) or SiteRecord(site.name)
    nodes = None if record.capacity is None else tuple(_room(node) for node in record.capacity.nodes)
    return SiteView(
        site=site, nodes=nodes, reachable=record.unreachable_since is None, suspect=record.suspect,
        cordoned=facts.cordons.get(site.name), namespaces=namespaces,
    )  # fmt: skip


def _room(node: NodeCapacity) -> NodeRoom:
    return NodeRoom(
        name=node.name, cpu_mhz=node.cpu_mhz, memory_mib=node.memory_mib, disk_mib=node.disk_mib,
        cpu_free=node.cpu_mhz - node.foreign_cpu_mhz, memory_free=node.memory_mib - node.foreign_memory_mib,
        disk_free=node.disk_mib - node.foreign_disk_mib, drivers=frozenset(node.drivers), gpus=node.gpus,
        gpus_free=node.gpus,
    )  # fmt: skip
