"""Which JSON types a job may hold where, and Go's complaint when it holds others.

Nomad answers such a job with 400 and the first complaint. Durations are numbers (nanoseconds): `"5s"` is refused.
Unknown fields are nobody's business. Pure.
"""

from collections.abc import Mapping
from typing import Any

INT, DURATION, STRING, BOOL, UINT64 = "int", "time.Duration", "string", "bool", "uint64"
STRINGS, STRING_MAP, ANY_MAP = "[]string", "map[string]string", "map[string]interface {}"

STRUCTS: dict[str, dict[str, str]] = {
    "Job": {
        "ID": STRING, "Name": STRING, "Type": STRING, "Namespace": STRING, "NodePool": STRING, "Region": STRING,
        "Priority": INT, "AllAtOnce": BOOL, "Stop": BOOL, "Datacenters": STRINGS, "Meta": STRING_MAP,
        "Constraints": "[]*api.Constraint", "TaskGroups": "[]*api.TaskGroup", "Update": "*api.UpdateStrategy",
    },
    "TaskGroup": {
        "Name": STRING, "Count": INT, "Meta": STRING_MAP, "Tasks": "[]*api.Task", "Constraints": "[]*api.Constraint",
        "Networks": "[]*api.NetworkResource", "RestartPolicy": "*api.RestartPolicy", "Update": "*api.UpdateStrategy",
        "ReschedulePolicy": "*api.ReschedulePolicy", "Disconnect": "*api.DisconnectStrategy",
        "EphemeralDisk": "*api.EphemeralDisk", "MaxRunDuration": DURATION, "ShutdownDelay": DURATION,
    },
    "Task": {
        "Name": STRING, "Driver": STRING, "User": STRING, "Config": ANY_MAP, "Env": STRING_MAP, "Meta": STRING_MAP,
        "KillTimeout": DURATION, "KillSignal": STRING, "ShutdownDelay": DURATION, "Leader": BOOL,
        "Constraints": "[]*api.Constraint", "Resources": "*api.Resources", "RestartPolicy": "*api.RestartPolicy",
        "Templates": "[]*api.Template", "Artifacts": "[]*api.TaskArtifact", "Lifecycle": "*api.TaskLifecycle",
        "LogConfig": "*api.LogConfig",
    },
    "Constraint": {"LTarget": STRING, "RTarget": STRING, "Operand": STRING},
    "RestartPolicy": {"Attempts": INT, "Interval": DURATION, "Delay": DURATION, "Mode": STRING},
    "ReschedulePolicy": {
        "Attempts": INT, "Interval": DURATION, "Delay": DURATION, "DelayFunction": STRING, "MaxDelay": DURATION,
        "Unlimited": BOOL,
    },
    "DisconnectStrategy": {
        "LostAfter": DURATION, "StopOnClientAfter": DURATION, "Replace": BOOL, "Reconcile": STRING,
    },
    "UpdateStrategy": {
        "Stagger": DURATION, "MaxParallel": INT, "HealthCheck": STRING, "MinHealthyTime": DURATION, "Canary": INT,
        "HealthyDeadline": DURATION, "ProgressDeadline": DURATION, "AutoRevert": BOOL, "AutoPromote": BOOL,
    },
    "EphemeralDisk": {"SizeMB": INT, "Sticky": BOOL, "Migrate": BOOL},
    "NetworkResource": {"Mode": STRING, "DynamicPorts": "[]api.Port", "ReservedPorts": "[]api.Port"},
    "Port": {"Label": STRING, "Value": INT, "To": INT, "HostNetwork": STRING},
    "Resources": {
        "CPU": INT, "Cores": INT, "MemoryMB": INT, "MemoryMaxMB": INT, "Devices": "[]*api.RequestedDevice",
    },
    "RequestedDevice": {"Name": STRING, "Count": UINT64},
    "Template": {
        "EmbeddedTmpl": STRING, "DestPath": STRING, "Perms": STRING, "LeftDelim": STRING, "RightDelim": STRING,
        "Envvars": BOOL, "ChangeMode": STRING, "SourcePath": STRING,
    },
    "TaskArtifact": {"GetterSource": STRING, "RelativeDest": STRING, "GetterMode": STRING},
    "TaskLifecycle": {"Hook": STRING, "Sidecar": BOOL},
    "LogConfig": {"MaxFiles": INT, "MaxFileSizeMB": INT, "Disabled": BOOL},
}  # fmt: skip


def type_fault(job: Mapping[str, Any]) -> str | None:
    """The first complaint about a job, in the order of the document; None when all is well."""
    return _struct_fault(job, "Job", "Job")


def _struct_fault(value: Mapping[str, Any], struct: str, path: str) -> str | None:
    fields = STRUCTS[struct]
    for name, found in value.items():
        if name in fields and found is not None:
            fault = _fault(found, fields[name], f"{struct}.{path}.{name}", f"{path}.{name}")
            if fault:
                return fault
    return None


def _fault(value: Any, kind: str, field: str, path: str) -> str | None:
    """`field` is Go's name for the place, `path` what goes on below it."""
    if kind.startswith("[]") and kind != STRINGS:
        return _list_fault(value, kind, field, path)
    if kind.startswith("*api."):
        struct = kind.removeprefix("*api.")
        return _struct_fault(value, struct, path) if isinstance(value, dict) else _complaint(value, field, kind[1:])
    if kind == STRING_MAP and isinstance(value, dict):
        return next((_complaint(v, field, STRING) for v in value.values() if not isinstance(v, str)), None)
    if kind == STRINGS and isinstance(value, list):
        return next((_complaint(v, field, STRING) for v in value if not isinstance(v, str)), None)
    return None if _is(value, kind) else _complaint(value, field, kind)


def _list_fault(value: Any, kind: str, field: str, path: str) -> str | None:
    if not isinstance(value, list):
        return _complaint(value, field, kind)
    struct = kind.rpartition(".")[2]
    for item in value:
        fault = (
            _struct_fault(item, struct, path) if isinstance(item, dict) else _complaint(item, field, f"api.{struct}")
        )
        if fault:
            return fault
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == STRING:
        return isinstance(value, str)
    if kind == BOOL:
        return isinstance(value, bool)
    if kind == ANY_MAP:
        return isinstance(value, dict)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and (kind != UINT64 or value >= 0)


def _complaint(value: Any, field: str, kind: str) -> str:
    return f"json: cannot unmarshal {_json_kind(value, kind)} into Go struct field {field} of type {kind}"


def _json_kind(value: Any, kind: str) -> str:
    names: dict[Any, str] = {bool: "bool", str: "string", list: "array", dict: "object"}
    if type(value) in names:
        return names[type(value)]
    return f"number {value}" if kind in (INT, DURATION, UINT64) else "number"
