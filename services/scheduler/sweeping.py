"""The leader's loop over time: finds jobs whose deadlines have passed, and sites that are lost.

`deadlines.py` says what is due, `jobs.py` what follows; here is the timer, the reading and the writing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.scheduler import deadlines, placement, queue_store
from services.scheduler.deadlines import Deadline
from services.scheduler.decisions import Passed
from services.scheduler.keeping import Keeper
from services.scheduler.known_sites import CRITICAL, KnownSites
from services.scheduler.leading import Leader
from services.scheduler.placement import Snapshot
from services.scheduler.records import Job
from services.scheduler.snapshots import SiteRecord
from shared.contracts.reasons import Verdict
from shared.ports import Clock, Store
from shared.runtime import logs
from shared.runtime.transactions import Unit

log = logs.get("scheduler.sweeping")

Records = Mapping[str, SiteRecord]

_AT_ONCE: Final = 100
_NOT_HEARD_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SweepPace:
    """See the settings of the same names; seconds."""

    tick_s: float = 1.0
    site_grace_s: float = 300.0
    silence_s: float = 180.0


class Sweeper:
    """Keeps deadlines while its copy of the service leads."""

    def __init__(
        self, data: Store, leader: Leader, keeper: Keeper, sites: KnownSites, clock: Clock,
        namespace_of: Callable[[str], str], pace: SweepPace,
    ) -> None:  # fmt: skip
        self._store = data
        self._leader = leader
        self._keeper = keeper
        self._sites = sites
        self._clock = clock
        self._namespace_of = namespace_of
        self._pace = pace

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            while await self.sweep_jobs() == _AT_ONCE:
                pass
            for site in await self.lost_sites():
                await self.sweep_site(site)
            await self._keeper.wakes.sweep.wait(self._pace.tick_s)

    # -- jobs -----------------------------------------------------------------------------------------------------

    async def sweep_jobs(self) -> int:
        """Let up to a hundred jobs have what is due to them; how many there were."""
        now = self._clock()
        due = await self._store.read(lambda connection: queue_store.due_jobs(connection, now, _AT_ONCE))
        if not due:
            return 0
        facts = await self._store.read(queue_store.read_facts)
        snapshot = self._sites.snapshot(facts)
        await self._leader.run(lambda unit: self._pass_all(unit, due, snapshot, facts.records), cause="sweeping")
        return len(due)

    def _pass_all(self, unit: Unit, due: list[Job], snapshot: Snapshot, records: Records) -> None:
        for job in self._keeper.unchanged(unit, due):
            self._pass(unit, job, snapshot, records)

    def _pass(self, unit: Unit, job: Job, snapshot: Snapshot, records: Records) -> None:
        """What is due now; a deadline that cannot be believed without news of the site is looked at again later."""
        heard = self._heard(job, records, unit.now)
        passed = deadlines.due(job, unit.now, self._keeper.graces, heard=heard)
        if not passed:
            queue_store.look_again(unit.connection, job.id, unit.now + timedelta(seconds=_NOT_HEARD_S))
            return
        log.info("deadline", job_id=str(job.id), what=passed[0], attempt=job.number)
        verdicts = self._verdicts(job, snapshot, unit.now) if passed[0] is Deadline.MAX_WAIT else ()
        self._keeper.tell(unit, job, Passed(passed[0], verdicts))

    def _heard(self, job: Job, records: Records, now: datetime) -> bool:
        record = records.get(job.attempt.site) if job.attempt else None
        observed = record.observed_at if record else None
        return observed is not None and now - observed < timedelta(seconds=self._pace.silence_s)

    def _verdicts(self, job: Job, snapshot: Snapshot, now: datetime) -> tuple[Verdict, ...]:
        namespace = self._namespace_of(job.spec.vo)
        return placement.decide(job.spec, snapshot, namespace=namespace, avoid=job.avoided(now), salt=str(job.id))

    # -- sites ----------------------------------------------------------------------------------------------------

    async def lost_sites(self) -> list[str]:
        """Sites that both the monitor and the registry have missed for the whole grace time."""
        known = await self._store.read(queue_store.read_sites)
        now = self._clock()
        return [record.name for record in known if self._is_lost(record, now)]

    def _is_lost(self, record: SiteRecord, now: datetime) -> bool:
        site = self._sites.by_name.get(record.name)
        if site is None or site.health not in CRITICAL:
            return False
        if record.unreachable_since is None or record.critical_since is None:
            return False
        missing_since = max(record.unreachable_since, record.critical_since)
        return now - missing_since >= timedelta(seconds=self._pace.site_grace_s)

    async def sweep_site(self, site: str) -> None:
        """Let `on_lost` decide for every job whose current attempt is at a lost site."""
        after = ""
        while True:
            at_site = await self._store.read(
                lambda connection, after=after: queue_store.current_at(connection, site, after, _AT_ONCE)  # type: ignore[misc]
            )
            if at_site:
                await self._leader.run(lambda unit, at_site=at_site: self._lose(unit, at_site), cause=f"lost/{site}")  # type: ignore[misc]
            if len(at_site) < _AT_ONCE:
                return
            after = str(at_site[-1].id)

    def _lose(self, unit: Unit, at_site: list[Job]) -> None:
        for job in self._keeper.unchanged(unit, at_site):
            self._keeper.tell(unit, job, Passed(Deadline.SITE_GRACE))
