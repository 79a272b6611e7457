"""What our two tokens must be allowed at a cluster, and the policies that allow just that. Pure; the one place for it.

The scheduler's token puts work into the namespaces of our VOs and takes it away; the monitor's only looks. Neither may
what the other does. Used for errors that name what is missing, by `serai-platform namespaces`, by `make docs` (files
for sites' operators) and by the throw-away regions of tests and `make up-real`.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Whose token: its policy's name."""

    SCHEDULER = "serai-scheduler"
    MONITOR = "serai-monitor"


LIST: Final = "list-jobs"
READ: Final = "read-job"
REGISTER: Final = "register-job"
DEREGISTER: Final = "deregister-job"
PLAN: Final = "plan-job"
FILES: Final = "read-fs"
NODES: Final = "node:read"

VARIABLES: Final = "list and read of variables at nomad/jobs/*"
WRITE: Final = "write of variables at nomad/jobs/*"
DESTROY: Final = "destroy of variables at nomad/jobs/*"

OLD_SUBMIT: Final = "submit-job"
"""Before Nomad 1.11.2 it stands for register, deregister and plan together (and allows more than they do)."""
FINER_SINCE: Final = (1, 11, 2)
"""An older Nomad refuses a policy that names what it does not know."""

SCHEDULER_IN_OURS: Final[Mapping[str, str]] = {
    REGISTER: "put an attempt there, or the tombstone that closes its id",
    DEREGISTER: "stop one",
    READ: "read back after doubt what stands under an id",
    LIST: "prove that cluster and token are well",
}
"""Capability -> why, in the namespaces of the VOs that the site serves; nowhere else. (`JobEngine.plan` would need
`plan-job` too; the scheduler plans for itself.)"""

SECRETS_IN_OURS: Final[Mapping[str, str]] = {
    "write": "hand an attempt the secrets that its job names",
    "read": "see after doubt whether they are there",
    "list": "find those that outlived their attempt",
    "destroy": "forget them at the attempt's end",
}
"""The scheduler's rights on variables at jobs' own paths (docs/secrets.md)."""

MONITOR_EVERYWHERE: Final[Mapping[str, str]] = {
    LIST: "list jobs: the truth where the stream has gaps",
    READ: "the event stream, which Nomad gives for all namespaces only to those who may read in all",
}
MONITOR_IN_OURS: Final[Mapping[str, str]] = {
    **MONITOR_EVERYWHERE,
    FILES: "keep logs and small outputs, and show logs while a job runs",
}

_NEEDED: Final[Sequence[tuple[str, str]]] = (
    (r"/v1/jobs$", LIST),
    (r"/v1/(job/|allocations|evaluations)", READ),
    (r"/v1/event/stream", f"{READ} in every namespace, and {NODES}"),
    (r"/v1/nodes", NODES),
    (r"/v1/client/fs/", FILES),
)


def needed(path: str) -> str:
    """What a GET of this path needs; empty where every good token may."""
    return next((capability for pattern, capability in _NEEDED if re.match(pattern, path)), "")


def policy(role: Role, namespaces: Sequence[str], *, before_1_11_2: bool = False) -> str:
    """The policy as HCL, for the namespaces of the VOs that a site serves."""
    blocks = []
    if role is Role.MONITOR:
        blocks += [_namespace("*", MONITOR_EVERYWHERE)]
        blocks += [_namespace(name, MONITOR_IN_OURS) for name in namespaces]
        blocks += ['# What the site offers: its ready nodes.\nnode {\n  policy = "read"\n}\n']
        return "\n".join(blocks)
    wanted = _older(SCHEDULER_IN_OURS) if before_1_11_2 else SCHEDULER_IN_OURS
    return "\n".join(_namespace(name, wanted, SECRETS_IN_OURS) for name in namespaces)


def _older(capabilities: Mapping[str, str]) -> Mapping[str, str]:
    finer = {REGISTER, DEREGISTER, PLAN}
    kept = {name: why for name, why in capabilities.items() if name not in finer}
    return {OLD_SUBMIT: "put and stop attempts"} | kept


def _namespace(name: str, capabilities: Mapping[str, str], variables: Mapping[str, str] | None = None) -> str:
    lines = [f'namespace "{name}" {{', *_capabilities(capabilities, "  ")]
    if variables:
        lines += ["  variables {", '    path "nomad/jobs/*" {', *_capabilities(variables, "      "), "    }", "  }"]
    return "\n".join([*lines, "}", ""])


def _capabilities(wanted: Mapping[str, str], indent: str) -> list[str]:
    rows = [f"{indent}  {quoted:<17} # {why}" for quoted, why in ((f'"{name}",', why) for name, why in wanted.items())]
    return [f"{indent}capabilities = [", *rows, f"{indent}]"]
