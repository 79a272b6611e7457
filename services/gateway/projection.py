"""The endless tasks that turn the bus's event stream into what users see: projection, filling holes, the janitor."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import orjson

from services.gateway import event_log, handlers, job_view, store, subscription_store
from services.gateway.changes import Changes
from services.gateway.handlers import Fact, Folded
from services.gateway.job_view import JobView
from services.gateway.store import Hole
from shared.contracts import codec
from shared.contracts.envelope import Message
from shared.contracts.questions import EventsAnswer
from shared.contracts.routes import EVENT_LOG
from shared.errors import NotFound, Refused
from shared.ports import Clock, MessageBus, Store
from shared.runtime import logs
from shared.runtime.clock import micros
from shared.runtime.questions import Questions
from shared.runtime.relay import Relay

log = logs.get("gateway.projection")

_AHEAD: Final = 1024
"""Messages read from the stream while a transaction runs."""
_PAGE: Final = 1000
_RECENT: Final = 1024
"""Views of jobs that changed last, kept in memory."""
LOOK_AGAIN_S: Final = 5.0
"""Another copy of the gateway may have noticed a hole, or filled one."""

Numbered = tuple[int, Message]


class Projection:
    """Reads the event stream from the stored offset and folds it, many events to a transaction."""

    def __init__(
        self, store: Store, bus: MessageBus, changes: Changes, holes: "Holes", clock: Clock, batch: int
    ) -> None:
        self._store = store
        self._bus = bus
        self._changes = changes
        self._holes = holes
        self._clock = clock
        self._batch = batch
        self._recent: OrderedDict[str, JobView] = OrderedDict()

    async def run(self) -> None:
        """For ever; raises Unavailable with the bus or the store (the supervisor tries again)."""
        state = await self._store.read(event_log.state)
        read: asyncio.Queue[Numbered] = asyncio.Queue(_AHEAD)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(self._bus.read(EVENT_LOG, after=state.stream_offset), read), name="gateway.stream")
            group.create_task(self._fold(read), name="gateway.fold")

    async def _fold(self, read: asyncio.Queue[Numbered]) -> None:
        while True:
            batch = [await read.get()]
            while len(batch) < self._batch and not read.empty():
                batch.append(read.get_nowait())
            await self.fold(batch)

    async def fold(self, batch: Sequence[Numbered]) -> None:
        """Fold one batch, then wake who waits."""
        facts = [fact for offset, message in batch if (fact := _decoded(offset, message)) is not None]
        last, now = batch[-1][0], self._clock()
        folded = await self._store.transact(
            lambda connection: handlers.fold_stream(connection, facts, last, now, self._recent)
        )
        publish(self._changes, folded)
        self._remember(folded.views)
        if folded.holes:
            self._holes.noticed.set()

    def _remember(self, views: Mapping[str, JobView]) -> None:
        """The next event of a job comes soon: spare reading its view again. Only what is committed is kept."""
        for job_id, view in views.items():
            self._recent[job_id] = view
            self._recent.move_to_end(job_id)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)


class Holes:
    """Fetches what is missing in a series from its owner: scheduler (the job's own) or monitor (an attempt's)."""

    def __init__(
        self, store: Store, scheduler: Questions, monitor: Questions, changes: Changes, clock: Clock, *,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:  # fmt: skip
        self._store = store
        self._scheduler = scheduler
        self._monitor = monitor
        self._changes = changes
        self._clock = clock
        self._look_again_s = look_again_s
        self.noticed = asyncio.Event()

    async def run(self) -> None:
        """For ever; raises Unavailable with the owner or the store (the supervisor tries again)."""
        while True:
            self.noticed.clear()
            for hole in await self._store.read(store.open_holes):
                await self.fill(hole)
            await self._hear_of_others()
            await self._until_noticed()

    async def _hear_of_others(self) -> None:
        """What another copy filled into the log did not come over the bus: wake our readers for it."""
        state = await self._store.read(event_log.state)
        self._changes.publish(state.head, (), ())

    async def fill(self, hole: Hole) -> None:
        """Bring one series up to what its owner has."""
        job_id, series, _ = hole
        views = await self._store.read(lambda connection: store.views(connection, [job_id]))
        newest = job_view.applied(views[job_id], series) if job_id in views else 0
        facts = await self._ask(job_id, series, newest) if job_id in views else []
        if not facts:
            log.error("hole_not_filled", job_id=job_id, attempt=series, after=newest)
        now = self._clock()
        folded = await self._store.transact(lambda connection: handlers.fill_hole(connection, hole, facts, now))
        publish(self._changes, folded)

    async def _ask(self, job_id: str, series: int, after: int) -> list[Fact]:
        owner = self._monitor if series else self._scheduler
        facts: list[Fact] = []
        while True:
            params = {"after": after, "attempt": series}
            try:
                answer = await owner.ask("GET", f"/internal/jobs/{job_id}/events", EventsAnswer, params=params)
            except NotFound:
                return facts
            facts += [fact for event in answer.events if (fact := _known(orjson.dumps(event))) is not None]
            if len(answer.events) < _PAGE:
                return facts
            after = int(answer.events[-1]["sequence"])

    async def _until_noticed(self) -> None:
        try:
            async with asyncio.timeout(self._look_again_s):
                await self.noticed.wait()
        except TimeoutError:
            return


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that each kind of row is kept, and between two rounds."""

    log_s: float
    keys_s: float
    jobs_s: float
    subscriptions_s: float
    interval_s: float


class Janitor:
    """Deletes what has been kept long enough, a little at a time."""

    _AT_ONCE: Final = 500

    def __init__(self, store: Store, relay: Relay, retention: Retention, clock: Clock) -> None:
        self._store = store
        self._relay = relay
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        """For ever, one round each interval."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._retention.interval_s)

    async def sweep(self) -> None:
        """One round."""
        kept = self._retention
        log_before, keys_before, jobs_before = (self._before(s) for s in (kept.log_s, kept.keys_s, kept.jobs_s))
        while await self._store.transact(lambda c: event_log.forget(c, log_before, self._AT_ONCE)) == self._AT_ONCE:
            continue
        while await self._store.transact(lambda c: store.forget_jobs(c, jobs_before, self._AT_ONCE)) == self._AT_ONCE:
            continue
        await self._store.transact(lambda c: store.forget_keys(c, keys_before))
        await self._store.transact(lambda c: self._relay.forget_commands(c, keys_before))
        ended_before = self._before(kept.subscriptions_s)
        await self._store.transact(lambda c: subscription_store.forget(c, ended_before))

    def _before(self, kept_s: float) -> int:
        return micros(self._clock() - timedelta(seconds=kept_s))


def publish(changes: Changes, folded: Folded) -> None:
    """Wake who waits for what was folded."""
    changes.publish(folded.head, folded.entries, folded.job_ids)


async def _pump(stream: AsyncIterator[Numbered], read: asyncio.Queue[Numbered]) -> None:
    async for numbered in stream:
        await read.put(numbered)


def _decoded(offset: int, message: Message) -> Fact | None:
    """The fact in a message of the stream; one that nobody can read is logged and passed over."""
    try:
        return handlers.fact_of(codec.decode(message), message.body, offset)
    except (Refused, TypeError) as error:
        log.error("event_not_understood", type=message.type, id=message.id, error=str(error))
        return None


def _known(body: bytes) -> Fact | None:
    try:
        return handlers.fact_of(codec.decode_event(body), body)
    except Refused as error:
        log.error("event_not_understood", error=str(error))
        return None
