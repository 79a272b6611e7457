"""Keeping house: signing keys are renewed, old rows go, and the head of the audit chain is told to the log.

The head in the log is a witness outside the database: who rewrites the whole chain cannot rewrite that. Run as a task
of the service (`wiring.py`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from services.auth import audit_store, secret_store, store
from services.auth.audit import End
from services.auth.keys import IssuerKeys
from services.auth.secret_box import SecretBox
from services.auth.signing_keys import KeyChest
from shared.ports import Clock, Store
from shared.runtime import logs

log = logs.get("auth.janitor")


@dataclass(frozen=True, slots=True)
class Keep:
    """How long records of decisions and memories of principals are kept, and how often the house is kept."""

    audit: timedelta
    seen: timedelta
    secrets: timedelta
    interval_s: float


class Janitor:
    """One per copy of auth; several do no harm."""

    def __init__(self, chest: KeyChest, box: SecretBox, database: Store, clock: Clock, keep: Keep) -> None:
        self._chest = chest
        self._box = box
        self._store = database
        self._clock = clock
        self._keep = keep
        self._told: End | None = None

    async def run(self) -> None:
        """Round after round, for ever."""
        while True:
            await self.round()
            await asyncio.sleep(self._keep.interval_s)

    async def round(self) -> None:
        """Once."""
        await self._chest.renew()
        now = self._clock()
        await self._store.transact(
            partial(store.prune, audit_before=now - self._keep.audit, seen_before=now - self._keep.seen)
        )
        await self._store.transact(partial(secret_store.forget_unused, before=now - self._keep.secrets))
        await self._reseal()
        _, head = await self._store.read(audit_store.ends)
        if head != self._told:
            log.info("audit_head", position=head.position, hash=head.hash)
            self._told = head

    async def _reseal(self) -> None:
        """Until nothing is left under a former key. What no key opens is an operator's: it is logged, not dropped, and
        holds up none of the others.
        """
        count, left = -1, list[str]()
        while count:
            count, left = await self._store.transact(partial(secret_store.reseal, box=self._box))
            if count:
                log.info("secrets_resealed", count=count)
        for what in left:
            log.error("secret_not_resealed", culprit=what)
        for key_id, number in (await self._store.read(partial(secret_store.under_lost_keys, box=self._box))).items():
            log.error("secrets_under_a_lost_key", key_id=key_id, count=number)


async def keep_keys_young(issuers: Sequence[IssuerKeys], interval_s: float) -> None:
    """Fetch issuers' keys before anybody has to wait for them, for ever; one that does not answer holds up none."""
    while True:
        await asyncio.gather(*(issuer.ring.renew_early() for issuer in issuers))
        await asyncio.sleep(interval_s)
