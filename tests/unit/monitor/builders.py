"""Sights of a cluster for the monitor's tests: only what matters is spelled out."""

import json
from typing import Any

from shared.engine import AllocationSeen, EvaluationSeen, JobSeen, NodeSeen, PlacementFailure, TaskEventSeen, TaskSeen
from shared.ids import AttemptId
from tests.builders import VO, a_node, job_id

ALLOCATION = "a0000000-0000-0000-0000-000000000001"


def an_attempt(number: int = 1, attempt: int = 1) -> AttemptId:
    return AttemptId(job_id(number), attempt)


def meta_of(
    attempt: AttemptId, *, vo: str = VO, site: str = "prague", outputs: dict[str, str] | None = None
) -> dict[str, str]:
    """The meta that the adapter gives to a job of ours."""
    rows = [{"name": name, "path": path} for name, path in (outputs or {}).items()]
    return {
        "serai_job": str(attempt.job_id), "serai_attempt": str(attempt.number), "serai_vo": vo, "serai_site": site,
        "serai_nonce": "n", "serai_outputs": json.dumps(rows),
    }  # fmt: skip


def job_seen(attempt: AttemptId, index: int, status: str = "pending", **fields: Any) -> JobSeen:
    defaults = {"namespace": "default", "meta": meta_of(attempt)}
    return JobSeen(id=attempt.nomad_id, modify_index=index, status=status, **(defaults | fields))


def allocation_seen(attempt: AttemptId, index: int, client: str = "pending", **fields: Any) -> AllocationSeen:
    defaults = {"id": ALLOCATION, "namespace": "default", "create_index": 1, "node_name": "node-1"}
    return AllocationSeen(job_id=attempt.nomad_id, modify_index=index, client_status=client, **(defaults | fields))


def evaluation_seen(attempt: AttemptId, index: int, status: str = "pending", **fields: Any) -> EvaluationSeen:
    defaults = {"id": "e1", "namespace": "default"}
    return EvaluationSeen(job_id=attempt.nomad_id, modify_index=index, status=status, **(defaults | fields))


def node_seen(index: int = 1, **fields: Any) -> NodeSeen:
    defaults: dict[str, Any] = {"id": "n1", "name": "node-1", "status": "ready", "eligible": True, "capacity": a_node()}
    return NodeSeen(modify_index=index, **(defaults | fields))


def full(dimension: str = "cpu") -> dict[str, PlacementFailure]:
    return {"main": PlacementFailure(nodes_evaluated=1, nodes_exhausted=1, dimension_exhausted={dimension: 1})}


def started() -> TaskSeen:
    return TaskSeen("main", "running", started_at="2026-11-24T12:00:01Z", events=(TaskEventSeen("Started", 1),))


def ended(exit_code: int = 0, *, signal: int = 0, killed: bool = False, oom: bool = False) -> TaskSeen:
    details = {"exit_code": str(exit_code), "signal": str(signal), "oom_killed": "true" if oom else "false"}
    events = [TaskEventSeen("Started", 1), TaskEventSeen("Terminated", 3, details)]
    if killed:
        events.insert(1, TaskEventSeen("Killing", 2))
    return TaskSeen(
        "main", "dead", exit_code != 0, "2026-11-24T12:00:01Z", "2026-11-24T12:00:03Z", events=tuple(events)
    )
