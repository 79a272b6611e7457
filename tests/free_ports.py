"""Loopback ports for servers inside a test, below the ephemeral ones; each worker of pytest-xdist has its own."""

import os
from typing import Final

from services.embedded.folder import next_free_port

_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS_EACH: Final = 200


def free_port(first: int) -> int:
    """The first free port of this worker's range at or above `first`."""
    return next_free_port(first + _WORKER * _PORTS_EACH)
