"""From an order to Nomad's JSON job. Pure: no clock, no I/O. Called by `control.py`; durations in it are nanoseconds.

What a job finds when it starts, with every driver:

- its working folder is Nomad's task folder `local/` (`NOMAD_TASK_DIR`): the command runs in it, inputs lie in it,
  declared outputs are read from it (`main/local/<path>` of the allocation). An image that is run without a command of
  the user's keeps its own folder; its inputs and outputs are in `NOMAD_TASK_DIR` all the same.
- the user's environment, and SERAI_JOB_ID, SERAI_ATTEMPT, SERAI_VO, SERAI_SITE and TRACEPARENT.
- where the cluster's settings say so, SERAI_URL and SERAI_TOKEN_FILE: the platform, and the job's own token for it.
- a command given with an image becomes the image's command, as `docker run IMAGE COMMAND` does it.
- each secret that it names, as a file of Nomad's secrets folder (`NOMAD_SECRETS_DIR`): only the name is in the job.
- an endpoint `http` is the port NOMAD_PORT_http: chosen by Nomad, or, with `port` given, that port inside the
  container, or of the node where the command runs without one.

User text stays data throughout (`escaping.py`). Group and task are named `main`; there is one of each.
"""

import json
from typing import Any

from shared.adapters.nomad.escaping import literal, marks_for, template_of
from shared.adapters.nomad.mock import MOCK_KEY, mock_config
from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.variables import template_of_secret
from shared.engine import AttemptOrder, NomadJob
from shared.errors import Refused
from shared.ids import AttemptId
from shared.job import Endpoint, Gpus, InputFile, JobKind, JobSpec
from shared.site import Site

TASK = "main"
TOMBSTONE_KEY = "serai_tombstone"
NONCE_KEY = "serai_nonce"

IDENTITY = "serai"
"""Name and audience of a task's own token."""

_TOKEN_FILE = f"${{NOMAD_SECRETS_DIR}}/nomad_{IDENTITY}.jwt"
_SECOND = 1_000_000_000
_LOG_FILES = 5


def job_of(order: AttemptOrder, settings: ClusterSettings) -> NomadJob:
    """The Nomad job of one attempt. Raises Refused (`mock_not_allowed`, `mock_invalid`) for a mock that may not be."""
    spec, site = order.spec, order.site
    driver = driver_of(spec, site, settings)
    return {
        "ID": order.attempt.nomad_id,
        "Name": spec.name,
        "Namespace": order.namespace,
        "Type": spec.kind.value,
        "Priority": spec.priority,
        "Datacenters": list(site.datacenters),
        "NodePool": site.node_pool,
        "Meta": _meta(order),
        "TaskGroups": [_group(order, driver, settings)],
    }


def tombstone_of(attempt: AttemptId, namespace: str) -> NomadJob:
    """A stopped job without work that takes the attempt's id, so that no later register can win it."""
    task = {"Name": TASK, "Driver": "raw_exec", "Config": {"command": "/bin/false"}, "Resources": _smallest()}
    return {
        "ID": attempt.nomad_id,
        "Name": attempt.nomad_id,
        "Namespace": namespace,
        "Type": JobKind.BATCH.value,
        "Stop": True,
        "Datacenters": ["*"],
        "Meta": {
            TOMBSTONE_KEY: "1",
            "serai_job": str(attempt.job_id),
            "serai_attempt": str(attempt.number),
        },
        "TaskGroups": [{"Name": TASK, "Count": 0, "Tasks": [task], **_never_again()}],
    }


def only_if_new(job: NomadJob) -> NomadJob:
    """The body of a register that fails where the id was ever used (Nomad's `EnforceIndex` with index 0)."""
    return {"Job": job, "EnforceIndex": True, "JobModifyIndex": 0}


def driver_of(spec: JobSpec, site: Site, settings: ClusterSettings) -> str:
    """The task driver: docker for an image; for a bare command what the site's hardware names, else the cluster's."""
    if MOCK_KEY in spec.metadata or "mock" in site.hardware:
        if not settings.allow_mock:
            raise Refused(
                f"cluster {settings.name} does not run mock work; leave out the metadata {MOCK_KEY!r}",
                code="mock_not_allowed",
            )
        return "mock_driver"
    if spec.image is not None:
        return "docker"
    named = [driver for driver in ("exec", "raw_exec") if driver in site.hardware]
    return named[0] if named else settings.command_driver


def _meta(order: AttemptOrder) -> dict[str, str]:
    spec = order.spec
    user_text = (*spec.command, *spec.env.values(), *(file.path for file in spec.files))
    return {
        "serai_job": str(order.attempt.job_id),
        "serai_attempt": str(order.attempt.number),
        "serai_vo": spec.vo,
        NONCE_KEY: order.nonce,
        "serai_site": order.site.name,
        "serai_traceparent": order.traceparent,
        "serai_name": spec.name,
        "serai_outputs": json.dumps([{"name": o.name, "path": o.path} for o in spec.outputs], ensure_ascii=False),
        **marks_for(user_text),
    }


def _group(order: AttemptOrder, driver: str, settings: ClusterSettings) -> dict[str, Any]:
    spec = order.spec
    group: dict[str, Any] = {
        "Name": TASK,
        "Count": 1,
        "EphemeralDisk": {"SizeMB": spec.resources.disk_mib},
        "Tasks": [_task(order, driver, settings)],
        **(_batch_policies(spec, settings) if spec.kind is JobKind.BATCH else _service_policies(settings)),
    }
    if spec.endpoints:
        group["Networks"] = [_network(spec.endpoints, driver)]
    return group


def _never_again() -> dict[str, Any]:
    return {
        "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
        "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
    }


