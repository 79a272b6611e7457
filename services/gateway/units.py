"""Units as people write them: `512MiB`, `1.5GiB`, `2h`, `1h30m`. Pure; read at the gateway's edge only.

The patterns are part of the published JSON Schema of the job file, so that schema and code say the same.
"""

import math
import re
from typing import Final

SIZE_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,6})?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)$"
DURATION_PATTERN: Final = (
    r"^(?=[0-9])([0-9]{1,9}(\.[0-9]{1,6})?d)?([0-9]{1,9}(\.[0-9]{1,6})?h)?"
    r"([0-9]{1,9}(\.[0-9]{1,6})?m)?([0-9]{1,9}(\.[0-9]{1,6})?s)?$"
)

_BYTES: Final = {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SIZE: Final = re.compile(r"([0-9.]+)([A-Za-z]+)")
_DURATION: Final = re.compile(r"([0-9.]+)([dhms])")


def mebibytes(value: object) -> object:
    """A size in MiB, rounded up; numbers are MiB. Raises ValueError; other types pass, for pydantic to refuse."""
    match value:
        case bool():
            raise ValueError("must be a size: a number of MiB, or words like '512MiB' or '1.5GiB'")
        case str():
            return math.ceil(_size_in_bytes(value) / 2**20)
        case float() if math.isfinite(value):
            return math.ceil(value)
    return value


def _size_in_bytes(text: str) -> float:
    found = _SIZE.fullmatch(text) if re.match(SIZE_PATTERN, text) else None
    if found is None or text.endswith("\n"):
        raise ValueError(
            f"{text[:40]!r} is not a size: write a number of MiB, or a number with KiB, MiB, GiB, TiB (or kB, MB, GB, "
            "TB) directly behind it, like '512MiB' or '1.5GiB'"
        )
    return float(found[1]) * _BYTES[found[2]]


def seconds(value: object) -> object:
    """A duration in seconds; numbers are seconds. Raises ValueError; other types pass, for pydantic to refuse."""
    match value:
        case bool():
            raise ValueError("must be a duration: a number of seconds, or words like '2h' or '1h30m'")
        case str():
            return _duration_in_seconds(value)
    return value


def _duration_in_seconds(text: str) -> float:
    if not text or text.endswith("\n") or not re.match(DURATION_PATTERN, text):
        raise ValueError(
            f"{text[:40]!r} is not a duration: write a number of seconds, or numbers with d, h, m, s directly behind "
            "them, largest first, like '90s', '2h' or '1h30m'"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
