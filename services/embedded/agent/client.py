"""A node's client: takes the allocations placed on its node, runs them, and tells the server what became of them.

It is the client half of Nomad inside the agent. The server half reaches it through `server_changed`; it reaches the
server through the `report` callback, in batches of a tick (settings.client_tick_s).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from . import allocdir
from .allocrunner import AllocRunner
from .drivers.base import Driver
from .drivers.process import ProcessDriver
from .entities import Alloc
from .jobspec import Row
from .rows import is_client_terminal, thawed
from .settings import AgentSettings
from .state import State
from .taskenv import Places
from .updates import Update
from .workload import Region

log = logging.getLogger(__name__)
Report = Callable[[str, list[Update]], None]
AfterWritten = Callable[[Callable[[], None]], None]
"""Calls back once all that was reported so far is on disk."""


class NodeClient:
    """Runs the allocations of one node."""

    def __init__(
        self,
        node_id: str,
        state: State,
        settings: AgentSettings,
        drivers: Mapping[str, Driver],
        alloc_root: Path,
        workloads: Region,
        report: Report,
        after_written: AfterWritten,
    ) -> None:
        self.node_id = node_id
        self.state = state
        self.settings = settings
        self.drivers = drivers
        self.alloc_root = alloc_root
        self.workloads = workloads
        self._report = report
        self._after_written = after_written
        self.runners: dict[str, AllocRunner] = {}
        self.away = False
        """Not heard by the server: it runs on and keeps its news."""
        self._work: dict[str, asyncio.Task[None]] = {}
        self._cleanups: set[asyncio.Task[None]] = set()
        self._dirty: dict[str, AllocRunner] = {}
        self._urgent = False
        self._flush_timer: asyncio.Handle | None = None
        self._closing = False

    # -- from the server -----------------------------------------------------------------------------------------------

    def server_changed(self, alloc_id: str) -> None:
        """An allocation of this node was placed, is not wanted any more, or is gone."""
        if self.away or self._closing:
            return
        alloc = self.state.allocs.get(alloc_id)
        runner = self.runners.get(alloc_id)
        if alloc is None:
            if runner is not None:
                self._remove(runner)
        elif runner is None:
            if not is_client_terminal(alloc.row):
                self._begin_or_end(alloc)
        elif alloc.row["DesiredStatus"] != "run":
            runner.stop()

    def _begin_or_end(self, alloc: Alloc) -> None:
        """Begin an allocation; one that was stopped before we heard of it is over without having run."""
        runner = self._begin(alloc, resume=False)
        if runner is not None and alloc.row["DesiredStatus"] != "run":
            runner.stop()

    def _begin(self, alloc: Alloc, *, resume: bool) -> AllocRunner | None:
        job = self._job_version(alloc)
        group = next((g for g in (job or {}).get("TaskGroups") or [] if g["Name"] == alloc.row["TaskGroup"]), None)
        if job is None or group is None:
            log.warning("allocation %s belongs to no known job version", alloc.row["ID"])
            return None
        places = Places(self.alloc_root / alloc.row["ID"], "")
        node = self.state.nodes[self.node_id].row
        runner = AllocRunner(alloc, job, group, node, self.drivers, places, self.workloads, self._heard)
        self.runners[runner.alloc_id] = runner
        states = (thawed(alloc.row.get("TaskStates")) or {}) if resume else None
        if resume and alloc.row["DesiredStatus"] != "run":
            runner.stopping = True
        work = asyncio.create_task(runner.run(resume=states), name=f"alloc {runner.alloc_id}")
        self._work[runner.alloc_id] = work
        work.add_done_callback(lambda done: self._ended(runner, done))
        return runner

    def _job_version(self, alloc: Alloc) -> Row | None:
        job = self.state.job_of(alloc.row)
        if job is None:
            return None
        if job.row["Version"] == alloc.version:
            return {**job.row, "TaskGroups": job.task_groups()}
        old = next((v for v in job.versions if v["Version"] == alloc.version), None)
        return {**old, "TaskGroups": thawed(old["TaskGroups"])} if old else None

    def _ended(self, runner: AllocRunner, done: asyncio.Task[None]) -> None:
        self._work.pop(runner.alloc_id, None)
        if not done.cancelled() and (error := done.exception()):
            log.error("allocation %s: %r", runner.alloc_id, error, exc_info=error)
        if not done.cancelled() and runner.alloc_id not in self._dirty and runner.is_over:
            self._forget(runner.alloc_id)

    def _forget(self, alloc_id: str) -> None:
        """Not ours any more. What its processes left stays until their end is in the journal: an agent that dies in
        between must find that end again, and not run the task once more."""
        runner = self.runners.pop(alloc_id, None)
        if runner is not None and runner.has_processes:
            self._after_written(lambda: _forget_processes(runner))

    def _remove(self, runner: AllocRunner) -> None:
        """Purged: end it and remove its directory. The server knows it no more, but still hears a (node's) line."""
        runner.stop()
        cleanup = asyncio.create_task(self._clean_up(runner), name=f"remove {runner.alloc_id}")
        self._cleanups.add(cleanup)
        cleanup.add_done_callback(self._cleanups.discard)

    async def _clean_up(self, runner: AllocRunner) -> None:
        if work := self._work.get(runner.alloc_id):
            await asyncio.gather(work, return_exceptions=True)
        self._forget(runner.alloc_id)
        await asyncio.to_thread(allocdir.remove, self.alloc_root / runner.alloc_id)

    # -- to the server -------------------------------------------------------------------------------------------------

    def _heard(self, runner: AllocRunner, news: bool) -> None:
        """A runner changed. Status news go with the next tick, mere events with a later one."""
        self._dirty[runner.alloc_id] = runner
        if self.away or self._closing:
            return
        if self._flush_timer is not None and (self._urgent or not news):
            return
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._urgent = news
        loop = asyncio.get_running_loop()
        delay = self.settings.client_tick_s if news else self.settings.client_slow_tick_s
        self._flush_timer = loop.call_later(delay, self.flush) if delay else loop.call_soon(self.flush)

    def flush(self) -> None:
        """Tell the server all that changed."""
        self._flush_timer = None
        self._urgent = False
        if self.away or not self._dirty:
            return
        runners, self._dirty = list(self._dirty.values()), {}
        self._report(self.node_id, [runner.update() for runner in runners])
        for runner in runners:
            if runner.is_over and runner.alloc_id not in self._work:
                self._forget(runner.alloc_id)

    # -- going away and coming back ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """The server does not hear this client any more; the tasks go on."""
        self.away = True
        for runner in self.runners.values():
            runner.forget_health()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def come_back(self) -> None:
        """Heard again: first tell what is, then learn what is wanted."""
        self.away = False
        node = self.state.nodes[self.node_id]
        rows = {i: self.state.allocs[i].row for i in node.allocs}
        for alloc_id, runner in list(self.runners.items()):
            row = rows.get(alloc_id)
            if row is not None and row["ClientStatus"] == "unknown":
                runner.reconnected()
            elif row is not None and row["ClientStatus"] != runner.status:
                self._dirty[alloc_id] = runner
        self.flush()
        for alloc_id in [*self.runners, *rows]:
            self.server_changed(alloc_id)

    def resume(self) -> None:
        """After a restart: take up every allocation that was not client-terminal."""
        for alloc_id in list(self.state.nodes[self.node_id].allocs):
            alloc = self.state.allocs[alloc_id]
            if not is_client_terminal(alloc.row) or alloc.row["ClientStatus"] == "lost":
                self._take_up(alloc)

    def _take_up(self, alloc: Alloc) -> None:
        known = bool(alloc.row.get("TaskStates")) or (self.alloc_root / alloc.row["ID"]).is_dir()
        if known or alloc.row["DesiredStatus"] == "run":
            self._begin(alloc, resume=known)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def close(self, *, end_tasks: bool) -> None:
        """Stop watching; with `end_tasks`, end the tasks first and tell the server."""
        if end_tasks:
            for runner in list(self.runners.values()):
                runner.stop()
            if self._work:
                await asyncio.gather(*self._work.values(), return_exceptions=True)
        self.flush()
        self._closing = True
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        work = [*self._work.values(), *self._cleanups]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _forget_processes(runner: AllocRunner) -> None:
    for task in runner.tasks.values():
        if isinstance(task.driver, ProcessDriver):
            task.driver.forget(task.key)
