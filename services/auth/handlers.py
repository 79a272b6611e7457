"""The table from message to handler: empty, because auth listens to nobody. It answers questions (`api.py`).

Suspensions and VO policies will bring the first entries.
"""

from collections.abc import Mapping
from typing import Final

from shared.contracts.commands import Command
from shared.contracts.events import Event

HANDLERS: Final[Mapping[type[Command] | type[Event], object]] = {}
