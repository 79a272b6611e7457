"""What a secret may be and what a job may ask of them: names, sizes, all there. Pure.

The sizes follow from where a job's secrets go: one Nomad variable, 64 KiB of names and values, values in base64.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from shared.contracts.questions import Decision
from shared.errors import Refused
from shared.job import SECRET_PATTERN

MOST_BYTES: Final = 32_768
"""Of one secret."""
MOST_TOGETHER: Final = 65_536
"""Of names and base64 of all secrets of a job: what a Nomad variable holds."""


def check(name: str, value: bytes) -> None:
    """Raises Refused for a name or a value that cannot be kept."""
    if re.fullmatch(SECRET_PATTERN, name) is None:
        raise Refused(
            f"{name[:80]!r} is not a name for a secret: 1 to 64 letters, digits, '.', '_', '-', with a letter or digit "
            "at both ends", code="invalid_request",
        )  # fmt: skip
    if not value:
        raise Refused("the value is empty; to take a secret away, delete it", code="invalid_request")
    if len(value) > MOST_BYTES:
        raise Refused(f"the value has {len(value)} bytes; a secret holds {MOST_BYTES}", code="secrets_too_large")


def judged(names: Sequence[str], vo: str, sizes: Mapping[tuple[str, str], int]) -> Decision:
    """May a job of this VO with secrets of these names be handed in? `sizes` by VO and name: those that there are."""
    decision = all_there(names, [name for name in names if (vo, name) in sizes], vo)
    if not decision.allowed:
        return decision
    together = sum(len(name) + encoded_size(sizes[vo, name]) for name in names)
    if together <= MOST_TOGETHER:
        return Decision(allowed=True)
    words = f"the job's secrets take {together} bytes (names, and values in base64) of the {MOST_TOGETHER} of one job"
    return Decision(allowed=False, code="secrets_too_large", message=f"{words}; use fewer or smaller ones")


def all_there(names: Sequence[str], found: Collection[str], vo: str) -> Decision:
    """A yes when every name was found."""
    missing = [name for name in names if name not in found]
    if not missing:
        return Decision(allowed=True)
    words = f"the owner has no secret named {', '.join(map(repr, missing))} in the VO {vo}"
    return Decision(
        allowed=False, code="secret_missing", message=f"{words}: `serai secrets set {missing[0]} --vo {vo}`"
    )


def encoded_size(size: int) -> int:
    """Bytes of base64, padding included."""
    return (size + 2) // 3 * 4
