"""What a task has as a workload of its job: variables that it may read, and identities that it is given.

A workload reads, without any policy, the variables at the paths of its own job, group and task. Identities are JWTs
with Nomad's claims; one with a TTL is renewed before it ends. Made for each task by `allocrunner.py`.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .jobspec import SECOND, Row
from .keyring import Keyring
from .state import State


@dataclass(frozen=True, slots=True)
class Region:
    """What all workloads of a region share. `issuer` is empty where the region says none: then tokens have no `iss`."""

    name: str
    issuer: str
    state: State
    keyring: Keyring


@dataclass(frozen=True, slots=True)
class Workload:
    """One task of one allocation."""

    region: Region
    namespace: str
    job_id: str
    group: str
    task: str
    alloc_id: str

    def variable(self, path: str) -> Mapping[str, str] | None:
        """The items at a path; None where there are none or they are not this workload's."""
        if path not in self._paths():
            return None
        row = self.region.state.variables.get((self.namespace, path))
        return None if row is None else self.region.keyring.open(path, row["Data"])

    def token(self, identity: Row, now_s: float) -> str:
        """An identity of this task, signed now."""
        audience = identity["Audience"] or []
        claims: dict[str, Any] = {
            "aud": audience[0] if len(audience) == 1 else audience, "iat": int(now_s), "nbf": int(now_s),
            "jti": str(uuid.uuid4()), "nomad_allocation_id": self.alloc_id, "nomad_job_id": self.job_id,
            "nomad_namespace": self.namespace, "nomad_task": self.task,
            "sub": ":".join((self.region.name, self.namespace, self.job_id, self.group, self.task, identity["Name"])),
        }  # fmt: skip
        if identity["TTL"]:
            claims["exp"] = int(now_s + identity["TTL"] / SECOND)
        if self.region.issuer:
            claims["iss"] = self.region.issuer
        return self.region.keyring.sign(claims)

    def _paths(self) -> tuple[str, ...]:
        job = f"nomad/jobs/{self.job_id}"
        return "nomad/jobs", job, f"{job}/{self.group}", f"{job}/{self.group}/{self.task}"


def renew_in_s(identity: Row) -> float | None:
    """Seconds until an identity is signed anew: at half its life; None where it never ends."""
    return max(1.0, identity["TTL"] / SECOND / 2) if identity["TTL"] else None
