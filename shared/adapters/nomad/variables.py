"""An attempt's secrets at its cluster: one Nomad variable at the job's own path, which its tasks alone may read.

`nomad/jobs/<job id>` needs no policy: a workload identity reads it by itself (Nomad, "Task access to variables"). The
values are base64, since a variable holds text and a secret any bytes; the template undoes it. Pure: `control.py` makes
the calls, `specification.py` writes the templates.
"""

import base64
from collections.abc import Mapping, Sequence

from shared.engine import AttemptOrder, NomadJob
from shared.errors import Refused
from shared.job import SecretFile

PREFIX = "nomad/jobs/"
MOST_BYTES = 65_536
"""Of names and values together (Nomad, "Variables": 64 KiB)."""


def path_of(nomad_id: str) -> str:
    """Where a Nomad job's own variable is."""
    return f"{PREFIX}{nomad_id}"


def items_of(order: AttemptOrder) -> dict[str, str]:
    """What the variable of an order holds. Raises Refused when it would hold more than Nomad lets it."""
    names = dict.fromkeys(secret.name for secret in order.spec.secrets)
    items = {name: base64.b64encode(order.secrets[name]).decode() for name in names}
    size = sum(len(name) + len(value) for name, value in items.items())
    if size > MOST_BYTES:
        raise Refused(f"the job's secrets take {size} bytes, a Nomad variable holds {MOST_BYTES}", code="too_large")
    return items


def template_of_secret(nomad_id: str, secret: SecretFile) -> NomadJob:
    """The template that writes a secret's file, once: what the variable becomes later is nothing to a running task.

    Everybody in the task may read it, whatever user its image runs as; the folder is the task's alone. The delimiters
    name the file: of two templates with the same text, Nomad 1.10 and 1.11 write one.
    """
    left, right = f"<{secret.file}<", f">{secret.file}>"
    action = f'with nomadVar "{path_of(nomad_id)}"', f'(index . "{secret.name}").Value | base64Decode', "end"
    return {
        "EmbeddedTmpl": "".join(f"{left}{each}{right}" for each in action),
        "LeftDelim": left,
        "RightDelim": right,
        "DestPath": f"secrets/{secret.file}",
        "Perms": "0444",
        "ChangeMode": "noop",
        "Once": True,
        "ErrMissingKey": True,
    }


def owners_of(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """(Nomad job id, namespace) of listed variables at jobs' own paths; those of groups and tasks are not ours."""
    found = [(row["Path"].removeprefix(PREFIX), row["Namespace"]) for row in rows if row["Path"].startswith(PREFIX)]
    return [(nomad_id, namespace) for nomad_id, namespace in found if nomad_id and "/" not in nomad_id]
