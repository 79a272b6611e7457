"""The MessageBus of one process: an append-only log and its deliveries in one SQLite file. See `bus.py`."""

from shared.adapters.embedded_bus.bus import EmbeddedBus
from shared.adapters.embedded_bus.looking import look

__all__ = ["EmbeddedBus", "look"]
