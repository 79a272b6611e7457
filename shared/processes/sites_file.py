"""The file of clusters and sites that a scheduler and a monitor are told: whom to trust, and for which VOs."""

from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, model_validator

from shared.adapters.consul import settings as consul
from shared.adapters.nomad import ClusterSettings
from shared.errors import Misconfigured
from shared.job import Country, SiteName, VoName
from shared.runtime import yaml_files
from shared.site import Site


class ListedCluster(ClusterSettings):
    """A Nomad cluster; its token stands in a file of its own, which only the service may read.

    An empty address is left to Consul: it is where the cluster's sites are.
    """

    address: str = Field("", pattern=r"^(https?://[^\s/]+)?$")
    token_file: Path | None = Field(
        None, description="File with the Nomad ACL token, instead of `token`; read again when it changes. "
        "`{service}` in it is `scheduler` or `monitor`, whose tokens differ."
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file is not None and self.token.get_secret_value():
            raise ValueError(f"cluster {self.name}: give token or token_file, not both")
        return self

    def opened(self, address: str = "", service: str = "") -> ClusterSettings:
        """The settings as the adapter takes them. Raises Misconfigured when there is no token in the token's file."""
        kept = self.model_dump(exclude={"token_file", "token", "address"}) | {"address": self.address or address}
        if self.token_file is None:
            return ClusterSettings(**kept, token=self.token)
        file = Path(str(self.token_file).replace("{service}", service))
        return ClusterSettings(**kept, token=self._token_of(file), token_file=file)

    def _token_of(self, file: Path) -> SecretStr:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Misconfigured(f"cluster {self.name}: token_file {file}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise Misconfigured(f"cluster {self.name}: token_file {file}: is not text") from None
        if not token:
            raise Misconfigured(f"cluster {self.name}: token_file {file}: is empty")
        return SecretStr(token)


class ListedSite(BaseModel):
    """A scheduling target within a cluster. Prices per core and hour, carbon in grams per kWh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    cluster: str
    country: Country
    vos: tuple[VoName, ...]
    datacenters: tuple[str, ...] = ("dc1",)
    node_pool: str = "default"
    hardware: tuple[str, ...] = ()
    mhz_per_core: int = Field(1000, ge=1)
    carbon_g_per_kwh: float | None = None
    cost_per_core_hour: float | None = None

    def as_site(self, cluster: ClusterSettings) -> Site:
        return Site(**self.model_dump(), address=cluster.address, region=cluster.region or "global")


S = TypeVar("S", ListedSite, consul.ListedSite)


def _share_nodes(one: S, other: S) -> bool:
    """Whether two sites have nodes in common, as far as the file says where they are."""
    if (one.cluster or one.name) != (other.cluster or other.name) or not (one.datacenters and other.datacenters):
        return False
    pools = {one.node_pool, other.node_pool}
    same_pool = None not in pools and (len(pools) == 1 or "all" in pools)
    return same_pool and any(
        fnmatchcase(here, there) or fnmatchcase(there, here) for here in one.datacenters for there in other.datacenters
    )


class _SitesFile(BaseModel, Generic[S]):
    """Everything in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clusters: tuple[ListedCluster, ...]
    sites: tuple[S, ...]

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if not self.clusters or not self.sites:
            raise ValueError("name at least one cluster and one site")
        clusters = [cluster.name for cluster in self.clusters]
        for names in (clusters, [site.name for site in self.sites]):
            if len(set(names)) != len(names):
                raise ValueError("a name stands there twice")
        for site in self.sites:
            if (site.cluster or site.name) not in clusters:
                raise ValueError(f"site {site.name}: there is no cluster {site.cluster or site.name!r}")
        for one, other in combinations(self.sites, 2):
            if _share_nodes(one, other):
                raise ValueError(
                    f"sites {one.name} and {other.name} offer the same nodes of their cluster, whose room would count "
                    "twice: tell them apart by `datacenters` or `node_pool`"
                )
        return self


class SitesFile(_SitesFile[ListedSite]):
    """Without Consul: every address and every fact stands in the file."""

    def site_list(self) -> tuple[Site, ...]:
        """Raises Misconfigured for a cluster without an address."""
        clusters = {cluster.name: cluster for cluster in self.clusters}
        for cluster in self.clusters:
            if not cluster.address:
                raise Misconfigured(f"cluster {cluster.name}: give its address, or name a Consul that knows it")
        return tuple(site.as_site(clusters[site.cluster]) for site in self.sites)


class ConsulSitesFile(_SitesFile[consul.ListedSite]):
    """With Consul: the file says which sites there may be and how far each is trusted (docs/consul.md)."""


F = TypeVar("F", SitesFile, ConsulSitesFile)


def read_sites_file(path: Path | None, kind: type[F]) -> F:
    """The clusters and sites of a file. Raises Misconfigured with file, line and what is wrong there."""
    if path is None:
        raise Misconfigured("SERAI_SITES is not set: name the YAML file of clusters and sites (docs/processes.md)")
    return yaml_files.read(path, TypeAdapter(kind), "clusters and sites, see docs/processes.md")
