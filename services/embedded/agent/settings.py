"""What one embedded agent is told when it is built: names, size, time scale.

Not read from the environment: `services/embedded` builds it from the platform's own settings.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

GpuSpec = tuple[str, str, str, int]
"""vendor, type, model name, count: as in `nvidia`, `gpu`, `A100`, 2."""


@dataclass(frozen=True)
class NodeSettings:
    """One client node that is unlike the others: which it is, where, and how big."""

    node_name: str
    datacenter: str
    node_pool: str
    cpu_mhz: int
    memory_mb: int
    disk_mb: int
    gpus: tuple[GpuSpec, ...] = ()
    country: str = ""


@dataclass(frozen=True)
class AgentSettings:
    """All durations are seconds, sizes MiB, CPU MHz (Nomad's units)."""

    name: str
    region: str
    data_dir: Path
    datacenter: str = "dc1"
    node_name: str = ""
    node_pool: str = "default"
    nodes: int = 1
    """Client nodes in the region. The platform needs one; node loss with a replacement needs two."""
    unlike: tuple[NodeSettings, ...] = ()
    """Nodes that differ, as those of several datacenters or pools; instead of `nodes` equal ones."""
    host: str = "127.0.0.1"
    port: int = 0
    cpu_mhz: int = 4000
    memory_mb: int = 2048
    disk_mb: int = 50_000
    gpus: tuple[GpuSpec, ...] = ()
    node_meta: Mapping[str, str] = field(default_factory=dict)
    node_attributes: Mapping[str, str] = field(default_factory=dict)
    country: str = ""
    """Becomes the node's Meta["country"]."""
    event_buffer_size: int = 100
    """Transactions kept for late stream readers; Nomad's default."""
    drivers: tuple[str, ...] = ("raw_exec", "exec", "mock_driver")
    client_tick_s: float = 0.0
    """How long a client gathers status changes. Nomad: 0.2; 0 tells each as it comes."""
    client_slow_tick_s: float = 1.0
    """The same for news that change no status (task events). Nomad: five ticks."""
    heartbeat_ttl_s: float = 10.0
    """A node silent for this long is down (or disconnected)."""
    heartbeat_grace_s: float = 10.0
    stream_heartbeat_s: float = 30.0
    stream_gc_s: float = 36.0
    """A refused or dropped stream stays open and silent for about this long, as Go's collector makes it in Nomad."""
    log_heartbeat_s: float = 1.0
    log_check_s: float = 5.0
    """How often logs are looked at for rotation (LogConfig's MaxFileSizeMB and MaxFiles)."""
    deployment_delay_s: float = 1.2
    """Nomad's deployment watcher gathers changes this long before it acts."""
    min_dynamic_port: int = 20_000
    max_dynamic_port: int = 31_999
    namespaces: tuple[str, ...] = ("default",)
    token: str | None = None
    """If set, every call but the open ones needs this X-Nomad-Token."""
    oidc_issuer: str | None = None
    """`iss` of workload identities; None = the agent's own address, "" = none, as Nomad's without `oidc_issuer`."""
    version: str = "2.0.6"
    gc_after_s: float = 4 * 3600.0
    gc_interval_s: float = 300.0
    max_finished_jobs: int = 3_000
    """Memory stays bounded: the longest finished beyond this are collected early. Nomad has no such limit."""
    end_tasks_at_stop: bool = False
    """False: tasks survive the agent, as with Nomad."""
    fsync: bool = True
    snapshot_bytes: int = 32 * 1024 * 1024
    """The journal is folded into a snapshot when it has grown beyond this."""

    @property
    def first_node_name(self) -> str:
        """Nomad names a node after its host; here after the site."""
        return self.node_name or self.name

    def of_each_node(self) -> tuple["AgentSettings", ...]:
        """These settings as each node has them, under its own name."""
        if self.unlike:
            return tuple(replace(self, **asdict(node)) for node in self.unlike)
        name, several = self.first_node_name, self.nodes > 1
        return tuple(
            replace(self, node_name=f"{name}-node{number}" if several else name) for number in range(1, self.nodes + 1)
        )

    @property
    def tells_deletions(self) -> bool:
        """Nomad publishes `Deleted` Job events since 1.11.3; before, rows vanish in silence."""
        return version_tuple(self.version) >= (1, 11, 3)


def version_tuple(text: str) -> tuple[int, ...]:
    """`1.11.3-dev` -> (1, 11, 3)."""
    return tuple(int(part) for part in text.split("-", 1)[0].split("+", 1)[0].split(".") if part.isdigit())
