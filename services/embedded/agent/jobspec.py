"""Job specifications as Nomad stores them: every field present, defaults filled in, durations in nanoseconds.

Not a validator (`validation.py`). Called when a job is registered, planned or validated.
"""

import re
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": SECOND, "m": MINUTE, "h": HOUR}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")

JOB: Row = {
    "Affinities": None, "AllAtOnce": False, "Constraints": None, "ConsulNamespace": "", "CreateIndex": 0,
    "Datacenters": ["*"], "DispatchIdempotencyToken": "", "Dispatched": False, "ID": "", "JobModifyIndex": 0,
    "Meta": None, "ModifyIndex": 0, "Multiregion": None, "Name": "", "Namespace": "default", "NodePool": "default",
    "NomadTokenID": "", "ParameterizedJob": None, "ParentID": "", "Payload": None, "Periodic": None, "Priority": 50,
    "Region": "global", "Spreads": None, "Stable": False, "Status": "", "StatusDescription": "", "Stop": False,
    "SubmitTime": 0, "TaskGroups": None, "Type": "service", "UI": None, "Update": None, "VaultNamespace": "",
    "Version": 0, "VersionTag": None,
}  # fmt: skip
NO_UPDATE: Row = {
    "AutoPromote": False, "AutoRevert": False, "Canary": 0, "HealthCheck": "", "HealthyDeadline": 0,
    "MaxParallel": 0, "MinHealthyTime": 0, "ProgressDeadline": 0, "Stagger": 0,
}  # fmt: skip
SERVICE_UPDATE: Row = {
    "AutoPromote": False, "AutoRevert": False, "Canary": 0, "HealthCheck": "checks", "HealthyDeadline": 5 * MINUTE,
    "MaxParallel": 1, "MinHealthyTime": 10 * SECOND, "ProgressDeadline": 10 * MINUTE, "Stagger": 30 * SECOND,
}  # fmt: skip
MIGRATE: Row = {
    "HealthCheck": "checks", "HealthyDeadline": 5 * MINUTE, "MaxParallel": 1, "MinHealthyTime": 10 * SECOND,
}  # fmt: skip
RESTART: dict[str, Row] = {
    "service": {"Attempts": 2, "Delay": 15 * SECOND, "Interval": 30 * MINUTE, "Mode": "fail", "RenderTemplates": False},
    "batch": {"Attempts": 3, "Delay": 15 * SECOND, "Interval": 24 * HOUR, "Mode": "fail", "RenderTemplates": False},
}
RESCHEDULE: dict[str, Row] = {
    "service": {
        "Attempts": 0, "Delay": 30 * SECOND, "DelayFunction": "exponential", "Interval": 0, "MaxDelay": HOUR,
        "Unlimited": True,
    },
    "batch": {
        "Attempts": 1, "Delay": 5 * SECOND, "DelayFunction": "constant", "Interval": 24 * HOUR, "MaxDelay": 0,
        "Unlimited": False,
    },
}  # fmt: skip
GROUP: Row = {
    "Affinities": None, "Constraints": None, "Consul": None, "Count": 1, "Disconnect": None,
    "EphemeralDisk": None, "MaxClientDisconnect": None, "MaxRunDuration": None, "Meta": None, "Migrate": None,
    "Name": "", "Networks": None, "PreventRescheduleOnLost": False, "ReschedulePolicy": None, "RestartPolicy": None,
    "Scaling": None, "Services": None, "ShutdownDelay": None, "Spreads": None, "StopAfterClientDisconnect": None,
    "Tasks": None, "Update": None, "Volumes": None,
}  # fmt: skip
TASK: Row = {
    "Actions": None, "Affinities": None, "Artifacts": None, "CSIPluginConfig": None, "Config": None,
    "Constraints": None, "Consul": None, "DispatchPayload": None, "Driver": "", "Env": None, "Identities": None,
    "Identity": None, "KillSignal": "", "KillTimeout": 5 * SECOND, "Kind": "", "Leader": False, "Lifecycle": None,
    "LogConfig": None, "Meta": None, "Name": "", "Resources": None, "RestartPolicy": None, "ScalingPolicies": None,
    "Schedule": None, "Secrets": None, "Services": None, "ShutdownDelay": 0, "Templates": None, "User": "",
    "Vault": None, "VolumeMounts": None,
}  # fmt: skip
RESOURCES: Row = {
    "CPU": 100, "Cores": 0, "Devices": None, "DiskMB": 0, "IOPS": 0, "MemoryMB": 300, "MemoryMaxMB": 0, "NUMA": None,
    "Networks": None, "SecretsMB": 0,
}  # fmt: skip
IDENTITY: Row = {
    "Audience": ["nomadproject.io"], "ChangeMode": "", "ChangeSignal": "", "Env": False, "ExtraClaims": None,
    "File": False, "Filepath": "", "Name": "default", "ServiceName": "", "TTL": 0,
}  # fmt: skip
LOG_CONFIG: Row = {"Disabled": False, "MaxFileSizeMB": 10, "MaxFiles": 10}
DISK: Row = {"Migrate": False, "SizeMB": 300, "Sticky": False}
DISCONNECT: Row = {"LostAfter": 0, "Reconcile": "best_score", "Replace": True, "StopOnClientAfter": None}
TEMPLATE: Row = {
    "ChangeMode": "restart", "ChangeScript": None, "ChangeSignal": "", "DestPath": "", "EmbeddedTmpl": "",
    "Envvars": False, "ErrMissingKey": False, "Gid": None, "LeftDelim": "{{", "Once": False, "Perms": "0644",
    "RightDelim": "}}", "SourcePath": "", "Splay": 5 * SECOND, "Uid": None, "VaultGrace": 0, "Wait": None,
}  # fmt: skip

