"""Reads the event log forward: from memory for who keeps up, from the store for who does not."""

from services.gateway import event_log
from services.gateway.changes import Changes
from services.gateway.event_log import Entry
from shared.ports import Store


class LogReader:
    """Used by event streams and by the feeds of subscriptions; whoever reads keeps its own position."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes

    async def more(self, position: int, limit: int, job_id: str | None = None) -> tuple[list[Entry], int]:
        """Up to `limit` entries behind a position (of one job), and how far the log was looked through."""
        recent = self._changes.after(position, limit)
        if recent is not None:
            return recent, recent[-1].position if recent else position
        head = self._changes.head
        stored = await self._store.read_long(lambda connection: event_log.after(connection, position, limit, job_id))
        return stored, stored[-1].position if stored else max(position, head)
