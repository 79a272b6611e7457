"""From Nomad's JSON to `shared.engine`'s Seen values. Pure; used on stream lines and on rows of listings alike.

Nomad leaves out zero values of allocations and evaluations and writes null for empty maps: an absent key, a null and a
zero are the same here. Topics that nobody asked for are passed over. An event's `Type` is that of its whole
transaction and says nothing about the object, so it is not read (reference/nomad.md, 1.6).
"""

from collections.abc import Mapping
from typing import Any

import orjson

from shared.engine import (
    AllocationSeen,
    EvaluationSeen,
    Heartbeat,
    JobSeen,
    Line,
    NodeSeen,
    PlacementFailure,
    Seen,
    TaskEventSeen,
    TaskSeen,
)
from shared.site import GpuStock, NodeCapacity

Row = Mapping[str, Any]

_HEARTBEAT = Heartbeat()


def line_of(raw: bytes) -> Line | Heartbeat:
    """One whole line of the event stream. Raises ValueError when it is not Nomad's."""
    found = orjson.loads(raw)
    if not isinstance(found, dict):
        raise ValueError(f"not a line of an event stream: {raw[:80]!r}")
    if not found:
        return _HEARTBEAT
    try:
        events = found.get("Events") or ()
        seen = tuple(one for event in events if (one := _seen(event["Topic"], event.get("Payload") or {})))
        return Line(found["Index"], seen)
    except (KeyError, TypeError, AttributeError) as wrong:
        raise ValueError(f"not a line of an event stream ({wrong!r}): {raw[:80]!r}") from wrong


def _seen(topic: str, payload: Row) -> Seen | None:
    match topic:
        case "Allocation":
            timeout, reason = payload.get("Timeout") or False, payload.get("TimeoutReason") or ""
            return allocation_of(payload["Allocation"], timeout=timeout, timeout_reason=reason)
        case "Evaluation":
            return evaluation_of(payload["Evaluation"])
        case "Job":
            return job_of(payload["Job"], deleted=payload.get("Deleted") or False)
        case "Node":
            return node_of(payload["Node"])
        case _:
            return None


def allocation_of(row: Row, *, timeout: bool = False, timeout_reason: str = "") -> AllocationSeen:
    """An allocation of the stream or the stub of a listing (which lacks `PreviousAllocation`)."""
    get = row.get
    transition = get("DesiredTransition") or {}
    return AllocationSeen(
        id=row["ID"],
        job_id=row["JobID"],
        namespace=get("Namespace") or "default",
        modify_index=get("ModifyIndex") or 0,
        create_index=get("CreateIndex") or 0,
        node_id=get("NodeID") or "",
        node_name=get("NodeName") or "",
        desired_status=get("DesiredStatus") or "run",
        desired_description=get("DesiredDescription") or "",
        client_status=get("ClientStatus") or "pending",
        client_description=get("ClientDescription") or "",
        tasks=_tasks(get("TaskStates") or {}),
        create_time=get("CreateTime") or 0,
        modify_time=get("ModifyTime") or 0,
        previous_allocation=get("PreviousAllocation") or "",
        next_allocation=get("NextAllocation") or "",
        followup_eval_id=get("FollowupEvalID") or "",
        timeout=timeout,
        timeout_reason=timeout_reason,
        migrating=bool(transition.get("Migrate") or transition.get("MigrateDisablePlacement")),
        preempted=bool(get("PreemptedByAllocation")),
        ports=_ports(get("AllocatedResources") or {}),
        uses=used_by(row),
    )


def _tasks(states: Row) -> tuple[TaskSeen, ...]:
    return tuple(_task(name, states[name] or {}) for name in sorted(states))


def _task(name: str, state: Row) -> TaskSeen:
    return TaskSeen(
        name=name,
        state=state.get("State") or "pending",
        failed=state.get("Failed") or False,
        started_at=_moment(state.get("StartedAt")),
        finished_at=_moment(state.get("FinishedAt")),
        restarts=state.get("Restarts") or 0,
        events=tuple(_task_event(event) for event in state.get("Events") or ()),
    )


def _moment(text: str | None) -> str | None:
    """Go's zero time means: never."""
    return None if not text or text.startswith("0001-01-01T") else text


def _task_event(event: Row) -> TaskEventSeen:
    message = event.get("DisplayMessage") or event.get("Message") or ""
    return TaskEventSeen(event["Type"], event.get("Time") or 0, event.get("Details") or {}, message)


def _ports(resources: Row) -> tuple[tuple[str, str, int], ...]:
    shared = resources.get("Shared") or {}
    return tuple(
        (port.get("Label") or "", port.get("HostIP") or "", port.get("Value") or 0)
        for port in shared.get("Ports") or ()
    )


