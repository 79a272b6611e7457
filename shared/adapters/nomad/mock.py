"""Work that starts no process: the job's metadata `serai.mock` as configuration of Nomad's mock_driver.

For load tests only; `specification.driver_of` lets it through where the cluster's settings allow it. Pure.
"""

from typing import Any

from shared.adapters.nomad.escaping import literal
from shared.errors import Refused
from shared.job import JobSpec

MOCK_KEY = "serai.mock"

_NUMBERS = frozenset({"exit_code", "exit_signal", "stdout_repeat"})
_TEXTS = frozenset({"run_for", "start_block_for", "start_error", "kill_after", "exit_err_msg", "stdout_string"})


def mock_config(spec: JobSpec) -> dict[str, Any]:
    """`run_for=2s, exit_code=3` as a driver configuration; durations are Go's. Nothing said runs for no time and
    ends well. Raises Refused (`mock_invalid`).
    """
    pairs = [pair.strip() for pair in spec.metadata.get(MOCK_KEY, "").split(",") if pair.strip()]
    return {"run_for": "0s"} | dict(_setting(pair) for pair in pairs)


def _setting(pair: str) -> tuple[str, int | str]:
    name, _, value = (part.strip() for part in pair.partition("="))
    if name in _NUMBERS and value.isdigit():
        return name, int(value)
    if name in _TEXTS and value:
        return name, literal(value)
    known = ", ".join(sorted(_NUMBERS | _TEXTS))
    raise Refused(f"metadata {MOCK_KEY!r}: {pair!r} is not NAME=VALUE with a name of: {known}", code="mock_invalid")
