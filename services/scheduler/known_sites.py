"""The sites as this process knows them now: the registry's view, and the namespaces of their clusters.

Two tasks keep it: `follow` listens to the registry and notes in the store since when a site is critical there;
`ask_namespaces` asks the clusters on a timer.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from services.scheduler import queue_store, store
from services.scheduler.placement import Snapshot
from services.scheduler.snapshots import Facts, take
from services.scheduler.wakes import Wakes
from shared.errors import Misconfigured, Unavailable
from shared.ports import JobEngine, SiteRegistry
from shared.runtime import logs
from shared.runtime.transactions import Transactions, Unit
from shared.site import Site, SiteHealth

log = logs.get("scheduler.known_sites")

CRITICAL = frozenset({SiteHealth.CRITICAL, SiteHealth.UNREACHABLE, SiteHealth.MISCONFIGURED})
"""The registry does not vouch for the site. It takes the monitor's word as well to give up what runs there."""


class KnownSites:
    """Sites by name; nothing before the registry has answered once."""

    def __init__(
        self, registry: SiteRegistry, engines: Mapping[str, JobEngine], transactions: Transactions, wakes: Wakes,
        namespaces_s: float,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._engines = engines
        self._transactions = transactions
        self._wakes = wakes
        self._namespaces_s = namespaces_s
        self.by_name: dict[str, Site] = {}
        self.namespaces: dict[str, frozenset[str]] = {}
        self._culprits: dict[str, str] = dict.fromkeys(engines, "not asked yet")
        """Of each cluster what kept us from it at the last look; empty for nothing."""

    async def follow(self) -> None:
        """Listen to the registry for ever."""
        async for sites in self._registry.changes():
            self.by_name = {site.name: site for site in sites}
            await self._transactions.run(self._note_health)
            self._wakes.room()

    async def ask_namespaces(self) -> None:
        """Ask the clusters for their namespaces for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._namespaces_s)

    async def look(self) -> None:
        """Ask all of them once."""
        await asyncio.gather(*(self._ask(cluster, engine) for cluster, engine in self._engines.items()))

    async def _ask(self, cluster: str, engine: JobEngine) -> None:
        """One look. A cluster that does not answer, or does not let us in, keeps its last answer."""
        try:
            await engine.ready()
            found = await engine.namespaces()
        except (Unavailable, Misconfigured) as error:
            log.warning("namespaces_unknown", cluster=cluster, culprit=error.what)
            self._culprits[cluster] = error.what
            return
        self._culprits[cluster] = ""
        if found != self.namespaces.get(cluster):
            self.namespaces[cluster] = found
            self._wakes.room()

    async def ready(self) -> None:
        """Return when the registry answers and has told of sites. Raises its culprit."""
        await self._registry.ready()
        if not self.by_name:
            raise Unavailable("no site is known yet", code="no_sites")

    def troubles(self) -> dict[str, str]:
        """Of each site what kept us from its cluster at the last look; empty for nothing."""
        return {site.name: self._culprits.get(site.cluster, "no such cluster") for site in self.by_name.values()}

    def snapshot(self, facts: Facts) -> Snapshot:
        """All sites at this moment."""
        return take(list(self.by_name.values()), facts, self.namespaces)

    def _note_health(self, unit: Unit) -> None:
        noted = {record.name: record.critical_since for record in queue_store.read_sites(unit.connection)}
        for site in self.by_name.values():
            since = _critical_since(site, noted.get(site.name), unit.now)
            if since != noted.get(site.name):
                store.save_critical(unit.connection, site.name, since)


def _critical_since(site: Site, noted: datetime | None, now: datetime) -> datetime | None:
    if site.health not in CRITICAL:
        return None
    return noted or now
