"""Watches one Nomad cluster: reads and folds its event stream without pause, and lists where that is not enough.

A task of its own reads lines into a queue, so that nothing waits between two reads; another one folds what has
queued up in one transaction. The subscription is opened before a listing is made: what the listing does not show yet,
the stream brings. Raises Unavailable when the stream ends; the supervisor starts it again.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar, cast

from services.monitor import store, watching
from services.monitor.folding import Folding
from services.monitor.reconciling import Listed, Reconciler
from services.monitor.settings import MonitorSettings
from services.monitor.site_health import Sign
from services.monitor.sites import SiteBook, SiteDesk
from services.monitor.watching import Resumed
from shared.engine import Heartbeat, Line
from shared.errors import Misconfigured, Refused, SeraiError, Unavailable
from shared.ports import EngineWatch, Store
from shared.runtime import logs
from shared.runtime.leadership import Leadership

log = logs.get("monitor.watcher")

E = TypeVar("E", bound=SeraiError)

_AHEAD = 4096
"""Lines parsed ahead of the folding; beyond it the adapter's own buffer (in bytes) takes over."""


class Resubscribe(Exception):
    """The namespaces changed: the stream must be opened anew to have the new ones."""


class Watcher:
    """One cluster, while this copy leads."""

    def __init__(
        self,
        cluster: str,
        watch: EngineWatch,
        store: Store,
        folding: Folding,
        reconciler: Reconciler,
        desk: SiteDesk,
        book: SiteBook,
        leadership: Leadership,
        settings: MonitorSettings,
        rng: random.Random,
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._store = store
        self._folding = folding
        self._reconciler = reconciler
        self._desk = desk
        self._book = book
        self._leadership = leadership
        self._settings = settings
        self._rng = rng
        self._position = 0
        self._stored = 0
        self._believed = False
        self._verdict = Resumed.SAME

    async def run(self) -> None:
        """Watch; for ever. Raises Unavailable when the cluster or the store is away."""
        await self._leadership.held()
        await self._book.ready()
        while True:
            try:
                await self._subscribe()
            except* Resubscribe:
                log.info("namespaces_changed", cluster=self._cluster)
            except* Misconfigured as wrong:
                culprit = _first(wrong)
                await self._desk.sign(Sign.UNBELIEVABLE, culprit.what)
                raise Unavailable(culprit.what, code=culprit.code) from wrong
            except* Refused as refused:
                raise Unavailable(f"cluster {self._cluster} refuses: {_first(refused).what}") from refused

    async def _subscribe(self) -> None:
        """One subscription: read, fold, list when due; until it ends."""
        self._stored = self._position = await self._store.read(lambda c: store.checkpoint(c, self._cluster))
        namespaces = await self._watch.namespaces()
        stream = cast("AsyncGenerator[Line | Heartbeat]", self._watch.stream(self._position))
        async with aclosing(stream):
            await anext(stream)
            log.info("subscribed", cluster=self._cluster, index=self._position)
            queue: asyncio.Queue[Line | Listed] = asyncio.Queue(_AHEAD)
            first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            async with asyncio.TaskGroup() as group:
                self._spawn(group, "read", self._read(stream, queue, first))
                self._spawn(group, "fold", self._fold(queue))
                self._spawn(group, "list", self._list(queue, first, self._position))
                self._spawn(group, "namespaces", self._until_others(namespaces))
                self._spawn(group, "doubts", self._reconciler.resolve())
                self._spawn(group, "strays", self._reconciler.ask_about_strays())

    def _spawn(self, group: asyncio.TaskGroup, what: str, body: Awaitable[None]) -> None:
        group.create_task(cast("Any", body), name=f"monitor.{self._cluster}.{what}")

    async def _read(
        self,
        stream: AsyncIterator[Line | Heartbeat],
        queue: "asyncio.Queue[Line | Listed]",
        first: "asyncio.Future[int]",
    ) -> None:
        async for item in stream:
            if isinstance(item, Line):
                if not first.done():
                    first.set_result(item.index)
                await queue.put(item)
        raise Unavailable(f"cluster {self._cluster}: the event stream ended", code="nomad_stream")

    async def _until_others(self, before: frozenset[str]) -> None:
        """Look for other namespaces than the stream was opened with; raises Resubscribe. A look may go unanswered."""
        while True:
            await asyncio.sleep(self._settings.namespaces_interval_s)
            with contextlib.suppress(SeraiError):
                if await self._watch.namespaces() != before:
                    self._believed = False
                    raise Resubscribe

    # -- listing --------------------------------------------------------------------------------------------------

    async def _list(self, queue: "asyncio.Queue[Line | Listed]", first: "asyncio.Future[int]", checkpoint: int) -> None:
        """List when the resume leaves a doubt, then on a timer with jitter."""
        self._verdict = await self._resumed(first, checkpoint) if checkpoint else Resumed.SAME
        if self._believed and self._verdict is Resumed.SAME:
            await self._pause()
        while True:
            await queue.put(await self._reconciler.listed())
            await self._pause()

    async def _resumed(self, first: "asyncio.Future[int]", checkpoint: int) -> Resumed:
        try:
            async with asyncio.timeout(self._settings.first_line_s):
                index: int | None = await asyncio.shield(first)
        except TimeoutError:
            index = None
        verdict = watching.resumed(checkpoint, index)
        if verdict is not Resumed.SAME:
            log.warning("gap", cluster=self._cluster, checkpoint=checkpoint, first=index, verdict=verdict)
        return verdict

    async def _pause(self) -> None:
        await asyncio.sleep(self._settings.relist_interval_s * (0.8 + 0.4 * self._rng.random()))

    # -- folding --------------------------------------------------------------------------------------------------

    async def _fold(self, queue: "asyncio.Queue[Line | Listed]") -> None:
        while True:
            lines, listed = await self._next(queue)
            if lines:
                await self._fold_lines(lines)
            if listed is not None:
                await self._fold_listing(listed)

    async def _next(self, queue: "asyncio.Queue[Line | Listed]") -> tuple[list[Line], Listed | None]:
        """The lines that have queued up, up to the next listing; waits for one, storing the checkpoint meanwhile.

        Lines that tell of no allocation wait a little for one: a job's registration is mostly followed at once by its
        placing, and an end by what Nomad notes of it.
        """
        lines: list[Line] = []
        item: Line | Listed | None = await self._one(queue)
        until, urgent = asyncio.get_running_loop().time() + self._settings.quiet_s, False
        while isinstance(item, Line):
            lines.append(item)
            urgent = urgent or watching.is_urgent(item)
            if len(lines) >= self._settings.fold_batch or (urgent and queue.empty()):
                return lines, None
            item = await _within(queue, until)
        return lines, item

    async def _one(self, queue: "asyncio.Queue[Line | Listed]") -> Line | Listed:
        while self._stored != self._position:
            try:
                async with asyncio.timeout(self._settings.checkpoint_interval_s):
                    return await queue.get()
            except TimeoutError:
                await self._store_position()
        return await queue.get()

    async def _fold_lines(self, lines: list[Line]) -> None:
        self._position = watching.position_after(self._position, (line.index for line in lines))
        self._desk.saw(lines)
        sights = [found for line in lines if (found := watching.by_attempt(line.seen))]
        if sights:
            folded = await self._folding.fold(sights, self._position)
            self._reconciler.doubt(folded.in_doubt)
            if folded.changed:
                self._stored = self._position

    async def _fold_listing(self, listed: Listed) -> None:
        listing = listed.listing
        if watching.began_anew(self._position, self._verdict, listing):
            log.error("cluster_began_anew", cluster=self._cluster, checkpoint=self._position, index=listing.index)
            self._position, self._verdict = listing.index, Resumed.SAME
            self._reconciler.forget_index()
            self._desk.began_anew()
            await self._store_position()
        await self._reconciler.fold(listed)
        self._believed = True
        self._desk.listed(listing)

    async def _store_position(self) -> None:
        await self._folding.fold([], self._position)
        self._stored = self._position


async def _within(queue: "asyncio.Queue[Line | Listed]", until: float) -> Line | Listed | None:
    """The next one; None when there is none until then (loop time)."""
    if not queue.empty():
        return queue.get_nowait()
    try:
        async with asyncio.timeout_at(until):
            return await queue.get()
    except TimeoutError:
        return None


def _first(group: BaseExceptionGroup[E]) -> E:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
