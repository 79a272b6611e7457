"""The table from message to handler: empty, because auth listens to nobody. It answers questions (`api.py`); who must
hear of suspensions and policies asks for the version of trust.
"""

from collections.abc import Mapping
from typing import Final

from shared.contracts.commands import Command
from shared.contracts.events import Event

HANDLERS: Final[Mapping[type[Command] | type[Event], object]] = {}
