"""What a re-listing is for: folding what the stream did not bring, doubting what is missing, asking about strays.

Used by the watcher. A missing attempt is believed lost only with proof, and only while few vanish together.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.monitor import attempts, store, watching
from services.monitor.attempts import AttemptRecord
from services.monitor.folding import Folding
from services.monitor.settings import MonitorSettings
from services.monitor.site_health import Sign
from services.monitor.sites import SiteDesk
from services.monitor.watching import Sights, VanishRule
from shared.contracts.questions import StraysAnswer, StraysRequest
from shared.engine import Listing, Presence
from shared.errors import SeraiError
from shared.ids import AttemptId, attempt_of
from shared.ports import Clock, EngineWatch, Store
from shared.runtime import logs
from shared.runtime.questions import Questions

log = logs.get("monitor.reconciling")

_STRAYS_ASKED = 1000
_PROOFS_AT_A_TIME = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """A re-listing, and the attempts that lived before it was asked for: those it must show."""

    listing: Listing
    live: Sequence[AttemptRecord]


class Reconciler:
    """The doubts about one cluster."""

    def __init__(
        self,
        cluster: str,
        watch: EngineWatch,
        store: Store,
        folding: Folding,
        desk: SiteDesk,
        scheduler: Questions,
        clock: Clock,
        settings: MonitorSettings,
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._store = store
        self._folding = folding
        self._desk = desk
        self._scheduler = scheduler
        self._clock = clock
        self._settings = settings
        self._rule = VanishRule(settings.vanish_few, settings.vanish_share)
        self._index = 0
        self._doubts: set[AttemptId] = set()
        self._doubted = asyncio.Event()
        self._running: list[str] = []
        self._listed = asyncio.Event()
        self._vanished: deque[tuple[datetime, str]] = deque()

    # -- listings -------------------------------------------------------------------------------------------------

    async def listed(self) -> Listed:
        """A new listing, and who lived before it was asked for."""
        live = await self._store.read_long(lambda connection: store.live_records(connection, self._cluster))
        self._desk.will_list()
        return Listed(await self._watch.listing(), live)

    async def fold(self, listed: Listed) -> None:
        """Fold what changed since the last listing, doubt what is missing, wonder what is stray."""
        listing = listed.listing
        changed = watching.changed_since(listing, self._index)
        for chunk in _chunks(changed, self._settings.listing_batch):
            self.doubt((await self._folding.fold([chunk])).in_doubt)
        self._index = listing.index
        gone = watching.missing(listed.live, listing) if listing.known_leader else []
        self.doubt(gone)
        if not gone and listing.known_leader:
            await self._desk.sign(Sign.BELIEVABLE)
        self._running = watching.running_ids(listing)
        self._listed.set()

    def forget_index(self) -> None:
        """The cluster's indexes began anew: everything counts as changed."""
        self._index = 0

    # -- strays ---------------------------------------------------------------------------------------------------

    async def ask_about_strays(self) -> None:
        """After each listing, ask the scheduler which of what runs is not current; for ever.

        When it is away, the next listing brings them again. Raises Unavailable with the store.
        """
        while True:
            await self._listed.wait()
            self._listed.clear()
            ids = self._running
            for start in range(0, len(ids), _STRAYS_ASKED):
                await self._tell_strays(await self._strays_of(ids[start : start + _STRAYS_ASKED]))

    async def _strays_of(self, ids: list[str]) -> set[str]:
        body = StraysRequest(attempts=tuple(ids))
        try:
            answer = await self._scheduler.ask("POST", "/internal/attempts:strays", StraysAnswer, body=body)
        except SeraiError as away:
            log.warning("strays_not_asked", cluster=self._cluster, culprit=away.what)
            return set()
        return set(answer.strays) & set(ids)

    async def _tell_strays(self, ids: set[str]) -> None:
        wanted = [attempt for id in sorted(ids) if (attempt := attempt_of(id)) is not None]
        kept = await self._store.read(lambda connection: store.records(connection, wanted))
        await self._desk.tell_strays([kept[attempt].record.identity for attempt in wanted if attempt in kept])

    # -- doubts ---------------------------------------------------------------------------------------------------

    def doubt(self, records: Iterable[AttemptRecord]) -> None:
        """These may be gone: to be proven."""
        self._doubts |= {record.identity.attempt for record in records}
        if self._doubts:
            self._doubted.set()

    async def resolve(self) -> None:
        """Prove or drop doubts as they come; for ever. Raises Unavailable with the cluster or the store."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            doubts, self._doubts = self._doubts, set()
            if doubts:
                await self._resolve(doubts)

    async def _resolve(self, doubts: set[AttemptId]) -> None:
        kept = await self._store.read(lambda connection: store.records(connection, doubts))
        records = [one.record for one in kept.values() if one.record.live]
        limit = asyncio.Semaphore(_PROOFS_AT_A_TIME)
        found = await asyncio.gather(*(self._presence(record, limit) for record in records))
        there = [r.identity.attempt for r, presence in zip(records, found, strict=True) if presence is Presence.PRESENT]
        gone = [r for r, presence in zip(records, found, strict=True) if presence is Presence.ABSENT]
        if there:
            await self._folding.apply(there, lambda record: (attempts.found_again(record), ()))
        if gone:
            await self._vanish(gone)

    async def _presence(self, record: AttemptRecord, limit: asyncio.Semaphore) -> Presence:
        async with limit:
            return await self._watch.presence(record.identity.attempt.nomad_id, record.identity.namespace)

    async def _vanish(self, gone: Sequence[AttemptRecord]) -> None:
        """Believe it where few vanish together, else suspect the site; what was not believed is doubted again later."""
        living = await self._store.read(lambda connection: store.living_by_site(connection, self._cluster))
        believed = watching.believable(gone, living, self._rule, self._lately())
        lost = [record for record in gone if believed[record.identity.site]]
        self._vanished += [(self._clock(), record.identity.site) for record in gone]
        await self._folding.apply([record.identity.attempt for record in lost], attempts.vanished)
        suspect = sorted(site for site, yes in believed.items() if not yes)
        if suspect:
            counts = Counter(record.identity.site for record in gone)
            words = ", ".join(f"{counts[site]} at {site}" for site in suspect)
            await self._desk.sign(Sign.UNBELIEVABLE, f"attempts vanished together: {words}", suspect)

    def _lately(self) -> Counter[str]:
        """How many vanished per site within the window before now."""
        oldest = self._clock() - timedelta(seconds=self._settings.vanish_window_s)
        while self._vanished and self._vanished[0][0] < oldest:
            self._vanished.popleft()
        return Counter(site for _, site in self._vanished)


def _chunks(sights: Sights, size: int) -> Iterable[Sights]:
    items = list(sights.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])
