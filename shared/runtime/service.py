"""Running services: named tasks under supervision, readiness, ordered stop. One container runs one, embedded four."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import Unavailable
from shared.runtime import logs
from shared.runtime.retrying import Backoff

log = logs.get("runtime.service")

Task = Callable[[], Awaitable[None]]
Check = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Service:
    """What a wiring returns: an HTTP face, endless tasks, readiness checks, and what to end and close, in this order.

    Checks raise with the culprit. `sites` tells what is wrong with each site (nothing: empty): `/readyz` shows it, but
    one site is no reason to take the service away from all others. Tasks run under `supervise`. `drains` end answers
    that would go on for ever (event streams, followed logs, long polls); they run before the HTTP server waits for its
    last answers, see `drain`.
    """

    name: str
    app: Any
    tasks: dict[str, Task] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    sites: Callable[[], Mapping[str, str]] = dict
    drains: list[Task] = field(default_factory=list)
    closers: list[Task] = field(default_factory=list)

    async def not_ready(self, deadline_s: float = 3.0) -> dict[str, str]:
        """Culprit by check; empty when the service can do its work."""

        async def ask(name: str, check: Check) -> tuple[str, str] | None:
            try:
                async with asyncio.timeout(deadline_s):
                    await check()
            except TimeoutError:
                return name, f"did not answer within {deadline_s:g} s"
            except Exception as error:
                return name, getattr(error, "what", "") or repr(error)
            return None

        answers = await asyncio.gather(*(ask(name, check) for name, check in self.checks.items()))
        return dict(answer for answer in answers if answer is not None)


async def supervise(name: str, task: Task) -> None:
    """Run an endless task: `Unavailable` is waited out with back-off, any other failure is fatal and is raised.

    A cancellation that nobody asked for (a library's own, that got out of it) counts as `Unavailable`: taken for the
    order to stop, it would end the service without a word.
    """
    backoff = Backoff(first_s=0.1, most_s=5.0)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await _until_it_fails(name, task)
        except* Unavailable as away:
            if loop.time() - started > 10 * backoff.most_s:
                backoff.reset()
            pause = backoff.next_s()
            log.warning("task_waits", task=name, culprit=_words(away), again_in_s=round(pause, 3))
        await asyncio.sleep(pause)


async def _until_it_fails(name: str, task: Task) -> None:
    """Run it as a task of its own, so that the order to stop cannot be lost in it.

    A `TaskGroup` that is cancelled while one of its tasks fails raises the failure in place of the cancellation.
    """
    running = asyncio.create_task(_called(task), name=f"{name}.run")
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled() and (late := running.exception()) is not None:
            log.info("task_failed_while_stopping", task=name, error=repr(late))
        raise
    if running.cancelled():
        log.error("task_cancelled_by_nobody", task=name)
        raise Unavailable(f"{name} was cancelled from within", code="stray_cancellation")
    if (error := running.exception()) is not None:
        raise error
    raise RuntimeError(f"task {name} returned, but it is meant to run for ever")


async def _called(task: Task) -> None:
    await task()


def _words(group: BaseExceptionGroup[Unavailable]) -> str:
    first = group.exceptions[0]
    return _words(first) if isinstance(first, BaseExceptionGroup) else first.what


async def run_services(services: Sequence[Service], stop: asyncio.Event, *, drain_s: float = 10.0) -> None:
    """Run every task of the services until `stop` is set or one of them fails for good, then close in order.

    Raises the failure of a task. Intake stops first (tasks are cancelled and awaited), then ports are closed.
    """
    tasks = [
        asyncio.create_task(supervise(f"{service.name}.{name}", task), name=f"{service.name}.{name}")
        for service in services
        for name, task in service.tasks.items()
    ]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = {task: error for task in done if task is not stopping and (error := _error_of(task)) is not None}
        for task, error in failed.items():
            log.error("task_failed", task=task.get_name(), error=repr(error))
    finally:
        await _end([*tasks, stopping], drain_s)
        await close(services)
    if failed:
        task, error = next(iter(failed.items()))
        raise RuntimeError(f"{task.get_name()} failed") from error


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Why a task has ended; being cancelled, before we ask for it, is a failure as well."""
    return asyncio.CancelledError("cancelled by somebody else") if task.cancelled() else task.exception()


async def _end(tasks: Sequence[asyncio.Task[Any]], drain_s: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=drain_s)
        for task in left:
            log.error("task_would_not_stop", task=task.get_name(), waited_s=drain_s)


async def drain(services: Sequence[Service]) -> None:
    """End the endless answers. Whoever stops a service calls this first, then its HTTP server, then its tasks."""
    for service in reversed(services):
        await _each(service, service.drains, "drain_failed")


async def close(services: Sequence[Service]) -> None:
    """Close what the services opened, last opened first; a failure is logged and does not keep the others open."""
    for service in reversed(services):
        await _each(service, service.closers, "close_failed")


async def _each(service: Service, steps: Sequence[Task], complaint: str) -> None:
    for step in steps:
        try:
            async with asyncio.timeout(10):
                await step()
        except Exception as error:
            log.error(complaint, service=service.name, error=repr(error))
