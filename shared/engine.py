"""What passes between us and one Nomad cluster, as plain values in Nomad's own terms.

`*Seen` values are what a cluster showed; `AttemptOrder` and the outcomes below are what is asked of it.
Unless said otherwise times are Unix nanoseconds, resources MHz and MiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.ids import AttemptId
from shared.job import JobSpec
from shared.site import NodeCapacity, Site

# -- asked --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """Everything needed to run one attempt at a site. `nonce` tells our register from anybody else's."""

    attempt: AttemptId
    spec: JobSpec
    site: Site
    nonce: str
    traceparent: str
    namespace: str = "default"
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The values of `spec.secrets` by name; kept at the site beside the job, never in it."""


class Submitted(StrEnum):
    """How a register ended for good. A doubt is OutcomeUnknown and is read back by asking again."""

    ACCEPTED = "accepted"
    ALREADY_THERE = "already_there"
    """The id is taken by our own nonce: an earlier register of ours won."""
    CLOSED = "closed"
    """The id is closed by a tombstone: nothing ran and nothing ever will under it."""
    FOREIGN = "foreign"
    """The id is taken by something with another nonce."""
    INVALID = "invalid"
    """Nomad refused the specification; `text` has its words."""


@dataclass(frozen=True, slots=True)
class Submission:
    outcome: Submitted
    text: str = ""


class Closing(StrEnum):
    """How closing an id ended (architecture, section 4)."""

    NEVER_RAN = "never_ran"
    """The tombstone won: every later register is refused."""
    STOPPING = "stopping"
    """The job was there; it is deregistered, and its end shows on the stream."""
    ENDED = "ended"
    """The job was there and has nothing left to stop."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What Nomad's scheduler would do now. Empty `failures` = it would place."""

    failures: Mapping[str, "PlacementFailure"] = field(default_factory=dict)
    warnings: str = ""


# -- seen ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlacementFailure:
    """Nomad's FailedTGAllocs for one task group."""

    nodes_evaluated: int = 0
    nodes_filtered: int = 0
    nodes_exhausted: int = 0
    nodes_available: Mapping[str, int] = field(default_factory=dict)
    constraint_filtered: Mapping[str, int] = field(default_factory=dict)
    class_filtered: Mapping[str, int] = field(default_factory=dict)
    dimension_exhausted: Mapping[str, int] = field(default_factory=dict)
    quota_exhausted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskEventSeen:
    """One of the last ten events of a task; `details` values are strings, as Nomad sends them."""

    type: str
    time: int
    details: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class TaskSeen:
    name: str
    state: str = "pending"
    failed: bool = False
    started_at: str | None = None
    finished_at: str | None = None
    restarts: int = 0
    events: tuple[TaskEventSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class AllocationSeen:
    """`ports` are (label, host address, port). `timeout` is Nomad 2.x's mark for max_run_duration."""

    id: str
    job_id: str
    namespace: str
    modify_index: int
    create_index: int = 0
    node_id: str = ""
    node_name: str = ""
    desired_status: str = "run"
    desired_description: str = ""
    client_status: str = "pending"
    client_description: str = ""
    tasks: tuple[TaskSeen, ...] = ()
    create_time: int = 0
    modify_time: int = 0
    previous_allocation: str = ""
    next_allocation: str = ""
    followup_eval_id: str = ""
    timeout: bool = False
    timeout_reason: str = ""
    migrating: bool = False
    """DesiredTransition Migrate or MigrateDisablePlacement: its node is being drained."""
    preempted: bool = False
    ports: tuple[tuple[str, str, int], ...] = ()
    uses: tuple[int, int, int] = (0, 0, 0)
    """What it holds of its node: (MHz, MiB of memory, MiB of disk); nothing once its client is done."""


@dataclass(frozen=True, slots=True)
class EvaluationSeen:
    id: str
    job_id: str
    namespace: str
    modify_index: int
    status: str
    triggered_by: str = ""
    status_description: str = ""
    blocked_eval: str = ""
    failures: Mapping[str, PlacementFailure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobSeen:
    """`deleted` needs Nomad 1.11.3; before that a deletion shows only on a re-listing."""

    id: str
    namespace: str
    modify_index: int
    status: str = ""
    stop: bool = False
    deleted: bool = False
    type: str = "batch"
    version: int = 0
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """`status` ready, initializing, down or disconnected. `capacity` is None where a stream line lacks resources."""

    id: str
    name: str
    modify_index: int
    status: str
    eligible: bool
    draining: bool = False
    datacenter: str = "dc1"
    node_pool: str = "default"
    capacity: NodeCapacity | None = None


Seen = AllocationSeen | EvaluationSeen | JobSeen | NodeSeen


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the event stream: one transaction (two lines may share an index). Deployments are left out."""

    index: int
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`{}`: the first one is the only proof that the subscription is live."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One re-listing: `index` is the smallest X-Nomad-Index of its parts. `stale` answers prove nothing missing."""

    index: int
    jobs: tuple[JobSeen, ...]
    allocations: tuple[AllocationSeen, ...]
    evaluations: tuple[EvaluationSeen, ...]
    nodes: tuple[NodeSeen, ...]
    known_leader: bool = True


class Presence(StrEnum):
    """Whether a job is there, asked without stale reads and with leader and token proven in the same round."""

    PRESENT = "present"
    ABSENT = "absent"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class LogChunk:
    """`data` at the end of which the stream has `offset` bytes; `data` is empty on a keep-alive."""

    data: bytes
    offset: int


NomadJob = dict[str, Any]
