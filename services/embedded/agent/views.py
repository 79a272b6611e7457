"""What lists and single reads show: stubs and full rows in Nomad's shapes. Pure, reads the state only."""

from .entities import Alloc, Job
from .jobspec import Row
from .rows import NO_TRANSITION, thawed
from .state import State

SUMMARY: Row = {"Complete": 0, "Failed": 0, "Lost": 0, "Queued": 0, "Running": 0, "Starting": 0, "Unknown": 0}
_STATUS_COLUMN = {
    "complete": "Complete", "failed": "Failed", "lost": "Lost", "running": "Running", "pending": "Starting",
    "unknown": "Unknown",
}  # fmt: skip
_ALLOC_EMPTY: Row = {
    "ClientDescription": "", "DeploymentStatus": None, "DesiredDescription": "", "DesiredTransition": NO_TRANSITION,
    "FollowupEvalID": "", "NextAllocation": "", "PreemptedAllocations": None, "PreemptedByAllocation": "",
    "RescheduleTracker": None, "TaskStates": None,
}  # fmt: skip
_ALLOC_STUB = (
    "ClientDescription", "ClientStatus", "CreateIndex", "CreateTime", "DeploymentStatus", "DesiredDescription",
    "DesiredStatus",
    "DesiredTransition", "EvalID", "FollowupEvalID", "ID", "JobID", "ModifyIndex", "ModifyTime", "Name", "Namespace",
    "NextAllocation", "NodeID", "NodeName", "PreemptedAllocations", "PreemptedByAllocation", "RescheduleTracker",
    "TaskGroup",
    "TaskStates",
)  # fmt: skip
_JOB_STUB = (
    "CreateIndex", "Datacenters", "ID", "JobModifyIndex", "ModifyIndex", "Multiregion", "Name", "Namespace", "NodePool",
    "ParentID", "Priority", "Status", "StatusDescription", "Stop", "SubmitTime", "Type",
)  # fmt: skip
_NODE_STUB = (
    "CreateIndex", "Datacenter", "Drain", "Drivers", "HostVolumes", "ID", "LastDrain", "ModifyIndex", "Name",
    "NodeClass",
    "NodePool", "SchedulingEligibility", "Status", "StatusDescription",
)  # fmt: skip


def job_stub(state: State, job: Job, *, meta: bool) -> Row:
    """A row of the jobs list."""
    row = job.row
    stub = {name: row[name] for name in _JOB_STUB}
    stub["ParameterizedJob"] = row["ParameterizedJob"] is not None
    stub["Periodic"] = row["Periodic"] is not None
    stub["JobSummary"] = job_summary(state, job)
    if meta:
        stub["Meta"] = row["Meta"]
    return stub


def job_summary(state: State, job: Job) -> Row:
    """Counts per group; Queued as the last evaluation left it."""
    summary: dict[str, Row] = {}
    queued: Row = {}
    if job.row["Status"] != "dead":
        for group in job.task_groups():
            summary[group["Name"]] = dict(SUMMARY)
        for eval_id in job.evals:
            queued = state.evals[eval_id].get("QueuedAllocations") or queued
    changed = job.row["CreateIndex"]
    for alloc_id in job.allocs:
        row = state.allocs[alloc_id].row
        counts = summary.setdefault(row["TaskGroup"], dict(SUMMARY))
        counts[_STATUS_COLUMN[row["ClientStatus"]]] += 1
        changed = max(changed, row["ModifyIndex"])
    for name, number in queued.items():
        summary.setdefault(name, dict(SUMMARY))["Queued"] = number
    return {
        "Children": {"Dead": 0, "Pending": 0, "Running": 0}, "CreateIndex": job.row["CreateIndex"],
        "JobID": job.row["ID"],
        "ModifyIndex": changed, "Namespace": job.row["Namespace"], "Summary": summary,
    }  # fmt: skip


