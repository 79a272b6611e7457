"""Orders for tests of the Nomad adapter, and Nomad's own rules of interpolation to check them by."""

import re
from collections.abc import Mapping
from typing import Any

from shared.adapters.nomad import ClusterSettings
from shared.engine import AttemptOrder
from shared.ids import AttemptId, traceparent
from tests.builders import a_site, a_spec, job_id

_HCL = re.compile(r"\$\$\{|%%\{|\$\{([^}]*)\}|%\{")
_PLAIN = re.compile(r"\$\{([a-zA-Z0-9_\-.]+)\}")


def a_cluster(**fields: Any) -> ClusterSettings:
    return ClusterSettings.model_validate({"name": "prague", "address": "http://127.0.0.1:4646"} | fields)


def an_order(number: int = 1, attempt: int = 1, site: Mapping[str, Any] | None = None, **spec: Any) -> AttemptOrder:
    job = job_id(number)
    return AttemptOrder(
        AttemptId(job, attempt), a_spec(**spec), a_site(**(site or {})), nonce="n-1", traceparent=traceparent(job)
    )


def as_config(text: str, known: Mapping[str, str]) -> str:
    """What a driver gets of a string in `Config`: HCL2's template rules. Raises KeyError, as the task would fail."""

    def one(found: re.Match[str]) -> str:
        if found[0] in ("$${", "%%{"):
            return found[0][1:]
        return known[found[1]]

    return _HCL.sub(one, text)


def as_env(text: str, known: Mapping[str, str]) -> str:
    """What a task gets of an environment value or a template's path: known names replaced, once."""
    return _PLAIN.sub(lambda found: known.get(found[1], found[0]), text)


def known_to_the_task(job: Mapping[str, Any]) -> dict[str, str]:
    """Names that a task knows: its job's meta and, as traps, what every node has."""
    traps = {"HOME": "/root", "NOMAD_JOB_ID": job["ID"], "attr.kernel.name": "linux", "PATH": "/bin"}
    return traps | {f"NOMAD_META_{key}": value for key, value in job["Meta"].items()}
