"""The table from message to handler: empty, for the monitor takes no messages.

What it acts on are the clusters' streams and listings (`watcher.py`); what it tells leaves through its outbox.
"""

from collections.abc import Mapping
from typing import Final

from shared.runtime.consuming import Handler

HANDLERS: Final[Mapping[type, Handler]] = {}
