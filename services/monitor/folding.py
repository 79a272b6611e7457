"""Sights of one cluster into records, events and what is owed, all in one transaction with the checkpoint it covers.

Called by the watcher with lines of the stream and by the reconciler with rows of a listing. Decides nothing itself.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.monitor import attempts, keeping, kept_store, store
from services.monitor.attempts import AttemptRecord, Identity
from services.monitor.changes import Changes
from services.monitor.sites import SiteBook
from services.monitor.store import Kept, Saved
from services.monitor.watching import Sights
from shared.contracts.events import AttemptEvent
from shared.engine import JobSeen
from shared.ids import AttemptId
from shared.ports import EngineWatch
from shared.runtime import logs
from shared.runtime.leadership import Leadership
from shared.runtime.telemetry import Tracer
from shared.runtime.transactions import Transactions, Unit

log = logs.get("monitor.folding")

_REMEMBERED = 20_000
"""Ids of attempts remembered as known or as not ours, so that nobody asks for them again."""

Step = Callable[[AttemptRecord], tuple[AttemptRecord, tuple[AttemptEvent, ...]]]


@dataclass(slots=True)
class Work:
    """What one transaction is about: the records as they were and as they become."""

    kept: dict[AttemptId, Kept]
    now: datetime
    changed: dict[AttemptId, AttemptRecord] = field(default_factory=dict)
    told: list[AttemptEvent] = field(default_factory=list)

    def record(self, attempt: AttemptId) -> AttemptRecord | None:
        if attempt in self.changed:
            return self.changed[attempt]
        kept = self.kept.get(attempt)
        return kept.record if kept else None

    def step(self, before: AttemptRecord, step: Step) -> None:
        after, events = step(before)
        if after is not before or before.identity.attempt not in self.kept:
            self.changed[before.identity.attempt] = after
        self.told += events

    def saved(self) -> list[Saved]:
        return [self._saved(record) for record in self.changed.values()]

    def _saved(self, after: AttemptRecord) -> Saved:
        kept = self.kept.get(after.identity.attempt)
        if kept is None:
            return Saved(after, moved=True, ended=not after.live)
        moved = kept.record.status is not after.status
        return Saved(after, moved=moved, ended=moved and not after.live)


@dataclass(frozen=True, slots=True)
class Folded:
    """What came of sights: the records that are in doubt now, and whether anything was written."""

    in_doubt: list[AttemptRecord]
    changed: bool


class Folding:
    """Everything that writes attempts of one cluster."""

    def __init__(
        self,
        cluster: str,
        watch: EngineWatch,
        transactions: Transactions,
        leadership: Leadership,
        book: SiteBook,
        changes: Changes,
        tracer: Tracer,
        owed: asyncio.Event,
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._transactions = transactions
        self._leadership = leadership
        self._book = book
        self._changes = changes
        self._tracer = tracer
        self._owed = owed
        self._known: set[AttemptId] = set()
        self._foreign: set[AttemptId] = set()

    async def fold(self, batches: Sequence[Sights], position: int | None = None) -> Folded:
        """Fold sights in order, each entry being one transaction of Nomad.

        `position` is the checkpoint that covers them; sights that change nothing are not worth a write, and it waits
        for the next one. Raises Unavailable with the site or the store: nothing was written then, and the same lines
        may come again.
        """
        wanted = {attempt for sights in batches for attempt in sights} - self._foreign
        identities = await self._identities(wanted, batches)

        def fold(unit: Unit, work: Work) -> None:
            for sights in batches:
                for attempt, seen in sights.items():
                    record = work.record(attempt) or _new(identities.get(attempt))
                    if record is not None and record.identity.cluster == self._cluster:
                        work.step(record, lambda before, seen=seen: attempts.observe(before, seen))  # type: ignore[misc]
            if position is not None and (work.changed or not batches):
                store.set_checkpoint(unit.connection, self._cluster, position)

        work = await self._write(wanted, fold)
        _remember(self._known, set(work.changed))
        return Folded([record for record in work.changed.values() if record.in_doubt], bool(work.changed))

    async def apply(self, wanted: Iterable[AttemptId], step: Step) -> list[AttemptRecord]:
        """One step of the core (vanished, found again) for some records; those that changed."""

        def each(unit: Unit, work: Work) -> None:
            for kept in work.kept.values():
                work.step(kept.record, step)

        return list((await self._write(set(wanted), each)).changed.values())

    async def _write(self, wanted: set[AttemptId], body: Callable[[Unit, Work], None]) -> Work:
        def inside(unit: Unit) -> Work:
            with self._leadership.leading(unit.connection):
                work = Work(store.records(unit.connection, wanted), unit.now)
                body(unit, work)
                self._store(unit, work)
            return work

        work = await self._transactions.run(inside)
        self._after(work)
        return work

    def _store(self, unit: Unit, work: Work) -> None:
        saved = work.saved()
        store.save(unit.connection, saved, unit.now)
        for event in work.told:
            unit.emit(event)
        for one in saved:
            owed = keeping.owed_of(one.record, unit.now) if one.ended else None
            if owed is not None:
                kept_store.owe(unit.connection, owed)

    def _after(self, work: Work) -> None:
        """Once it is durable: wake who waits, and tell the trace of the phases that ended."""
        for saved in work.saved():
            record, kept = saved.record, work.kept.get(saved.record.identity.attempt)
            self._changes.touch(record.identity.attempt.job_id)
            if saved.ended:
                self._owed.set()
            if saved.moved and kept is not None and kept.record.status is not None:
                self._trace(kept, record, work.now)

    def _trace(self, before: Kept, after: AttemptRecord, now: datetime) -> None:
        identity = after.identity
        self._tracer.record(
            f"attempt {before.record.status}", job_id=identity.attempt.job_id, start=before.phase_at, end=now,
            attributes={"serai.attempt": identity.attempt.number, "serai.site": identity.site,
                        "serai.then": str(after.status)},
        )  # fmt: skip

    # -- becoming known -------------------------------------------------------------------------------------------

    async def _identities(self, wanted: set[AttemptId], batches: Sequence[Sights]) -> Mapping[AttemptId, Identity]:
        """Identities of attempts that may be new: from the meta of their jobs in these sights, else asked for."""
        metas = {
            attempt: (one.meta, one.namespace)
            for sights in batches for attempt, seen in sights.items() for one in seen if isinstance(one, JobSeen)
        }  # fmt: skip
        ours = {attempt for attempt, (meta, _) in metas.items() if attempts.is_ours(meta)}
        strange = wanted - ours - self._known
        if strange:
            known = await self._transactions.store.read(lambda connection: store.known(connection, strange))
            _remember(self._known, known)
            strange -= known
        for attempt in strange - metas.keys():
            namespace = _namespace(attempt, batches)
            metas[attempt] = (await self._watch.job_meta(attempt.nomad_id, namespace) or {}, namespace)
        _remember(self._foreign, {attempt for attempt in strange if not attempts.is_ours(metas[attempt][0])})
        found = (self._identity(attempt, *metas[attempt]) for attempt in metas.keys() - self._known - self._foreign)
        return {identity.attempt: identity for identity in found if identity is not None}

    def _identity(self, attempt: AttemptId, meta: Mapping[str, str], namespace: str) -> Identity | None:
        if not attempts.is_ours(meta):
            return None
        identity = attempts.identity_of(attempt, meta, cluster=self._cluster, namespace=namespace)
        if self._book.cluster_of(identity.site) in (None, self._cluster):
            return identity
        log.error("site_of_another_cluster", cluster=self._cluster, site=identity.site, attempt=str(attempt))
        _remember(self._foreign, {attempt})
        return None


def _namespace(attempt: AttemptId, batches: Sequence[Sights]) -> str:
    seen = next(sights[attempt][0] for sights in batches if attempt in sights)
    return str(getattr(seen, "namespace", "default"))


def _new(identity: Identity | None) -> AttemptRecord | None:
    return None if identity is None else AttemptRecord(identity)


def _remember(ids: set[AttemptId], more: set[AttemptId]) -> None:
    if len(ids) > _REMEMBERED:
        ids.clear()
    ids |= more
