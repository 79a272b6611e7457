"""One allocation on its node: its tasks in the order of their lifecycle, its status, its health, its end.

The node client (`client.py`) makes it when the server has placed the allocation and collects its news.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import logs
from .drivers.base import Driver
from .entities import Alloc
from .jobspec import SECOND, Row
from .rows import frozen, rfc3339, thawed
from .taskenv import Places, build
from .tasks import TaskRunner
from .updates import TIMED_OUT, Update
from .workload import Region, Workload

News = Callable[["AllocRunner", bool], None]
_WORDS = {
    "failed": "Failed tasks", "running": "Tasks are running", "pending": "No tasks have started",
    "complete": "All tasks have completed",
}  # fmt: skip


class AllocRunner:
    """Runs all tasks of an allocation."""

    def __init__(
        self, alloc: Alloc, job: Row, group: Row, node: Row, drivers: Mapping[str, Driver], places: Places,
        workloads: Region, news: News,
    ) -> None:  # fmt: skip
        row = alloc.row
        self.alloc_id: str = row["ID"]
        self.created: int = row["CreateTime"]
        self.group = group
        self._news = news
        self.status = "pending"
        self.timed_out = False
        self.stopping = False
        self.reconnecting = row["ClientStatus"] == "unknown"
        """The server had given the node up: say so once the tasks are taken up again."""
        self.healthy: bool | None = (row.get("DeploymentStatus") or {}).get("Healthy")
        self.health_at = ""
        self._deployed = bool(row.get("DeploymentID"))
        self._timers: list[asyncio.TimerHandle] = []
        self._health_timer: asyncio.TimerHandle | None = None
        self._kills: set[asyncio.Task[None]] = set()
        allocated = thawed(row["AllocatedResources"])
        self.tasks: dict[str, TaskRunner] = {}
        for task in group["Tasks"]:
            where = Places(places.alloc_dir, task["Name"])
            env = build(job, group, task, row, allocated, node, where)
            key = f"{self.alloc_id}.{task['Name']}"
            workload = Workload(workloads, job["Namespace"], job["ID"], group["Name"], task["Name"], self.alloc_id)
            self.tasks[task["Name"]] = TaskRunner(
                task, drivers.get(task["Driver"]), where, env, node, job["Type"], key, workload, self._task_changed
            )

    # -- what it tells -------------------------------------------------------------------------------------------------

    def update(self) -> Update:
        """The client's view as sent to the server."""
        states = frozen({name: runner.snapshot() for name, runner in self.tasks.items()})
        words = TIMED_OUT if self.timed_out and self.status == "complete" else _WORDS[self.status]
        done = self.timed_out and self.status == "complete"
        return Update(self.alloc_id, self.status, words, states, self.healthy, self.health_at, done)

    @property
    def is_over(self) -> bool:
        """All tasks are dead."""
        return all(runner.state["State"] == "dead" for runner in self.tasks.values())

    def _task_changed(self, news: bool) -> None:
        if not news:
            self._news(self, False)
            return
        before, self.status = self.status, self._status()
        if before != self.status:
            self._follow_health()
        self._news(self, before != self.status)

    def _status(self) -> str:
        """Nomad's rule: failed, running, pending, complete, the first that applies."""
        states = [runner.state for runner in self.tasks.values()]
        if any(state["Failed"] for state in states):
            return "failed"
        for status in ("running", "pending"):
            if any(state["State"] == status for state in states):
                return status
        return "complete"

    def _follow_health(self) -> None:
        """A deployed service is healthy once it has run long enough, unhealthy when it ends before."""
        if not self._deployed or self.healthy is not None:
            return
        if self._health_timer is not None:
            self._health_timer.cancel()
        if self.status == "running":
            wait = self.group["Update"]["MinHealthyTime"] / SECOND
            self._health_timer = asyncio.get_running_loop().call_later(wait, self._judge_health, True)
        elif self.status in ("failed", "complete"):
            self._judge_health(False)

    def forget_health(self) -> None:
        """A client that nobody hears judges no health, like one that died and came back."""
        if self._health_timer is not None:
            self._health_timer.cancel()

    def _judge_health(self, healthy: bool) -> None:
        if self.healthy is None and (healthy is False or self.status == "running"):
            self.healthy = healthy
            self.health_at = rfc3339(time.time_ns())
            self._news(self, True)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self, *, resume: Mapping[str, Any] | None = None) -> None:
        """Run all tasks; with `resume`, the task states known before a restart, take them up instead."""
        self._arm_max_run_duration()
        try:
            if resume is not None:
                await self._resume(resume)
            else:
                await self._lifecycle()
        finally:
            for timer in (*self._timers, *([self._health_timer] if self._health_timer else ())):
                timer.cancel()
            if self._kills:
                await asyncio.gather(*self._kills, return_exceptions=True)

    async def _lifecycle(self) -> None:
        """Prestart tasks first, then the main ones (with the sidecars), in the end poststop."""
        for runner in self.tasks.values():
            runner.receive()
        if len(self.tasks) == 1:
            await next(iter(self.tasks.values())).run()
            return
        stages: dict[str, list[TaskRunner]] = {"prestart": [], "main": [], "poststop": []}
        for runner in self.tasks.values():
            hook = (runner.task["Lifecycle"] or {}).get("Hook") or ""
            sidecar = bool((runner.task["Lifecycle"] or {}).get("Sidecar"))
            stages["main" if hook not in stages or sidecar else hook].append(runner)
        await asyncio.gather(*(runner.run() for runner in stages["prestart"]))
        if failed := next((runner for runner in stages["prestart"] if runner.state["Failed"]), None):
            self._fail_siblings(failed, stages["main"])
        await self._run_main(stages["main"])
        await asyncio.gather(*(runner.run() for runner in stages["poststop"]))

    async def _run_main(self, runners: list[TaskRunner]) -> None:
        """Together; a failure or the leader's end takes the others with it. Sidecars end after the last of the rest."""
        sidecars = {r.name for r in runners if (r.task["Lifecycle"] or {}).get("Sidecar")}
        running = {asyncio.create_task(r.run(), name=f"task {r.key}"): r for r in runners}
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._after_main(running.pop(task), list(running.values()))
            if running and all(r.name in sidecars for r in running.values()):
                self._kill_each(running.values(), "Sent interrupt: the main tasks are done")

    def _after_main(self, ended: TaskRunner, others: list[TaskRunner]) -> None:
        if ended.state["Failed"]:
            self._fail_siblings(ended, others)
        elif ended.task["Leader"]:
            for other in others:
                other.event("Leader Task Dead", "Leader Task in Group dead")
            self._kill_each(others, "")

    def _fail_siblings(self, failed: TaskRunner, others: list[TaskRunner]) -> None:
        for other in others:
            if not other.killing:
                other.event("Sibling Task Failed", f'Task\'s sibling "{failed.name}" failed', FailedSibling=failed.name)
        self._kill_each(others, "")

    def _kill_each(self, runners: Any, message: str) -> None:
        for runner in runners:
            if (work := runner.kill(message)) is not None:
                self._kills.add(work)

    async def _resume(self, states: Mapping[str, Any]) -> None:
        for name, runner in self.tasks.items():
            if name in states:
                runner.adopt(states[name])
        self.status = self._status()
        if self.reconnecting:
            self.reconnected()
        if self.stopping:
            self._kill_each(self.tasks.values(), "")
        self._follow_health()
        known = self._known(states)
        for runner, found in known:
            if not found:
                runner.receive()
        await asyncio.gather(*(runner.resume() if found else runner.run() for runner, found in known))

    def _known(self, states: Mapping[str, Any]) -> list[tuple[TaskRunner, bool]]:
        """Whether anything is known of each task: the agent may have gone before it told of a start."""
        return [(runner, name in states or self._has_started(runner)) for name, runner in self.tasks.items()]

    def _has_started(self, runner: TaskRunner) -> bool:
        return runner.places.task_dir.is_dir()

    def _arm_max_run_duration(self) -> None:
        limit = self.group["MaxRunDuration"]
        if limit:
            left = (self.created + limit - time.time_ns()) / SECOND
            self._timers.append(asyncio.get_running_loop().call_later(max(left, 0), self._time_out))

    def _time_out(self) -> None:
        if self.status in ("pending", "running") and not self.stopping:
            self.timed_out = True
            self._kill_each(self.tasks.values(), TIMED_OUT)

    @property
    def has_processes(self) -> bool:
        """Some task is a real process."""
        return any(runner.makes_directory for runner in self.tasks.values())

    def rotate_logs(self) -> None:
        """Keep every task's logs within its LogConfig. Blocking."""
        for runner in self.tasks.values():
            config = runner.task["LogConfig"]
            for stream in ("stdout", "stderr"):
                size = config["MaxFileSizeMB"] * 1024 * 1024
                logs.rotate(runner.places.shared / "logs", runner.name, stream, size, config["MaxFiles"])

    # -- its end from outside ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The server does not want it any more."""
        if not self.stopping:
            self.stopping = True
            self._kill_each(self.tasks.values(), "")

    def reconnected(self) -> None:
        """The client is back after the server had given the node up: say so in every task that is not dead."""
        for runner in self.tasks.values():
            if runner.state["State"] != "dead":
                runner.event("Reconnected", "Client reconnected")
        self._news(self, True)