_IGNORED_IN_COMPARISON = (
    "Status", "StatusDescription", "Stable", "Version", "CreateIndex", "ModifyIndex", "JobModifyIndex", "SubmitTime",
    "VersionTag", "Stop",
)  # fmt: skip


def duration(value: Any) -> int:
    """Nanoseconds from a number of them or from Go's text form (`1m30s`). ValueError when it is neither."""
    if value is None or value == "":
        return 0
    if isinstance(value, int | float):
        return int(value)
    text = str(value).strip()
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _DURATION.findall(body)
    if body != "0" and "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f"invalid duration {text!r}")
    return sign * int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def canonical_job(spec: Mapping[str, Any], region: str) -> Row:
    """The job as Nomad would store it, TaskGroups included; unknown fields are dropped without a word, as there."""
    job = merged(JOB, spec)
    job["Name"] = job["Name"] or job["ID"]
    job["Region"] = region
    job["Namespace"] = job["Namespace"] or "default"
    job["NodePool"] = job["NodePool"] or "default"
    job["Priority"] = job["Priority"] or 50
    job["Type"] = job["Type"] or "service"
    job["Constraints"] = constraints(job["Constraints"])
    wanted = spec.get("Update") or {}
    # Canonical form shows only what the job block itself said, plus Nomad's two bare defaults for services.
    base = {**NO_UPDATE, "MaxParallel": 1, "Stagger": 30 * SECOND} if job["Type"] == "service" else NO_UPDATE
    job["Update"] = {**base, **({"MaxParallel": wanted["MaxParallel"]} if wanted.get("MaxParallel") else {})}
    groups = [canonical_group(group, job["Type"], wanted) for group in spec.get("TaskGroups") or []]
    job["TaskGroups"] = groups or None
    return job


