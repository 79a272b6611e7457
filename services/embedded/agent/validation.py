"""What Nomad refuses at validate, plan and register, in its own words and nesting.

Only mistakes that the platform could make or has been seen to make; what Nomad accepts (unknown drivers, unknown
fields, an empty driver config) is accepted here too. JSON types are checked before (`wiretypes.py`). Pure.
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from .jobspec import SECOND, Row

JOB_TYPES = ("service", "batch", "system", "sysbatch", "_core")
OPERANDS = (
    "=", "==", "is", "!=", "not", "<", "<=", ">", ">=", "regexp", "version", "semver", "set_contains",
    "set_contains_all", "set_contains_any", "distinct_hosts", "distinct_property", "is_set", "is_not_set",
    "attribute_is_set", "attribute_is_not_set",
)  # fmt: skip
ONE_SIDED = ("distinct_hosts", "distinct_property", "is_set", "is_not_set", "attribute_is_set", "attribute_is_not_set")
VERSION = re.compile(r"\s*(>=|<=|!=|~>|=|>|<)?\s*v?\d+(\.\d+)*([-+][\w.+-]+)?\s*")
HOOKS = ("prestart", "poststart", "poststop")


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
        if faults := _constraint(constraint):
            errors.append(f"Constraint {number} validation failed: {error_text(faults)}")
    return errors


def _constraint(constraint: Row) -> list[str]:
    operand, right = constraint["Operand"], constraint["RTarget"]
    if operand not in OPERANDS:
        return [f'Unknown constraint type "{operand}"']
    errors = []
    if not right and operand not in ONE_SIDED:
        errors.append(f'Operator "{operand}" requires an RTarget')
    if operand == "regexp" and right:
        errors += _regexp(right)
    if operand in ("version", "semver") and not all(VERSION.fullmatch(part) for part in right.split(",")):
        errors.append(f"Version constraint is invalid: malformed constraint: {right}")
    if not constraint["LTarget"] and operand != "distinct_hosts":
        errors.append("no attribute provided but is required by operator")
    return errors


def _regexp(text: str) -> list[str]:
    try:
        re.compile(text)
    except re.error as error:
        why = "missing closing ): `" + text + "`" if "unterminated subpattern" in str(error) else str(error)
        return [f"Regular expression failed to compile: error parsing regexp: {why}"]
    return []


def _groups(job: Row) -> list[str]:
    if not job["TaskGroups"]:
        return ["Missing job task groups"]
    errors: list[str] = []
    first: dict[str, int] = {}
    for number, group in enumerate(job["TaskGroups"], 1):
        if not group["Name"]:
            errors.append(f"Job task group {number} missing name")
        elif group["Name"] in first:
            errors.append(f"Job task group {number} redefines '{group['Name']}' from group {first[group['Name']]}")
        first.setdefault(group["Name"], number)
    for group in job["TaskGroups"]:
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
    errors += _disconnect(group["Disconnect"] or {})
    errors += _constraints(group["Constraints"])
    errors += _policies(group)
    if group["EphemeralDisk"]["SizeMB"] < 10:
        errors.append(f"minimum DiskMB value is 10; got {group['EphemeralDisk']['SizeMB']}")
    errors += _network(group)
    return errors + _tasks(group)


def _disconnect(disconnect: Row) -> list[str]:
    if disconnect.get("LostAfter") and disconnect.get("StopOnClientAfter"):
        return ["Disconnect cannot be configured with both lost_after and stop_after"]
    return ["lost_after cannot be a negative duration"] if (disconnect.get("LostAfter") or 0) < 0 else []


def _policies(group: Row) -> list[str]:
    errors = []
    restart = group["RestartPolicy"]
    if restart["Mode"] not in ("fail", "delay"):
        errors.append(f'Unsupported restart mode: "{restart["Mode"]}"')
    if restart["Attempts"] == 0 and restart["Mode"] != "fail":
        errors.append(f'Restart policy "{restart["Mode"]}" with 0 attempts is ambiguous')
    reschedule = group["ReschedulePolicy"]
    if not reschedule or not (reschedule["Attempts"] or reschedule["Unlimited"]):
        return errors
    if reschedule["Attempts"] and not reschedule["Interval"]:
        errors.append("Interval must be a non zero value if Attempts > 0")
    if reschedule["Delay"] < 5 * SECOND:
        errors.append(f"Delay cannot be less than 5s (got {reschedule['Delay'] / SECOND:g}s)")
    if reschedule["Attempts"] and reschedule["Interval"] < 15 * SECOND:
        errors.append(f"Interval cannot be less than 15s (got {reschedule['Interval'] / SECOND:g}s)")
    return errors


def _network(group: Row) -> list[str]:
    errors = []
    labels: set[str] = set()
    static: dict[int, str] = {}
    for network in group["Networks"] or []:
        for port in [*(network.get("ReservedPorts") or []), *(network.get("DynamicPorts") or [])]:
            if port["Label"] in labels:
                errors.append(f"Port label {port['Label']} already in use by taskgroup network")
            labels.add(port["Label"])
        for port in network.get("ReservedPorts") or []:
            if port["Value"] in static:
                errors.append(f"Static port {port['Value']} already reserved by {static[port['Value']]}")
            static.setdefault(port["Value"], f"taskgroup network:{port['Label']}")
    return [f"Task group network validation failed: {error_text(errors)}"] if errors else []


def _tasks(group: Row) -> list[str]:
    errors: list[str] = []
    first: dict[str, int] = {}
    for number, task in enumerate(group["Tasks"] or [], 1):
        if not task["Name"]:
            errors.append(f"Task {number} missing name")
        elif task["Name"] in first:
            errors.append(f"Task {number} redefines '{task['Name']}' from task {first[task['Name']]}")
        first.setdefault(task["Name"], number)
    if sum(bool(task["Leader"]) for task in group["Tasks"] or []) > 1:
        errors.append("Only one task may be marked as leader")
    if group["Tasks"] and all(task["Lifecycle"] for task in group["Tasks"]):
        errors.append(f"Task group {group['Name']} must have at least one main task")
    for task in group["Tasks"] or []:
        if faults := _task(task, group):
            errors.append(f"Task {task['Name']} validation failed: {error_text(faults)}")
    return errors


def _task(task: Row, group: Row) -> list[str]:
    errors = []
    if not task["Name"]:
        errors.append("Missing task name")
    elif "/" in task["Name"] or "\\" in task["Name"]:
        errors.append("Task name cannot include slashes")
    if not task["Driver"]:
        errors.append("Missing task driver")
    if faults := _resources(task["Resources"]):
        errors.append(error_text(faults))
    if faults := _logs(task["LogConfig"], group["EphemeralDisk"]["SizeMB"]):
        errors.append(error_text(faults))
    errors += _constraints(task["Constraints"])
    if task["Lifecycle"] and task["Lifecycle"].get("Hook") not in HOOKS:
        errors.append(f"Lifecycle validation failed: invalid hook: {task['Lifecycle'].get('Hook')}")
    for number, template in enumerate(task["Templates"] or [], 1):
        if faults := _template(template):
            errors.append(f"Template {number} validation failed: {error_text(faults)}")
    return errors


def _logs(config: Row, disk: int) -> list[str]:
    needed = config["MaxFiles"] * config["MaxFileSizeMB"]
    if needed < disk or config["Disabled"]:
        return []
    return [f"log storage ({needed} MB) must be less than requested disk capacity ({disk} MB)"]


def _template(template: Row) -> list[str]:
    errors = []
    if not template["SourcePath"] and not template["EmbeddedTmpl"]:
        errors.append("Must specify a source path or have an embedded template")
    dest = template["DestPath"]
    if not dest:
        errors.append("Must specify a destination for the template")
    elif _escapes(dest):
        errors.append("destination escapes allocation directory")
    return errors


def _escapes(dest: str) -> bool:
    """More steps up than down; the task's own directory lies one below the allocation's."""
    depth = 1
    for part in PurePosixPath(dest.lstrip("/")).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _resources(resources: Row) -> list[str]:
    errors = []
    low = []
    if resources["CPU"] < 1 and not resources["Cores"]:
        low.append(f"minimum CPU value is 1; got {resources['CPU']}")
    if resources["MemoryMB"] < 10:
        low.append(f"minimum MemoryMB value is 10; got {resources['MemoryMB']}")
    if low:
        errors.append(error_text(low))
    secrets, memory = resources["SecretsMB"], resources["MemoryMB"]
    if secrets > memory:
        errors.append(f"SecretsMB value ({secrets}) cannot be larger than MemoryMB value ({memory})")
    return errors
