"""What a site is and how it is doing, as plain frozen values."""

from enum import StrEnum

from shared.job import Country, SiteName, Value, VoName


class SiteHealth(StrEnum):
    """Consul's words for a service's checks; `unreachable` when its datacenter does not answer, `misconfigured` when
    what is registered for the site cannot be used."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    UNREACHABLE = "unreachable"
    MISCONFIGURED = "misconfigured"


UNKNOWN_COUNTRY = "ZZ"
"""ISO 3166 leaves ZZ to its users: the country of a site that has not been heard of yet."""


class Site(Value):
    """A scheduling target (architecture, section 2), as the registry knows it.

    `cluster` names the Nomad cluster; several sites may share one. `mhz_per_core` turns cores into Nomad's MHz.
    """

    name: SiteName
    country: Country
    vos: tuple[VoName, ...]
    cluster: str
    address: str
    region: str = "global"
    datacenters: tuple[str, ...] = ("dc1",)
    node_pool: str = "default"
    hardware: tuple[str, ...] = ()
    mhz_per_core: int = 1000
    carbon_g_per_kwh: float | None = None
    cost_per_core_hour: float | None = None
    health: SiteHealth = SiteHealth.PASSING
    health_reason: str = ""
    """Why it is not passing, a sentence for operators; empty where nobody said."""


class GpuStock(Value):
    """GPUs of one model at a node; `vendor/type/name` as Nomad names devices."""

    model: str
    count: int


class NodeCapacity(Value):
    """One usable node of a site: what it has in all, in MHz and MiB, and what others than us use of it."""

    name: str
    cpu_mhz: int
    memory_mib: int
    disk_mib: int
    gpus: tuple[GpuStock, ...] = ()
    drivers: tuple[str, ...] = ()
    foreign_cpu_mhz: int = 0
    foreign_memory_mib: int = 0
    foreign_disk_mib: int = 0


class SiteCapacity(Value):
    """What the monitor saw at a site: its ready and eligible nodes."""

    nodes: tuple[NodeCapacity, ...] = ()
