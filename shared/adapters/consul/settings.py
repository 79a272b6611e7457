"""Settings of Consul, as a service's settings hold them: our agent, how to ask it, and which sites to look for there.

Trust towards a site's Nomad (CA, token, TLS name) is not here: it belongs to the cluster (`nomad/settings.py`).
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from shared.damping import Damping
from shared.job import Country, SiteName, VoName

ServiceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,126}[A-Za-z0-9])?$")]
Datacenter = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[^\s]{1,255}$")]

SITE_SERVICE = "serai-site"
PRIVATE = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")


class ListedSite(BaseModel):
    """A site that may be used: where in Consul it is looked for, and what of it is not left to Consul.

    What stands here as a fact (country, VOs, ...) wins over what the site registers; what is absent is read from the
    service's meta. A service that is not `serai-site` carries no site's name: all its copies with `tags` are the site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    datacenter: Datacenter = Field(description="Consul datacenter in which the site registers; no other one counts.")
    cluster: str = Field("", description="Nomad cluster whose trust is used for the site; empty is the site's name.")
    service: ServiceName = Field(
        "serai-site", description="Consul service that stands for the site: `serai-site`, or plain `nomad`."
    )
    tags: tuple[Tag, ...] = Field(
        (), description="Tags that a copy of the service must have; `http` alone where the service is plain `nomad`."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Where the site's Nomad may be: addresses, networks (`192.0.2.0/24`), names, or `.domain` for "
        "all names below it. Empty is anywhere, with https."
    )  # fmt: skip
    plain_http: bool = Field(
        False, description="Accept an address without TLS. Only together with `allowed_hosts`, and only on loopback or "
        "in a network that nobody else is in."
    )  # fmt: skip
    country: Country | None = Field(None, description="ISO 3166 code of the country.")
    vos: tuple[VoName, ...] | None = Field(None, description="VOs that the site may serve.")
    address: str | None = Field(
        None, pattern=r"^https?://[^\s/]+$", description="URL of Nomad's HTTP API, where it is not left to Consul."
    )
    region: str | None = Field(None, description="Nomad region.")
    datacenters: tuple[str, ...] | None = Field(None, description="Nomad datacenters of the site.")
    node_pool: str | None = Field(None, description="Nomad node pool of the site.")
    hardware: tuple[str, ...] | None = Field(None, description="Words for what the site has, as `x86_64`.")
    mhz_per_core: int | None = Field(None, ge=1, le=100_000, description="MHz that count as one core at the site.")
    carbon_g_per_kwh: float | None = Field(None, ge=0, le=5000, description="Grams of CO2 per kWh.")
    cost_per_core_hour: float | None = Field(None, ge=0, le=10_000, description="Cost of a core for one hour.")

    @property
    def by_name(self) -> bool:
        """Whether copies of the service say in their meta which site they are."""
        return self.service == SITE_SERVICE

    @property
    def wanted_tags(self) -> frozenset[str]:
        if not self.tags and self.service == "nomad":
            return frozenset({"http"})
        return frozenset(self.tags)

    @model_validator(mode="after")
    def _plain_http_is_bound(self) -> Self:
        if self.plain_http and not self.allowed_hosts:
            raise ValueError(
                f"site {self.name}: plain_http needs allowed_hosts, or Consul could send our token anywhere"
            )
        return self


class ConsulSettings(BaseModel):
    """Our Consul agent: how to reach it, how long to wait, what of it to believe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "http://127.0.0.1:8500", pattern=r"^https?://[^\s/@]+$", description="URL of our agent's HTTP API, no path."
    )
    token: SecretStr = Field(SecretStr(""), description="Consul ACL token; empty where there are no ACLs.")
    token_file: Path | None = Field(
        None, description="File with the token instead; read again when it changes, so it can be renewed at any time."
    )
    ca_file: Path | None = Field(None, description="PEM file of the only authorities trusted for the agent.")
    tls_server_name: str = Field(
        "", description="Name in the agent's certificate where the address has another, as `server.dc1.consul`."
    )
    client_certificate_file: Path | None = Field(None, description="PEM certificate for agents that ask for one.")
    client_key_file: Path | None = Field(None, description="PEM key of the client certificate.")
    connect_timeout_s: float = Field(3.0, gt=0, description="Seconds to open a connection, TLS included.")
    call_timeout_s: float = Field(8.0, gt=0, description="Seconds for an answer, beyond what a query asks to wait.")
    wait_s: int = Field(
        30, ge=1, le=600, description="Seconds that a blocking query waits for a change. A silent loss of a datacenter "
        "is seen after about this long."
    )  # fmt: skip
    pace_s: float = Field(0.2, ge=0, le=60, description="Least seconds between two queries for the same service.")
    retry_first_s: float = Field(0.5, gt=0, description="Seconds before a failed query is made again; doubles.")
    retry_most_s: float = Field(15, gt=0, description="Longest pause in seconds before a failed query is made again.")
    answer_limit_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest answer that is read; a larger one counts as none."
    )
    last_known_s: float = Field(
        3600, ge=0, description="Seconds that sites keep their last known health while our own agent does not answer "
        "or refuses our token; then they are unreachable. The loss of Consul is not the loss of the sites."
    )  # fmt: skip
    worse_after_s: float = Field(10, ge=0, description="Seconds of trouble before a site is shown as bad.")
    better_after_s: float = Field(
        20, ge=0, description="Seconds without trouble before a site is shown as good again; doubles with every fall "
        "within `flap_window_s`."
    )  # fmt: skip
    better_most_s: float = Field(300, ge=0, description="Most seconds without trouble that are asked for.")
    flap_window_s: float = Field(900, ge=0, description="Seconds after which a fall is forgotten.")
    service_hosts: tuple[str, ...] = Field(
        PRIVATE, description="Where our own services may be, in the form of a site's `allowed_hosts`: they are sent "
        "the services' secret, so what Consul says is not enough. Default: loopback and private networks."
    )  # fmt: skip

    @property
    def damping(self) -> Damping:
        return Damping(self.worse_after_s, self.better_after_s, self.better_most_s, self.flap_window_s)