def evaluation_of(row: Row) -> EvaluationSeen:
    """An evaluation; listings give the same fields as the stream."""
    return EvaluationSeen(
        id=row["ID"],
        job_id=row["JobID"],
        namespace=row.get("Namespace") or "default",
        modify_index=row.get("ModifyIndex") or 0,
        status=row.get("Status") or "pending",
        triggered_by=row.get("TriggeredBy") or "",
        status_description=row.get("StatusDescription") or "",
        blocked_eval=row.get("BlockedEval") or "",
        failures=failures_of(row.get("FailedTGAllocs")),
    )


def failures_of(groups: Row | None) -> dict[str, PlacementFailure]:
    """Nomad's `FailedTGAllocs`, of an evaluation or a plan."""
    return {name: _failure(metrics or {}) for name, metrics in (groups or {}).items()}


def _failure(metrics: Row) -> PlacementFailure:
    return PlacementFailure(
        nodes_evaluated=metrics.get("NodesEvaluated") or 0,
        nodes_filtered=metrics.get("NodesFiltered") or 0,
        nodes_exhausted=metrics.get("NodesExhausted") or 0,
        nodes_available=metrics.get("NodesAvailable") or {},
        constraint_filtered=metrics.get("ConstraintFiltered") or {},
        class_filtered=metrics.get("ClassFiltered") or {},
        dimension_exhausted=metrics.get("DimensionExhausted") or {},
        quota_exhausted=tuple(metrics.get("QuotaExhausted") or ()),
    )


def job_of(row: Row, *, deleted: bool = False) -> JobSeen:
    """A job of the stream, or the stub of a listing (which lacks `Version`)."""
    return JobSeen(
        id=row["ID"],
        namespace=row.get("Namespace") or "default",
        modify_index=row.get("ModifyIndex") or 0,
        status=row.get("Status") or "",
        stop=row.get("Stop") or False,
        deleted=deleted,
        type=row.get("Type") or "batch",
        version=row.get("Version") or 0,
        meta=row.get("Meta") or {},
    )


def node_of(row: Row) -> NodeSeen:
    """A node of the stream or of a listing: neither says what others use of it."""
    return NodeSeen(
        id=row["ID"],
        name=row.get("Name") or "",
        modify_index=row.get("ModifyIndex") or 0,
        status=row.get("Status") or "",
        eligible=row.get("SchedulingEligibility") == "eligible",
        draining=bool(row.get("Drain") or row.get("DrainStrategy")),
        datacenter=row.get("Datacenter") or "",
        node_pool=row.get("NodePool") or "default",
        capacity=_capacity(row) if row.get("NodeResources") else None,
    )


def _capacity(row: Row) -> NodeCapacity:
    def free(block: str, unit: str) -> int:
        return int(_figure(row["NodeResources"], block, unit) - _figure(row.get("ReservedResources"), block, unit))

    drivers = (row.get("Drivers") or {}).items()
    return NodeCapacity(
        name=row.get("Name") or "",
        cpu_mhz=free("Cpu", "CpuShares"),
        memory_mib=free("Memory", "MemoryMB"),
        disk_mib=free("Disk", "DiskMB"),
        gpus=tuple(_gpus(row["NodeResources"].get("Devices") or ())),
        drivers=tuple(sorted(name for name, driver in drivers if (driver or {}).get("Healthy"))),
    )


def _figure(resources: Row | None, block: str, unit: str) -> int:
    return ((resources or {}).get(block) or {}).get(unit) or 0


def _gpus(devices: Any) -> list[GpuStock]:
    return [
        GpuStock(
            model=f"{device.get('Vendor')}/{device.get('Type')}/{device.get('Name')}",
            count=sum(1 for instance in device.get("Instances") or () if instance.get("Healthy")),
        )
        for device in devices
        if device.get("Type") == "gpu"
    ]


def used_by(row: Row) -> tuple[int, int, int]:
    """What an allocation holds of its node: (MHz, MiB of memory, MiB of disk); nothing once its client is done."""
    if row.get("ClientStatus") in ("complete", "failed", "lost"):
        return 0, 0, 0
    resources = row.get("AllocatedResources") or {}
    tasks = [task or {} for task in (resources.get("Tasks") or {}).values()]
    return (
        sum(_figure(task, "Cpu", "CpuShares") for task in tasks),
        sum(_figure(task, "Memory", "MemoryMB") for task in tasks),
        _figure(resources, "Shared", "DiskMB"),
    )
