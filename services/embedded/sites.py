"""The sites of the embedded platform: three built-in ones, or those of a file."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.errors import Misconfigured
from shared.job import Country, SiteName, VoName
from shared.namespaces import namespace_of
from shared.runtime import yaml_files

_PLACE = r"^[a-zA-Z0-9_-]{1,64}$"

CLIMATE, BIO = "vo.climate.example", "vo.bio.example"


class EmbeddedSite(BaseModel):
    """One site with one node. CPU in cores (each counts 1,000 MHz), memory and disk in MiB.

    Sites that name the same `cluster` share an agent; then datacenter or node pool tell them apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    country: Country
    vos: tuple[VoName, ...]
    cluster: SiteName | None = None
    datacenter: str = Field("dc1", pattern=_PLACE)
    node_pool: str = Field("default", pattern=_PLACE)
    cores: float = Field(gt=0, le=4096)
    memory_mib: int = Field(ge=64)
    disk_mib: int = Field(20_000, ge=100)
    gpus: dict[str, int] = {}
    hardware: tuple[str, ...] = ()
    carbon_g_per_kwh: float | None = None
    cost_per_core_hour: float | None = None

    @property
    def cluster_name(self) -> str:
        """The cluster that it is on: one of its own unless it says otherwise."""
        return self.cluster or self.name

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The Nomad namespaces that its operator makes for its VOs."""
        return tuple(namespace_of(vo) for vo in self.vos)


_SITES = TypeAdapter(tuple[EmbeddedSite, ...])

BUILT_IN = (
    EmbeddedSite(name="prague", country="CZ", vos=(CLIMATE, BIO), cores=8, memory_mib=8192, hardware=("x86_64", "ssd"),
                 carbon_g_per_kwh=430, cost_per_core_hour=0.020),
    EmbeddedSite(name="lyon", country="FR", vos=(CLIMATE,), cores=4, memory_mib=4096, hardware=("x86_64",),
                 carbon_g_per_kwh=55, cost_per_core_hour=0.030),
    EmbeddedSite(name="bari", country="IT", vos=(CLIMATE, BIO), cores=16, memory_mib=16_384,
                 hardware=("x86_64", "large-memory"), carbon_g_per_kwh=310, cost_per_core_hour=0.018),
)  # fmt: skip


def read_sites(path: Path | None) -> tuple[EmbeddedSite, ...]:
    """The sites of a YAML file (a list), or the built-in ones. Raises Misconfigured with file, line and mend."""
    if path is None:
        return BUILT_IN
    sites = yaml_files.read(path, _SITES, "a list of sites, see docs/sites.md")
    names = [site.name for site in sites]
    if not sites or len(set(names)) != len(names):
        raise Misconfigured(f"{path}: name at least one site, and each name once; see docs/sites.md")
    for cluster, members in clusters_of(sites).items():
        if len({(site.datacenter, site.node_pool) for site in members}) != len(members):
            raise Misconfigured(f"{path}: sites of cluster {cluster}: give each a datacenter or node_pool of its own")
    return sites


def clusters_of(sites: Iterable[EmbeddedSite]) -> dict[str, tuple[EmbeddedSite, ...]]:
    """The sites of each cluster, by its name."""
    found: dict[str, tuple[EmbeddedSite, ...]] = {}
    for site in sites:
        found[site.cluster_name] = (*found.get(site.cluster_name, ()), site)
    return found
