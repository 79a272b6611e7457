"""The leader's loop over secrets that outlived their attempt: what a write that came late, or a database that was
restored, has left at a site is deleted.

The usual end needs no sweep: the deletion is owed from the moment an attempt has ended (`draft.py`).
"""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Final
from uuid import UUID

from services.scheduler import store
from services.scheduler.decisions import Call
from services.scheduler.keeping import Keeper
from services.scheduler.leading import Leader
from services.scheduler.records import Standing
from shared.errors import Misconfigured, Unavailable
from shared.ids import AttemptId
from shared.ports import JobEngine
from shared.runtime import logs
from shared.runtime.transactions import Unit

log = logs.get("scheduler.leftovers")

_OURS: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(\d{3})")


class Leftovers:
    """Sweeps while its copy of the service leads. `unknown`: also what belongs to no attempt in our records."""

    def __init__(
        self, leader: Leader, keeper: Keeper, engines: Mapping[str, JobEngine], interval_s: float, *, unknown: bool
    ) -> None:
        self._leader = leader
        self._keeper = keeper
        self._engines = engines
        self._interval_s = interval_s
        self._unknown = unknown

    async def run(self) -> None:
        """Sweep for ever, at once to begin with: this copy may lead because another was killed."""
        while True:
            for cluster in self._engines:
                await self.sweep(cluster)
            await asyncio.sleep(self._interval_s)

    async def sweep(self, cluster: str) -> None:
        """Owe the deletion of everything at a cluster whose attempt is over."""
        try:
            kept = await self._engines[cluster].kept_secrets()
        except (Unavailable, Misconfigured) as error:
            log.warning("secrets_not_listed", cluster=cluster, culprit=error.what)
            return
        found = [(attempt, namespace) for name, namespace in kept if (attempt := _attempt_of(name)) is not None]
        if found:
            await self._leader.run(lambda unit: self._owe(unit, cluster, found), cause=f"leftovers/{cluster}")

    def _owe(self, unit: Unit, cluster: str, found: list[tuple[AttemptId, str]]) -> None:
        for attempt, namespace in found:
            known = store.attempt(unit.connection, attempt.job_id, attempt.number)
            over = self._unknown if known is None else known.standing is Standing.ENDED
            if over:
                log.warning("secrets_left_behind", attempt=str(attempt), cluster=cluster, known=known is not None)
                store.owe(
                    unit.connection, attempt.job_id, attempt.number, Call.FORGET, cluster=cluster,
                    namespace=namespace, now=unit.now,
                )  # fmt: skip
                unit.after_commit(partial(self._keeper.wakes.owed, cluster))


def _attempt_of(nomad_id: str) -> AttemptId | None:
    """The attempt whose Nomad job this is; None for what is not of our making."""
    found = _OURS.fullmatch(nomad_id)
    return AttemptId(UUID(found[1]), int(found[2])) if found else None
