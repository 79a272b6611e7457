"""The sites as the monitor tells of them: which there are, how they stand, what they offer. One `SiteDesk` a cluster.

Every `site.*` event leaves from here, numbered by the site's own row in the same transaction.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from services.monitor import capacity, others, store
from services.monitor.attempts import Identity
from services.monitor.others import Others, Room
from services.monitor.site_health import Health, Hysteresis, Sign, Standing, after
from services.monitor.store import SiteRow
from shared.contracts.events import SiteEvent, SiteObserved, SiteReachable, SiteStray, SiteSuspect, SiteUnreachable
from shared.engine import AllocationSeen, Line, Listing, NodeSeen
from shared.ports import SiteRegistry
from shared.runtime import logs
from shared.runtime.leadership import Leadership
from shared.runtime.transactions import Transactions, Unit
from shared.site import Site, SiteCapacity

log = logs.get("monitor.sites")

S = TypeVar("S", AllocationSeen, NodeSeen)

Telling = Callable[[int, str | None], SiteEvent]
"""(occurrence, VO of a copy or None) -> event."""


class SiteBook:
    """Which sites there are, as the registry last said."""

    def __init__(self, registry: SiteRegistry) -> None:
        self._registry = registry
        self._sites: tuple[Site, ...] = ()
        self._known = asyncio.Event()

    async def follow(self) -> None:
        """Keep up with the registry; for ever."""
        async for view in self._registry.changes():
            self._sites = tuple(view)
            self._known.set()

    async def ready(self) -> None:
        """Return once the registry has spoken."""
        await self._known.wait()

    async def answers(self) -> None:
        """Return once the registry has spoken, if it answers now. Raises its culprit."""
        await self.ready()
        await self._registry.ready()

    def of(self, cluster: str) -> tuple[Site, ...]:
        """The sites of one cluster."""
        return tuple(site for site in self._sites if site.cluster == cluster)

    def cluster_of(self, name: str) -> str | None:
        """The cluster of a site, None for a site nobody named."""
        return next((site.cluster for site in self._sites if site.name == name), None)


class SiteDesk:
    """Tells of the sites of one cluster. Used by prober, watcher and reconciler of the copy that leads."""

    def __init__(
        self, cluster: str, book: SiteBook, transactions: Transactions, leadership: Leadership, rules: Hysteresis
    ) -> None:
        self._cluster = cluster
        self._book = book
        self._transactions = transactions
        self._leadership = leadership
        self._rules = rules
        self._health: dict[str, Health] = {}
        self._signing = asyncio.Lock()
        self._nodes: Mapping[str, NodeSeen] = {}
        self._others = Others()
        self._room: Room = {}
        """What others held when that was taken over last; it changes often, and is told with all of a site's nodes."""
        self._listed = False
        self.nodes_changed = asyncio.Event()
        self.others_changed = asyncio.Event()

    # -- how they stand -------------------------------------------------------------------------------------------

    async def sign(self, sign: Sign, error: str = "", sites: Iterable[str] | None = None) -> None:
        """One more sign from the cluster, for all of its sites or for those named; tells when one stands anew."""
        await self._book.ready()
        names = [site.name for site in self._book.of(self._cluster)] if sites is None else list(sites)
        for name in names:
            async with self._signing:
                await self._sign(name, sign, error)

    async def _sign(self, name: str, sign: Sign, error: str) -> None:
        before = await self._health_of(name)
        health = after(before, sign, self._transactions.clock(), self._rules, error)
        if health.standing is not before.standing:
            await self._tell_standing(name, before, health)
        self._health[name] = health

    async def _health_of(self, name: str) -> Health:
        if name not in self._health:
            row = await self._transactions.store.read(lambda connection: store.site(connection, name))
            self._health[name] = row.health
        return self._health[name]

    def begin(self) -> None:
        """This copy begins to lead: what another one told meanwhile is in the store."""
        self._health.clear()

    async def _tell_standing(self, name: str, before: Health, health: Health) -> None:
        tell_log = log.info if health.standing is Standing.REACHABLE else log.warning
        tell_log("site_stands", site=name, standing=health.standing, before=before.standing, error=health.error)

        def tell(unit: Unit) -> None:
            self._leadership.check(unit.connection)
            row = store.site(unit.connection, name)
            recovered = health.standing is Standing.REACHABLE and before.standing is Standing.UNKNOWN
            vos = [] if recovered else store.vos_at(unit.connection, self._cluster, name)
            told = _tell(unit, row, _standing_event(name, health), vos)
            store.save_site(unit.connection, replace(told, health=health))

        await self._transactions.run(tell)

    def troubles(self) -> dict[str, str]:
        """Of each site what is wrong with it; empty for nothing. Knows nothing while another copy leads."""
        return {
            name: "" if health.standing is Standing.REACHABLE else health.error or health.standing.value
            for name, health in self._health.items()
        }

    def answers(self, name: str) -> bool:
        """Whether the site stands reachable: only then is what we know of it news."""
        health = self._health.get(name)
        return health is not None and health.standing is Standing.REACHABLE

    # -- what they offer ------------------------------------------------------------------------------------------

    def will_list(self) -> None:
        """A re-listing is about to be asked for."""
        self._others.asked()

    def began_anew(self) -> None:
        """The cluster's indexes began anew."""
        self._others.forget()

    def listed(self, listing: Listing) -> None:
        """The nodes of a re-listing, and what others hold of them: the truth."""
        self._nodes, self._listed = capacity.known_nodes(listing.nodes), True
        self._others.listed(listing.allocations)
        self.take_room()

    def saw(self, lines: Sequence[Line]) -> None:
        """What the stream tells of nodes, and of others' allocations."""
        known = self._nodes
        for node in _of(lines, NodeSeen):
            known = capacity.with_node(known, node)
        if known is not self._nodes:
            self._nodes = known
            self.nodes_changed.set()
        taken, freed = self._others.saw(_of(lines, AllocationSeen)), self._others.purged(others.purges(lines))
        if taken or freed:
            self.others_changed.set()

    @property
    def nodes(self) -> int:
        """How many nodes the cluster has."""
        return len(self._nodes)

    def take_room(self) -> None:
        """Take over what others hold by now, to be told."""
        self.others_changed.clear()
        self._room = self._others.room
        self.nodes_changed.set()

    async def observe(self, interval_s: float) -> None:
        """Tell the capacity of each reachable site that changed, or was not told for `interval_s`."""
        if not self._listed:
            return
        for site in self._book.of(self._cluster):
            if self.answers(site.name):
                await self._observe_one(site, interval_s)

    async def _observe_one(self, site: Site, interval_s: float) -> None:
        offer = capacity.site_capacity(site, self._nodes.values(), self._room)
        row = await self._transactions.store.read(lambda connection: store.site(connection, site.name))
        now = self._transactions.clock()
        if row.capacity == offer and row.observed_at and now - row.observed_at < timedelta(seconds=interval_s):
            return
        await self._transactions.run(lambda unit: self._tell_capacity(unit, site.name, offer))

    def _tell_capacity(self, unit: Unit, name: str, offer: SiteCapacity) -> None:
        self._leadership.check(unit.connection)
        row = store.site(unit.connection, name)
        told = _tell(unit, row, lambda n, vo: SiteObserved(site=name, occurrence=n, vo=vo, capacity=offer))
        store.save_site(unit.connection, replace(told, capacity=offer, observed_at=unit.now))

    # -- strays ---------------------------------------------------------------------------------------------------

    async def tell_strays(self, strays: Sequence[Identity]) -> None:
        """What runs there and is not current: told at every sight, until it is gone."""

        def tell(unit: Unit) -> None:
            self._leadership.check(unit.connection)
            for stray in strays:
                row = store.site(unit.connection, stray.site)
                store.save_site(unit.connection, _tell(unit, row, _stray_event(stray)))

        if strays:
            log.warning("strays", cluster=self._cluster, attempts=[str(stray.attempt) for stray in strays])
            await self._transactions.run(tell)


