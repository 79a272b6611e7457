"""Loopback ports for servers inside a test, below the ephemeral ones; each worker of pytest-xdist has its own.

Who uses which: worlds of `scenarios/` 9 000 to 13 000 and 14 750 to 16 950; what is met as newcomers meet it
(`system/`, by one worker) 14 646 to 14 750 and 17 000 to 20 400; servers that are thrown away others, from 20 500 on.
"""

import os
import random
from typing import Final

from services.embedded.folder import next_free_port

_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS_EACH: Final = 200
_WORKERS: Final = 4


def any_of(ports: range) -> int:
    """One of this worker's share of these ports, by chance."""
    share = len(ports) // _WORKERS
    return ports[_WORKER % _WORKERS * share + random.SystemRandom().randrange(share)]


def free_port(first: int) -> int:
    """A free port of this worker's range at or above `first`, by chance: another run looks for one as well."""
    return next_free_port(first + _WORKER % _WORKERS * _PORTS_EACH + random.SystemRandom().randrange(_PORTS_EACH // 2))
