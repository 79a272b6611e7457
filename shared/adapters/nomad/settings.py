"""Settings of one Nomad cluster, as a service's settings hold them. Where a cluster is told apart from a site: sites
may share a cluster; address, trust and token belong to the cluster.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class ClusterSettings(BaseModel):
    """One Nomad cluster: how to reach it, whom to trust there, and what may be asked of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Our name of the cluster, as sites' `cluster` has it; appears in messages.")
    address: str = Field(
        pattern=r"^https?://[^\s/]+$",
        description="URL of Nomad's HTTP API without a path, as `https://nomad.site.example:4646`.",
    )
    region: str = Field(
        "", description="Nomad region to ask for; empty is the agent's own. Another one is forwarded by the agent."
    )
    token: SecretStr = Field(SecretStr(""), description="Nomad ACL token; empty where the cluster has no ACLs.")
    token_file: Path | None = Field(None, description="File with the token; read again when it changes.")
    ca_file: Path | None = Field(
        None, description="PEM file of the only authorities trusted for this cluster; absent means the system's own."
    )
    tls_server_name: str = Field(
        "", description="Name in the server's certificate where the address has another, as `server.global.nomad`."
    )
    client_certificate_file: Path | None = Field(
        None, description="PEM certificate shown to clusters that verify their clients (`verify_https_client`)."
    )
    client_key_file: Path | None = Field(None, description="PEM key of the client certificate.")
    platform_url: str = Field(
        "", pattern=r"^$|^https?://[^\s/]+$", description="URL of the gateway as tasks of this cluster reach it, given "
        "to them as SERAI_URL beside a token of their own. Empty: they get neither."
    )  # fmt: skip
    identity_ttl_s: int = Field(
        3600, ge=60, le=3600, description="Seconds a task's own token is good; Nomad renews it in time."
    )
    connections: int = Field(
        10,
        ge=4,
        le=50,
        description="Connections for calls, of scheduler and monitor together: half for each. The monitor's event "
        "stream is one more. Nomad allows 100 per source address and says 429 beyond.",
    )
    log_connections: int = Field(
        20, ge=1, le=60, description="Connections for logs that users follow, beside those for calls: one for each."
    )
    connect_timeout_s: float = Field(3.0, gt=0, description="Seconds to open a connection, TLS included.")
    call_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Seconds for one call in all. Nomad itself waits up to 5 s for a leader before it says 500.",
    )
    listing_timeout_s: float = Field(60.0, gt=0, description="Seconds for one whole re-listing with all its pages.")
    page_size: int = Field(1000, ge=1, le=10_000, description="Rows asked for per page of a listing.")
    first_heartbeat_s: float = Field(
        3.0, gt=0, description="Seconds to the first `{}` of an event stream. Nomad answers a refused one with silence."
    )
    silence_s: float = Field(
        37.0, gt=0, description="Seconds without a line after which an event stream is dead; Nomad's beat is 30 s."
    )
    stream_buffer_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="Lines read from the stream but not yet taken, in bytes. Beyond it the stream is given up and "
        "resumed: Nomad drops readers that stop reading without a word.",
    )
    command_driver: Literal["raw_exec", "exec"] = Field(
        "raw_exec", description="Driver of jobs without an image. A site may say otherwise by its `hardware`."
    )
    allow_mock: bool = Field(
        False, description="Let jobs run on Nomad's mock_driver, which starts no process. For load tests only."
    )
    kill_timeout_s: float = Field(
        10.0,
        ge=0,
        description="Seconds between the polite and the hard end of a task; clients cap it at 30 by default.",
    )
    batch_lost_after_s: int = Field(
        30 * 86_400,
        ge=1,
        description="Seconds for which Nomad may not replace batch work of a node that is away. Long: the platform "
        "decides after `node_grace`, and Nomad replaces regardless of `replace` when this has passed.",
    )
    service_lost_after_s: int = Field(
        60, ge=1, description="Seconds a service's node may be away before Nomad replaces its allocation."
    )
    runtime_margin_s: float = Field(
        60.0, ge=0, description="Seconds by which Nomad's own limit for batch lies behind the platform's `max_runtime`."
    )

    @property
    def calls_at_a_time(self) -> int:
        """Calls of one service: its half of the connections, but for the one that is kept free for asking how the
        cluster is. That question must not wait behind work, or load would look like silence.
        """
        return self.connections // 2 - 1
