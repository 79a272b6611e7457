"""Forgets what is past its retention: ended jobs with their attempts and events, ids of handled messages.

The scheduler deletes; what is kept of a job after that, without its owner, is the gateway's and accounting's.
"""

import asyncio
from datetime import timedelta
from typing import Final

from services.scheduler import queue_store
from shared.runtime import logs
from shared.runtime.clock import micros
from shared.runtime.relay import Relay
from shared.runtime.transactions import Transactions

log = logs.get("scheduler.janitor")

_AT_ONCE: Final = 200


class Janitor:
    """`keep_s` for ended jobs, `inbox_s` for ids; seconds."""

    def __init__(
        self, transactions: Transactions, relay: Relay, *, keep_s: float, inbox_s: float, interval_s: float
    ) -> None:
        self._transactions = transactions
        self._relay = relay
        self._keep = timedelta(seconds=keep_s)
        self._inbox = timedelta(seconds=inbox_s)
        self._interval_s = interval_s

    async def run(self) -> None:
        """Tidy for ever."""
        while True:
            await self.tidy()
            await asyncio.sleep(self._interval_s)

    async def tidy(self) -> int:
        """Forget everything that is due now; how many jobs that were."""
        store, now = self._transactions.store, self._transactions.clock()
        gone = some = await store.transact(lambda c: queue_store.forget_jobs(c, now - self._keep, _AT_ONCE))
        while some == _AT_ONCE:
            some = await store.transact(lambda c: queue_store.forget_jobs(c, now - self._keep, _AT_ONCE))
            gone += some
        await store.transact(lambda c: queue_store.forget_seen(c, now - self._inbox))
        await store.transact(lambda c: self._relay.forget_commands(c, micros(now - self._inbox)))
        if gone:
            log.info("forgotten", jobs=gone)
        return gone
