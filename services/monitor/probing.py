"""Looks at one cluster on a timer: does a leader answer with our token, and what do its sites offer?

Separate from the watcher, whose stream may be broken for reasons of its own.
"""

import asyncio
import time
from collections import deque

from services.monitor import others
from services.monitor.changes import wait
from services.monitor.settings import MonitorSettings
from services.monitor.site_health import Sign
from services.monitor.sites import SiteBook, SiteDesk
from shared.errors import Misconfigured, SeraiError
from shared.ports import EngineWatch
from shared.runtime.leadership import Leadership


class Prober:
    """One cluster, while this copy leads."""

    def __init__(
        self, watch: EngineWatch, desk: SiteDesk, book: SiteBook, leadership: Leadership, settings: MonitorSettings
    ) -> None:
        self._watch = watch
        self._desk = desk
        self._book = book
        self._leadership = leadership
        self._settings = settings

    async def run(self) -> None:
        """Probe and tell, for ever. Raises Unavailable with the store only: a silent cluster is news, not a failure."""
        await self._leadership.held()
        await self._book.ready()
        self._desk.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe(), name="monitor.probe")
            group.create_task(self._observe(), name="monitor.observe")
            group.create_task(self._take_room(), name="monitor.room")

    async def _probe(self) -> None:
        while True:
            await self._leadership.held()
            sign, error = await self.look()
            await self._desk.sign(sign, error)
            self._desk.nodes_changed.set()
            await asyncio.sleep(self._settings.probe_interval_s)

    async def look(self) -> tuple[Sign, str]:
        """One look: what it means, and what came back when it was nothing good."""
        try:
            async with asyncio.timeout(self._settings.probe_timeout_s):
                await self._watch.ready()
        except TimeoutError:
            return Sign.SILENT, f"no answer within {self._settings.probe_timeout_s:g} s"
        except Misconfigured as wrong:
            return Sign.UNBELIEVABLE, wrong.what
        except SeraiError as away:
            return Sign.SILENT, away.what
        return Sign.ANSWERED, ""

    async def _observe(self) -> None:
        """Woken by nodes that changed, by room that others took or gave, and by each look."""
        while True:
            self._desk.nodes_changed.clear()
            await self._desk.observe(self._settings.observe_interval_s)
            await wait(self._desk.nodes_changed, self._settings.observe_interval_s)

    async def _take_room(self) -> None:
        """What others took or freed is told at once, and less often where that never ends."""
        told: deque[float] = deque(maxlen=others.OFTEN)
        while True:
            await self._desk.others_changed.wait()
            await asyncio.sleep(others.patience_s(told, self._desk.nodes, time.monotonic()))
            told.append(time.monotonic())
            self._desk.take_room()