def _batch_policies(spec: JobSpec, settings: ClusterSettings) -> dict[str, Any]:
    """One run and no second: the platform alone decides about another (architecture, section 3)."""
    return {
        **_never_again(),
        "Disconnect": {"LostAfter": settings.batch_lost_after_s * _SECOND, "Replace": False},
        "MaxRunDuration": round((spec.max_runtime_s + settings.runtime_margin_s) * _SECOND),
    }


def _service_policies(settings: ClusterSettings) -> dict[str, Any]:
    """Nomad's own defaults for services, said aloud: it keeps the service up inside its site."""
    return {
        "RestartPolicy": {"Attempts": 2, "Interval": 1800 * _SECOND, "Delay": 15 * _SECOND, "Mode": "fail"},
        "ReschedulePolicy": {
            "Unlimited": True,
            "Delay": 30 * _SECOND,
            "DelayFunction": "exponential",
            "MaxDelay": 3600 * _SECOND,
        },
        "Disconnect": {"LostAfter": settings.service_lost_after_s * _SECOND, "Replace": True},
    }


def _task(order: AttemptOrder, driver: str, settings: ClusterSettings) -> dict[str, Any]:
    spec = order.spec
    config = mock_config(spec) if driver == "mock_driver" else _config(spec, driver)
    return {
        "Name": TASK,
        "Driver": driver,
        "Config": config,
        "Env": _env(order, settings),
        "Identities": [_identity(settings)] if settings.platform_url else [],
        "Templates": [
            *(_file(file) for file in spec.files),
            *(template_of_secret(order.attempt.nomad_id, secret) for secret in spec.secrets),
        ],
        "Resources": _resources(spec, order.site),
        "KillTimeout": round(settings.kill_timeout_s * _SECOND),
        "LogConfig": _logs(spec, silent=driver == "mock_driver" and "stdout_string" not in config),
    }


def _config(spec: JobSpec, driver: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if spec.command:
        config["command"] = literal(spec.command[0])
        config["args"] = [literal(word) for word in spec.command[1:]]
        config["work_dir"] = "${NOMAD_TASK_DIR}"
    if driver == "docker":
        config["image"] = spec.image
        if spec.endpoints:
            config["ports"] = [endpoint.name for endpoint in spec.endpoints]
    return config


def _env(order: AttemptOrder, settings: ClusterSettings) -> dict[str, str]:
    return {
        "TRACEPARENT": order.traceparent,
        **{name: literal(value) for name, value in order.spec.env.items()},
        "SERAI_JOB_ID": str(order.attempt.job_id),
        "SERAI_ATTEMPT": str(order.attempt.number),
        "SERAI_VO": order.spec.vo,
        "SERAI_SITE": order.site.name,
        **({"SERAI_URL": settings.platform_url, "SERAI_TOKEN_FILE": _TOKEN_FILE} if settings.platform_url else {}),
    }


def _identity(settings: ClusterSettings) -> dict[str, Any]:
    """A token by which the platform knows this task again (Nomad, `identity` block). In a file, which Nomad keeps
    fresh: a variable of the environment would end with the token in it.
    """
    return {
        "Name": IDENTITY,
        "Audience": [IDENTITY],
        "File": True,
        "Env": False,
        "TTL": settings.identity_ttl_s * _SECOND,
        "ChangeMode": "noop",
    }


def _file(file: InputFile) -> dict[str, Any]:
    text, left, right = template_of(file.content)
    return {
        "EmbeddedTmpl": text,
        "LeftDelim": left,
        "RightDelim": right,
        "DestPath": f"local/{literal(file.path)}",
        "Perms": "0755" if file.executable else "0644",
        "ChangeMode": "noop",
    }


def _resources(spec: JobSpec, site: Site) -> dict[str, Any]:
    wanted = spec.resources
    resources: dict[str, Any] = {
        "CPU": cpu_mhz(wanted.cpu_cores, site),
        "MemoryMB": wanted.memory_mib,
    }
    if wanted.gpus.count:
        resources["Devices"] = [_device(wanted.gpus)]
    return resources


def cpu_mhz(cores: float, site: Site) -> int:
    """Nomad's MHz for a number of cores at a site; at least 1, which is Nomad's least."""
    return max(1, round(cores * site.mhz_per_core))


def _device(gpus: Gpus) -> dict[str, Any]:
    """Nomad's device block: `gpu`, a `vendor/type[/model]` as given, or any vendor's GPU of that model."""
    if gpus.model is None:
        return {"Name": "gpu", "Count": gpus.count}
    if "/" in gpus.model:
        return {"Name": gpus.model, "Count": gpus.count}
    same_model = {"LTarget": "${device.model}", "Operand": "=", "RTarget": gpus.model}
    return {"Name": "gpu", "Count": gpus.count, "Constraints": [same_model]}


def _smallest() -> dict[str, int]:
    return {"CPU": 1, "MemoryMB": 10}


def _logs(spec: JobSpec, *, silent: bool) -> dict[str, Any]:
    """Log files that fit into the job's disk: Nomad refuses a job whose logs could not, also where it keeps none."""
    size = min(20, max(1, spec.resources.disk_mib // (2 * _LOG_FILES)))
    return {"MaxFiles": _LOG_FILES, "MaxFileSizeMB": size, "Disabled": silent}


def _network(endpoints: tuple[Endpoint, ...], driver: str) -> dict[str, Any]:
    fixed = [e for e in endpoints if e.port and driver != "docker"]
    dynamic = [e for e in endpoints if e not in fixed]
    return {
        "Mode": "host",
        "ReservedPorts": [{"Label": e.name, "Value": e.port} for e in fixed],
        "DynamicPorts": [{"Label": e.name, "To": e.port} for e in dynamic],
    }
