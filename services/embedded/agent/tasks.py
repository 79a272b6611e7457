"""One task of an allocation: prepared, started, watched, restarted, ended; its state in Nomad's words.

Not concerned with the region: it tells its allocation (`allocrunner.py`) when its state has changed.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from typing import Any

from . import allocdir, taskenv, workload
from .allocdir import SetupFailure
from .drivers.base import Driver, DriverFailure, Exit, Handle, TaskContext
from .jobspec import SECOND, Row
from .rows import frozen, rfc3339, task_event, thawed, unix_ns
from .taskenv import Places, UnknownName
from .templates import Missing
from .workload import Workload

KEPT_EVENTS = 10
_LOOK_FOR_VARIABLES_S = 0.2
_FIELDS = {"download_error": "DownloadError", "setup_error": "SetupError", "display_message": "Message"}
"""The task event's own field for a failure's text."""
Changed = Callable[[bool], None]
"""Told of every change; True when the task's state, not only its events, changed."""


class Killed(Exception):
    """The task is not wanted any more while it was still being prepared."""


class TaskRunner:
    """Runs one task to its end."""

    def __init__(
        self,
        task: Row,
        driver: Driver | None,
        places: Places,
        env: dict[str, str],
        node: Row,
        job_type: str,
        key: str,
        own: Workload,
        changed: Changed,
    ) -> None:
        self.task, self.driver, self.places, self.env, self.node = task, driver, places, env, node
        self.name: str = task["Name"]
        self.key = key
        self.workload = own
        self.batch = job_type in ("batch", "sysbatch")
        self._changed = changed
        self.state: Row = {
            "Events": [], "Failed": False, "FinishedAt": None, "LastRestart": None, "Paused": "", "Restarts": 0,
            "StartedAt": None, "State": "pending",
        }  # fmt: skip
        self.killing = False
        self._stop = asyncio.Event()
        self._handle: Handle | None = None
        self._starts: list[int] = []
        self._config: dict[str, Any] = {}

    @property
    def makes_directory(self) -> bool:
        """Mock tasks need none, which keeps thousands of them cheap."""
        return self.task["Driver"] != "mock_driver" or bool(self.task["Templates"] or self.task["Artifacts"])

    @property
    def handle(self) -> Handle | None:
        """The running process, if there is one."""
        return self._handle

    # -- its state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> Row:
        """The state as sent to the server."""
        return {**self.state, "Events": list(self.state["Events"])}

    def adopt(self, state: Row) -> None:
        """Take up the state that the server knew before a restart."""
        self.state = {**thawed(state)}
        self.state["Events"] = [frozen(event) for event in self.state["Events"]]

    def event(
        self, kind: str, message: str, details: dict[str, str] | None = None, *, news: bool = False, **more: Any
    ) -> None:
        """Add a task event; the oldest go first."""
        made = frozen(task_event(kind, time.time_ns(), message, details, **more))
        self.state["Events"] = [*self.state["Events"], made][-KEPT_EVENTS:]
        self._changed(news)

    def _set(self, state: str, **more: Any) -> None:
        self.state.update(State=state, **more)
        self._changed(True)

    # -- its life ------------------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """The client has it."""
        self.event("Received", "Task received by client")

    async def run(self) -> None:
        """From `Task Setup` to dead; a task that was killed before it could start is dead at once."""
        if self.killing:
            self._dead()
            return
        text = "Building Task Directory"
        self.event("Task Setup", text, {"message": text}, Message=text)
        await self._prepare_and_loop()

    async def resume(self) -> None:
        """After a restart of the agent: take up a running task, or go on from where it stood."""
        if self.state["State"] == "dead":
            return
        handle = None
        if self.driver is not None:
            handle = await self.driver.recover(self._context(started=True))
        if handle is None and self.state["StartedAt"]:
            self._terminated(Exit(-1, error="task could not be recovered"))
            self._fail("Not Restarting", "task was lost while the agent was away")
            return
        if handle is None:
            await self._prepare_and_loop()
            return
        if not self.state["StartedAt"]:
            self._started()
        self._handle = handle
        if self.killing:
            await self._end_gently()
        if await self._watch():
            await self._prepare_and_loop()

    async def _prepare_and_loop(self) -> None:
        while not self.killing:
            try:
                await self._prepare()
                handle = await self._start()
            except Killed:
                break
            except SetupFailure as failure:
                self._setup_failed(failure)
                if not await self._restart(Exit(1)):
                    return
                continue
            except UnknownName as unknown:
                fault = f'Unknown variable: There is no variable named "{unknown}".'
                text = f"2 errors occurred:\n\t* failed to parse config: \n\t* {fault}\n\n"
                self.event("Failed Validation", text, {"validation_error": text}, ValidationError=text)
                self._fail("Not Restarting", "Error was unrecoverable")
                return
            except DriverFailure as failure:
                self.event("Driver Failure", failure.text, {"driver_error": failure.text}, DriverError=failure.text)
                if not await self._restart(Exit(1)):
                    return
                continue
            self._handle = handle
            self._started()
            if self.killing:
                await self._end_gently()
            if not await self._watch():
                return
        if self.state["State"] != "dead":
            self._dead()

    def _setup_failed(self, failure: SetupFailure) -> None:
        fields: dict[str, Any] = {_FIELDS[failure.detail]: failure.text}
        self.event(failure.kind, failure.text, {failure.detail: failure.text}, **fields)

    async def _prepare(self) -> None:
        """Directory, artifacts, templates, configuration."""
        if self.makes_directory:
            await asyncio.to_thread(allocdir.make, self.places)
        await self._identify()
        for artifact in self.task["Artifacts"] or []:
            self.event("Downloading Artifacts", "Client is downloading artifacts")
            source, dest = (self._text(artifact.get(name) or "") for name in ("GetterSource", "RelativeDest"))
            await asyncio.to_thread(allocdir.fetch, self.places, artifact, source, dest)
        for template in self.task["Templates"] or []:
            dest = self._text(template["DestPath"])
            self.env.update(await self._rendered(template, dest))
        self._config = taskenv.interpolate_config(self.task["Config"] or {}, self.env, self.node)

    async def _identify(self) -> None:
        """Sign the task's identities anew, for its environment and its secrets folder."""
        for identity in self.task["Identities"] or []:
            if not identity["Env"] and not (identity["File"] and self.makes_directory):
                continue
            token, name = self.workload.token(identity, time.time()), identity["Name"]
            if identity["Env"]:
                self.env[f"NOMAD_TOKEN_{name}"] = token
            if identity["File"] and self.makes_directory:
                path = self.places.task_dir / "secrets" / f"nomad_{name}.jwt"
                await asyncio.to_thread(allocdir.write, path, token.encode(), 0o644)

    async def _keep_identities(self) -> None:
        """While the task runs its files always hold tokens that are good; the environment cannot change any more."""
        pauses = [p for each in self.task["Identities"] or [] if (p := workload.renew_in_s(each)) is not None]
        while pauses:
            await asyncio.sleep(min(pauses))
            await self._identify()

    async def _rendered(self, template: Row, dest: str) -> dict[str, str]:
        """Written, once every variable in it is there; a task that is killed meanwhile needs it no more."""
        waited = False
        while True:
            try:
                return await asyncio.to_thread(
                    allocdir.write_template, self.places, template, dest, self.workload.variable
                )
            except Missing as missing:
                if not waited:
                    where = f"nomad.var.block({missing.path}@{self.workload.namespace}.global)"
                    self.event("Template", f"Missing: {where}")
                waited = True
            try:
                await asyncio.wait_for(self._stop.wait(), _LOOK_FOR_VARIABLES_S)
            except TimeoutError:
                continue
            raise Killed

    def _text(self, text: str) -> str:
        return taskenv.interpolate(text, self.env, self.node, strict=False)

    def _context(self, *, started: bool = False) -> TaskContext:
        at = 0
        if started and self.state["StartedAt"]:
            at = unix_ns(self.state["StartedAt"])
        config = self._config or (self.task["Config"] or {})
        return TaskContext(
            self.key, config, self.env, self.places.task_dir, self.places.log("stdout"), self.places.log("stderr"), at
        )

    async def _start(self) -> Handle:
        if self.driver is None:
            raise DriverFailure(f'failed to initialize driver plugin: unknown driver "{self.task["Driver"]}"')
        return await self.driver.start(self._context())

    def _started(self) -> None:
        now = time.time_ns()
        self._starts.append(now)
        self.event("Started", "Task started by client")
        self._set("running", StartedAt=rfc3339(now))

    async def _watch(self) -> bool:
        """Until the process has ended; True when it is to be started again."""
        assert self._handle is not None
        renewing = asyncio.create_task(self._keep_identities(), name=f"identities {self.key}")
        try:
            ended = await self._handle.wait()
        finally:
            renewing.cancel()
        self._handle = None
        self._terminated(ended)
        if self.killing:
            self.event("Killed", "Task successfully killed")
            self._dead()
            return False
        return await self._restart(ended)

    def _terminated(self, ended: Exit) -> None:
        details = {
            "exit_code": str(ended.code),
            "signal": str(ended.signal),
            "oom_killed": str(ended.oom_killed).lower(),
        }
        text = f"Exit Code: {ended.code}"
        if ended.signal:
            text += f", Signal: {ended.signal}"
        if ended.error:
            details["exit_message"] = ended.error
            text += f', Exit Message: "{ended.error}"'
        self.event("Terminated", text, details, ExitCode=ended.code, Signal=ended.signal, Message=ended.error)

    async def _restart(self, ended: Exit) -> bool:
        """The restart policy's word on an end: again (after its delay), or dead."""
        if ended.code == 0 and not ended.signal and not ended.error and self.batch:
            self._dead()
            return False
        policy = self.task["RestartPolicy"]
        now = time.time_ns()
        self._starts = [at for at in self._starts if now - at < policy["Interval"]]
        if not policy["Attempts"]:
            self._fail("Not Restarting", "Policy allows no restarts")
            return False
        if (
            self.state["Restarts"] >= policy["Attempts"]
            and policy["Mode"] == "fail"
            and len(self._starts) > policy["Attempts"]
        ):
            within = _go_duration(policy["Interval"])
            why = f'Exceeded allowed attempts {policy["Attempts"]} in interval {within} and mode is "fail"'
            self._fail("Not Restarting", why)
            return False
        await self._wait_restart(int(policy["Delay"] * random.uniform(1.0, 1.25)))
        return not self.killing or self._gave_up()

    async def _wait_restart(self, delay: int) -> None:
        reason = "Restart within policy"
        self.event(
            "Restarting", f"Task restarting in {_go_duration(delay)}",
            {"restart_reason": reason, "start_delay": str(delay)},
            RestartReason=reason, StartDelay=delay,
        )  # fmt: skip
        self._set("pending", Restarts=self.state["Restarts"] + 1, LastRestart=rfc3339(time.time_ns()))
        try:
            await asyncio.wait_for(self._stop.wait(), delay / SECOND)
        except TimeoutError:
            return

    def _gave_up(self) -> bool:
        """Killed while it waited for its restart."""
        self._dead()
        return False

    def _fail(self, kind: str, reason: str) -> None:
        self.event(kind, reason, {"restart_reason": reason, "fails_task": "true"}, RestartReason=reason, FailsTask=True)
        self._set("dead", Failed=True, FinishedAt=rfc3339(time.time_ns()))

    def _dead(self) -> None:
        self._set("dead", FinishedAt=rfc3339(time.time_ns()))

    # -- its end from outside ------------------------------------------------------------------------------------------

    def kill(self, message: str = "", kind: str = "Killing", **more: Any) -> asyncio.Task[None] | None:
        """End the task: its kill signal, then after kill_timeout SIGKILL. The work is to be awaited by its owner."""
        if self.killing or self.state["State"] == "dead":
            return None
        self.killing = True
        self._stop.set()
        timeout = self.task["KillTimeout"]
        text = message or f"Sent interrupt. Waiting {_go_duration(timeout)} before force killing"
        self.event(kind, text, {"kill_timeout": _go_duration(timeout)}, KillTimeout=timeout, **more)
        if self._handle is None:
            return None
        return asyncio.create_task(self._end_gently(), name=f"kill {self.key}")

    async def _end_gently(self) -> None:
        handle = self._handle
        if handle is None:
            return
        await handle.signal(_signal_number(self.task["KillSignal"]))
        try:
            await asyncio.wait_for(handle.wait(), self.task["KillTimeout"] / SECOND)
        except TimeoutError:
            await handle.kill()


def _signal_number(name: str) -> int:
    try:
        return int(signal.Signals[name]) if name else int(signal.SIGINT)
    except KeyError:
        return int(signal.SIGINT)


def _go_duration(ns: int) -> str:
    """`5s`, `18.043301595s`, `1m0s`, `24h0m0s`: Go's text for a duration."""
    hours, rest = divmod(ns, 3600 * SECOND)
    minutes, rest = divmod(rest, 60 * SECOND)
    if not hours and not minutes and rest < SECOND:
        return f"{rest / 1e6:g}ms" if rest else "0s"
    seconds = f"{rest / SECOND:.9f}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"