def _of(lines: Sequence[Line], kind: type[S]) -> Iterable[S]:
    return (one for line in lines for one in line.seen if isinstance(one, kind))


def _tell(unit: Unit, row: SiteRow, telling: Telling, vos: Sequence[str] = ()) -> SiteRow:
    """Emit the next event of a site, and its copies to VOs; the row with its number."""
    occurrence = row.occurrence + 1
    for vo in (None, *vos):
        unit.emit(telling(occurrence, vo))
    return replace(row, occurrence=occurrence)


def _standing_event(site: str, health: Health) -> Telling:
    since = health.since or datetime.min
    match health.standing:
        case Standing.UNREACHABLE:
            return lambda n, vo: SiteUnreachable(site=site, occurrence=n, vo=vo, since=since, error=health.error)
        case Standing.SUSPECT:
            return lambda n, vo: SiteSuspect(site=site, occurrence=n, vo=vo, error=health.error)
    return lambda n, vo: SiteReachable(site=site, occurrence=n, vo=vo)


def _stray_event(stray: Identity) -> Telling:
    return lambda n, vo: SiteStray(
        site=stray.site, occurrence=n, vo=vo, job_id=stray.attempt.job_id, attempt=stray.attempt.number,
        namespace=stray.namespace,
    )  # fmt: skip
