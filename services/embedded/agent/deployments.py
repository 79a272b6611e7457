"""Deployments of service jobs: health counted, success or a new try decided after the watcher's delay.

Acts on a `Region`; called with client updates and by timers.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .entities import Alloc, Job
from .jobspec import Row
from .rows import NO_TRANSITION, evaluation, rfc3339
from .transaction import Txn

if TYPE_CHECKING:
    from .region import Region


def count_health(txn: Txn, deployment: Row, group: str, healthy: bool, now: int) -> None:
    """One more healthy or unhealthy allocation."""
    groups = {name: dict(state) for name, state in deployment["TaskGroups"].items()}
    state = groups[group]
    state["HealthyAllocs" if healthy else "UnhealthyAllocs"] += 1
    if healthy:
        state["RequireProgressBy"] = rfc3339(now + state["ProgressDeadline"])
    txn.put_deployment({**deployment, "TaskGroups": groups})


def watch(region: "Region", deployment_id: str, now: int) -> None:
    """Look at a deployment after the watcher's delay."""
    due = now + int(region.settings.deployment_delay_s * 1e9)
    region.at(due, lambda at: _act(region, deployment_id, at))


def _act(region: "Region", deployment_id: str, now: int) -> None:
    row = region.state.deployments.get(deployment_id)
    job = region.state.job_of(row) if row else None
    if row is None or job is None or row["Status"] != "running" or job.deployment != deployment_id:
        return
    unhealthy = [a for a in _allocs(region, job, deployment_id) if _is_unhealthy(a)]
    done = all(g["HealthyAllocs"] >= g["DesiredTotal"] for g in row["TaskGroups"].values())
    if not unhealthy and not done:
        return
    made = _evaluation(region, job, row, unhealthy, now)
    if done:
        _succeed(region, job, row, made, now)
    region.queue.append(made["ID"])
    region.work(now)


def _allocs(region: "Region", job: Job, deployment_id: str) -> Iterable[Alloc]:
    return (a for i in job.allocs if (a := region.state.allocs[i]).row.get("DeploymentID") == deployment_id)


def _is_unhealthy(alloc: Alloc) -> bool:
    health = (alloc.row.get("DeploymentStatus") or {}).get("Healthy")
    return health is False and not (alloc.row.get("DesiredTransition") or {}).get("Reschedule")


def _evaluation(region: "Region", job: Job, row: Row, unhealthy: list[Alloc], now: int) -> Row:
    txn = region.state.begin("AllocationUpdateDesiredStatus", now)
    for alloc in unhealthy:
        transition = {**NO_TRANSITION, **(alloc.row.get("DesiredTransition") or {}), "Reschedule": True}
        txn.put_alloc(Alloc({**alloc.row, "DesiredTransition": transition}, alloc.version, alloc.ask))
    made = txn.put_eval(
        evaluation(
            region.ids(),
            row["JobID"],
            row["Namespace"],
            kind="service",
            trigger="deployment-watcher",
            priority=job.row["Priority"],
            now=now,
            DeploymentID=row["ID"],
        )
    )
    txn.commit()
    return made


def _succeed(region: "Region", job: Job, row: Row, made: Row, now: int) -> None:
    """In Nomad the scheduler's plan marks it: deployment, job and the evaluation in one line."""
    txn = region.state.begin("PlanResult", now)
    txn.put_deployment({**row, "Status": "successful", "StatusDescription": "Deployment completed successfully"})
    txn.put_job({**job.row, "Stable": True})
    txn.put_eval(made)
    txn.commit()


def resume(region: "Region", now: int) -> None:
    """Watch again what was running before a restart."""
    for row in list(region.state.deployments.values()):
        if row["Status"] == "running":
            watch(region, row["ID"], now)