def canonical_group(spec: Mapping[str, Any], job_type: str, update: Mapping[str, Any]) -> Row:
    """One task group with restart, reschedule, migrate and update policies of its job type."""
    group = merged(GROUP, spec)
    group["Count"] = 1 if group["Count"] is None else group["Count"]
    group["Constraints"] = constraints(group["Constraints"])
    group["EphemeralDisk"] = merged(DISK, spec.get("EphemeralDisk") or {})
    group["MaxRunDuration"] = duration(group["MaxRunDuration"]) or None
    group["ShutdownDelay"] = duration(group["ShutdownDelay"]) or None
    group["Networks"] = [network(n) for n in group["Networks"]] if group["Networks"] else None
    family = "service" if job_type == "service" else "batch"
    if job_type in ("service", "batch"):
        group["ReschedulePolicy"] = timed(
            RESCHEDULE[family], spec.get("ReschedulePolicy"), "Delay", "Interval", "MaxDelay"
        )
    group["RestartPolicy"] = timed(RESTART[family], spec.get("RestartPolicy"), "Delay", "Interval")
    if job_type == "service":
        group["Migrate"] = timed(MIGRATE, spec.get("Migrate"), "MinHealthyTime", "HealthyDeadline")
        own = {**update, **{k: v for k, v in (spec.get("Update") or {}).items() if v is not None}}
        group["Update"] = timed(SERVICE_UPDATE, own, "HealthyDeadline", "MinHealthyTime", "ProgressDeadline", "Stagger")
    if spec.get("Disconnect"):
        group["Disconnect"] = timed(DISCONNECT, spec["Disconnect"], "LostAfter")
    tasks = [canonical_task(task, group["RestartPolicy"]) for task in spec.get("Tasks") or []]
    group["Tasks"] = tasks or None
    return group


def canonical_task(spec: Mapping[str, Any], restart: Row) -> Row:
    """One task; its restart policy is the group's unless it says more."""
    task = merged(TASK, spec)
    task["Constraints"] = constraints(task["Constraints"])
    task["KillTimeout"] = duration(spec.get("KillTimeout")) or 5 * SECOND
    task["ShutdownDelay"] = duration(task["ShutdownDelay"])
    task["Identity"] = merged(IDENTITY, spec.get("Identity") or {})
    task["LogConfig"] = merged(LOG_CONFIG, spec.get("LogConfig") or {})
    task["Resources"] = merged(RESOURCES, spec.get("Resources") or {})
    task["RestartPolicy"] = timed(restart, spec.get("RestartPolicy"), "Delay", "Interval")
    if task["Identities"]:
        task["Identities"] = [timed(IDENTITY, identity, "TTL") for identity in task["Identities"]]
    if task["Templates"]:
        task["Templates"] = [merged(TEMPLATE, template) for template in task["Templates"]]
    return task


def network(spec: Mapping[str, Any]) -> Row:
    """A group network; ports belong to the host network `default` unless said."""
    ports = {
        kind: [{"HostNetwork": "default", **{k: v for k, v in port.items() if v}} for port in spec.get(kind) or []]
        for kind in ("DynamicPorts", "ReservedPorts")
    }
    return {**{k: v for k, v in spec.items() if v}, **{kind: found for kind, found in ports.items() if found}}


def constraints(found: Any) -> list[Row] | None:
    """Constraints with Nomad's default operand."""
    if not found:
        return None
    return [
        {"LTarget": c.get("LTarget") or "", "Operand": c.get("Operand") or "=", "RTarget": c.get("RTarget") or ""}
        for c in found
    ]


def merged(defaults: Row, given: Mapping[str, Any]) -> Row:
    """Defaults overlaid with the known, non-null fields of `given`."""
    return {**defaults, **{k: v for k, v in given.items() if k in defaults and v is not None}}


def timed(defaults: Row, given: Mapping[str, Any] | None, *durations: str) -> Row:
    """`merged`, with the named fields read as durations."""
    row = merged(defaults, given or {})
    return {**row, **{name: duration(row[name]) for name in durations}}


def same_spec(one: Row, other: Row) -> bool:
    """Nomad's test whether a register changes anything: all but state, indexes and times; the accessor counts."""
    return all(one.get(k) == other.get(k) for k in JOB if k not in _IGNORED_IN_COMPARISON)


def lost_after(group: Row) -> int:
    """Nanoseconds an allocation may be `unknown`; 0: lost at once."""
    return int((group.get("Disconnect") or {}).get("LostAfter") or 0)
