"""What Nomad refuses at validate, plan and register, in its own words and nesting.

Only mistakes that the platform could make or has been seen to make; what Nomad accepts (unknown drivers, unknown
fields, an empty driver config) is accepted here too. Pure.
"""

from collections.abc import Collection, Mapping
from typing import Any

from .jobspec import Row

JOB_TYPES = ("service", "batch", "system", "sysbatch", "_core")
OPERANDS = (
    "=", "==", "is", "!=", "not", "<", "<=", ">", ">=", "regexp", "version", "semver", "set_contains",
    "set_contains_all", "set_contains_any", "distinct_hosts", "distinct_property", "is_set", "is_not_set",
    "attribute_is_set", "attribute_is_not_set",
)  # fmt: skip


def error_text(errors: list[str]) -> str:
    """A list of errors as Go's multierror writes it; empty for none."""
    if not errors:
        return ""
    head = "1 error occurred:" if len(errors) == 1 else f"{len(errors)} errors occurred:"
    return head + "\n" + "".join(f"\t* {error}\n" for error in errors) + "\n"


def job_errors(job: Row, namespaces: Collection[str], pools: Collection[str]) -> list[str]:
    """All faults of a canonical job."""
    errors = [*_identity(job), *_groups(job)]
    if errors:
        return errors
    if job["Namespace"] not in namespaces:
        return [f'job "{job["ID"]}" is in nonexistent namespace "{job["Namespace"]}"']
    if job["NodePool"] not in pools:
        return [f'job "{job["ID"]}" is in nonexistent node pool "{job["NodePool"]}"']
    return []


def _identity(job: Row) -> list[str]:
    errors = []
    if not job["ID"]:
        errors.append("Missing job ID")
    elif " " in job["ID"]:
        errors.append("Job ID contains a space")
    elif "\x00" in job["ID"]:
        errors.append("Job ID contains a null character")
    if job["Type"] not in JOB_TYPES:
        errors.append(f'Invalid job type: "{job["Type"]}"')
    if not 1 <= job["Priority"] <= 100:
        errors.append("job priority must be between [1, 100]")
    if not job["Datacenters"]:
        errors.append("Missing job datacenters")
    return errors + _constraints(job["Constraints"])


def _constraints(found: list[Row] | None) -> list[str]:
    errors = []
    for number, constraint in enumerate(found or [], 1):
        if constraint["Operand"] not in OPERANDS:
            inner = error_text([f'Unknown constraint type "{constraint["Operand"]}"'])
            errors.append(f"Constraint {number} validation failed: {inner}")
    return errors


def _groups(job: Row) -> list[str]:
    if not job["TaskGroups"]:
        return ["Missing job task groups"]
    errors = []
    names: set[str] = set()
    for number, group in enumerate(job["TaskGroups"], 1):
        if group["Name"] in names:
            errors.append(f"Job task group {number} redefines '{group['Name']}' from an earlier group")
        names.add(group["Name"])
        if faults := _group(job, group):
            errors.append(f"Task group {group['Name']} validation failed: {error_text(faults)}")
    return errors


def _group(job: Row, group: Row) -> list[str]:
    errors = []
    if not group["Name"]:
        errors.append("Missing task group name")
    if group["Count"] < 0:
        errors.append("Task group count can't be negative")
    if not group["Tasks"]:
        errors.append("Missing tasks for task group")
    if group["MaxRunDuration"] and job["Type"] not in ("batch", "sysbatch"):
        errors.append(f'Job type "{job["Type"]}" does not allow max_run_duration')
    disconnect = group["Disconnect"]
    if disconnect and disconnect["LostAfter"] and disconnect["StopOnClientAfter"]:
        errors.append("Disconnect cannot have both stop_on_client_after and lost_after")
    if disconnect and disconnect["LostAfter"] < 0:
        errors.append("lost_after cannot be a negative duration")
    errors += _constraints(group["Constraints"])
    for number, task in enumerate(group["Tasks"] or [], 1):
        if faults := _task(task, number):
            errors.append(f"Task {task['Name']} validation failed: {error_text(faults)}")
    return errors


def _task(task: Row, number: int) -> list[str]:
    errors = []
    if not task["Name"]:
        errors.append("Missing task name")
    elif "/" in task["Name"] or "\\" in task["Name"]:
        errors.append("Task name cannot include slashes")
    if not task["Driver"]:
        errors.append("Missing task driver")
    if faults := _resources(task["Resources"]):
        errors.append(error_text(faults))
    return errors + _constraints(task["Constraints"])


def _resources(resources: Row) -> list[str]:
    errors = []
    low = []
    if resources["CPU"] < 1 and not resources["Cores"]:
        low.append(f"minimum CPU value is 1; got {resources['CPU']}")
    if resources["MemoryMB"] < 10:
        low.append(f"minimum MemoryMB value is 10; got {resources['MemoryMB']}")
    if low:
        errors.append(error_text(low))
    if resources["SecretsMB"] > resources["MemoryMB"]:
        errors.append(f"SecretsMB value ({resources['SecretsMB']}) cannot be larger than MemoryMB value ({resources['MemoryMB']})\n")
    return errors


def type_fault(job: Mapping[str, Any]) -> str | None:
    """Go's JSON decoder's complaint about a field of the wrong type; the first one, like Go's."""
    for name, kind in (("ID", str), ("Name", str), ("Type", str), ("Namespace", str), ("NodePool", str)):
        value = job.get(name)
        if value is not None and not isinstance(value, kind):
            return f"json: cannot unmarshal {_json_kind(value)} into Go struct field Job.Job.{name} of type string"
    for name, kind, go in (("TaskGroups", list, "[]*api.TaskGroup"), ("Meta", dict, "map[string]string"), ("Priority", int, "int")):
        value = job.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            return f"json: cannot unmarshal {_json_kind(value)} into Go struct field Job.Job.{name} of type {go}"
    return None


def _json_kind(value: Any) -> str:
    kinds: dict[type, str] = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")