def alloc_stub(state: State, alloc: Alloc, *, task_states: bool, resources: bool) -> Row:
    """A row of an allocations list."""
    row = {**_ALLOC_EMPTY, **alloc.row}
    stub = {name: row[name] for name in _ALLOC_STUB}
    job = state.job_of(alloc.row)
    stub["JobType"] = job.row["Type"] if job else ""
    stub["JobVersion"] = alloc.version
    if not task_states:
        stub["TaskStates"] = None
    if resources:
        stub["AllocatedResources"] = alloc.row["AllocatedResources"]
    return stub


def full_alloc(state: State, alloc: Alloc) -> Row:
    """An allocation with the job version it belongs to."""
    return {**alloc.row, "Job": _job_version(state, alloc)}


def _job_version(state: State, alloc: Alloc) -> Row | None:
    job = state.job_of(alloc.row)
    if job is None:
        return None
    return next((row for row in (job.row, *job.versions) if row["Version"] == alloc.version), None)


def node_stub(row: Row, *, resources: bool, with_os: bool) -> Row:
    """A row of the nodes list."""
    stub = {name: row[name] for name in _NODE_STUB}
    stub["Address"] = row["HTTPAddr"].rpartition(":")[0]
    stub["Version"] = row["Attributes"]["nomad.version"]
    if resources:
        stub["NodeResources"], stub["ReservedResources"] = row["NodeResources"], row["ReservedResources"]
    if with_os:
        stub["Attributes"] = {"os.name": row["Attributes"]["os.name"]}
    return stub


def job_status(state: State, job: Job) -> Row:
    """A row of jobs/statuses."""
    row = job.row
    allocs = [_status_alloc(state.allocs[i]) for i in job.allocs]
    latest = [d for d in state.deployments.values() if state.job_of(d) is job]
    return {
        "Allocs": allocs, "ChildStatuses": None, "Datacenters": row["Datacenters"],
        "GroupCountSum": sum(group["Count"] for group in thawed(row["TaskGroups"]) or []), "ID": row["ID"],
        "IsPack": False,
        "LatestDeployment": _status_deployment(latest[-1]) if latest else None, "ModifyIndex": row["ModifyIndex"],
        "Name": row["Name"], "Namespace": row["Namespace"], "NodePool": row["NodePool"], "ParentID": row["ParentID"],
        "Priority": row["Priority"], "Status": row["Status"], "Stop": row["Stop"], "SubmitTime": row["SubmitTime"],
        "Type": row["Type"], "Version": row["Version"],
    }  # fmt: skip


def _status_alloc(alloc: Alloc) -> Row:
    row = alloc.row
    health = (row.get("DeploymentStatus") or {}).get("Healthy")
    return {
        "ClientStatus": row["ClientStatus"], "DeploymentStatus": {"Canary": False, "Healthy": health},
        "FollowupEvalID": row.get("FollowupEvalID", ""), "Group": row["TaskGroup"], "HasPausedTask": False,
        "ID": row["ID"],
        "JobVersion": alloc.version, "NodeID": row["NodeID"],
    }  # fmt: skip


def _status_deployment(row: Row) -> Row:
    return {
        "AllAutoPromote": False, "ID": row["ID"], "IsActive": row["Status"] == "running",
        "JobVersion": row["JobVersion"],
        "RequiresPromotion": False, "Status": row["Status"], "StatusDescription": row["StatusDescription"],
    }  # fmt: skip


def namespace_row(name: str) -> Row:
    """A namespace as Nomad shows it."""
    text = "Default shared namespace" if name == "default" else ""
    return {
        "Capabilities": None, "ConsulConfiguration": None, "CreateIndex": 1, "Description": text, "Hash": "",
        "Meta": None,
        "ModifyIndex": 1, "Name": name, "NodePoolConfiguration": None, "OptionalExtraClaims": None, "Quota": "",
        "RequiredExtraClaims": None, "VaultConfiguration": None,
    }  # fmt: skip


def filter_view(state: State, alloc: Alloc) -> Row:
    """What a filter on allocations may ask for: the row, its empty fields and its job."""
    return {**_ALLOC_EMPTY, **alloc.row, "Job": _job_version(state, alloc) or {}}
