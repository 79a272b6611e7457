"""The leader's loop over suspensions: stops what may not go on, and lets what was held go on when one ends.

Looks whenever the version of trust has changed, and every few seconds while something is suspended that stops jobs:
what was placed a moment before the suspension was heard of is met by the second look. `suspending.py` decides.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from services.scheduler import queue_store, suspending
from services.scheduler.decisions import Suspended
from services.scheduler.keeping import Keeper
from services.scheduler.leading import Leader
from services.scheduler.records import Job
from shared.contracts.reasons import Reason
from shared.ports import Clock, Store
from shared.runtime import logs
from shared.runtime.transactions import Unit
from shared.runtime.trust_watch import TrustWatch, Version

log = logs.get("scheduler.stopping")

_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class StopPace:
    """Seconds. `tick_s`: between looks at the version of trust. `again_s`: between looks at what runs."""

    tick_s: float = 1.0
    again_s: float = 5.0


class Stopper:
    """Acts on suspensions while its copy of the service leads."""

    def __init__(
        self, data: Store, leader: Leader, keeper: Keeper, trust: TrustWatch, clock: Clock, pace: StopPace
    ) -> None:  # fmt: skip
        self._store = data
        self._leader = leader
        self._keeper = keeper
        self._trust = trust
        self._clock = clock
        self._pace = pace

    async def run(self) -> None:
        """Look for ever."""
        version: Version | None = None
        looked_at = 0.0
        while True:
            await self._trust.current()
            now_s = asyncio.get_running_loop().time()
            if self._trust.version != version:
                version, looked_at = self._trust.version, now_s
                await self._leader.run(self._look_again, cause=f"trust/{version[0]}")
                await self.stop_suspended()
            elif now_s - looked_at >= self._pace.again_s:
                looked_at = now_s
                await self.stop_suspended()
            await asyncio.sleep(self._pace.tick_s)

    def _look_again(self, unit: Unit) -> None:
        queue_store.look_again_at_suspended(unit.connection)
        unit.after_commit(self._keeper.wakes.queued)

    async def stop_suspended(self) -> None:
        """Stop every job at a site that a suspension stops."""
        named = suspending.named(self._trust.state, self._clock())
        after = ""
        while not named.nothing:
            running = await self._store.read(
                lambda connection, after=after: queue_store.may_stop(connection, named, after, _AT_ONCE)  # type: ignore[misc]
            )
            found = suspending.to_stop(running, self._trust.known, self._trust.state.stops, self._clock())
            if found:
                await self._leader.run(lambda unit, found=found: self._stop(unit, found), cause="suspended")  # type: ignore[misc]
            if len(running) < _AT_ONCE:
                return
            after = str(running[-1].id)

    def _stop(self, unit: Unit, found: list[tuple[Job, Reason]]) -> None:
        reasons = {job.id: why for job, why in found}
        for job in self._keeper.unchanged(unit, [job for job, _ in found]):
            why = reasons[job.id]
            log.warning("stopped_for_suspension", job_id=str(job.id), attempt=job.number, why=why.message)
            self._keeper.tell(unit, job, Suspended(why))
