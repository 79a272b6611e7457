"""Forgets what is past its retention, a little at a time, while this copy leads."""

import asyncio
from datetime import timedelta

from services.monitor import store
from services.monitor.settings import MonitorSettings
from shared.runtime import logs
from shared.runtime.leadership import Leadership
from shared.runtime.transactions import Transactions, Unit

log = logs.get("monitor.janitor")

_AT_A_TIME = 200


class Janitor:
    """One round each `janitor_interval_s`."""

    def __init__(self, transactions: Transactions, leadership: Leadership, settings: MonitorSettings) -> None:
        self._transactions = transactions
        self._leadership = leadership
        self._settings = settings

    async def run(self) -> None:
        """For ever. Raises Unavailable with the store."""
        while True:
            await self._leadership.held()
            await self.round()
            await asyncio.sleep(self._settings.janitor_interval_s)

    async def round(self) -> int:
        """Forget everything that is due; how many attempts."""
        forgotten = 0
        while some := await self._transactions.run(self._forget_some):
            forgotten += some
        await self._transactions.run(self._forget_messages)
        log.info("forgotten", attempts=forgotten)
        return forgotten

    def _forget_some(self, unit: Unit) -> int:
        self._leadership.check(unit.connection)
        return store.forget_ended(unit.connection, unit.now - timedelta(seconds=self._settings.retention_s), _AT_A_TIME)

    def _forget_messages(self, unit: Unit) -> None:
        self._leadership.check(unit.connection)
        store.forget_site_messages(
            unit.connection, unit.now - timedelta(seconds=self._settings.site_message_retention_s)
        )
