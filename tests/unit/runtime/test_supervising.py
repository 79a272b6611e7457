"""A task of a service ends for three reasons: told to, failed for good, or something outside is away."""

import asyncio

import pytest

from shared.errors import Unavailable
from shared.runtime.service import Service, run_services, supervise

pytestmark = pytest.mark.fast


async def test_a_cancellation_that_nobody_asked_for_does_not_end_the_task() -> None:
    runs: list[int] = []
    again = asyncio.Event()

    async def task() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise asyncio.CancelledError("out of a library")
        again.set()
        await asyncio.Event().wait()

    supervised = asyncio.create_task(supervise("watch", task))
    async with asyncio.timeout(20):
        await again.wait()
    supervised.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervised
    assert runs == [0, 1]


async def test_a_task_that_somebody_else_cancelled_is_the_services_failure() -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    service = Service("monitor", app=None, tasks={"watch": endless})
    running = asyncio.create_task(run_services([service], asyncio.Event()))
    async with asyncio.timeout(20):
        while not (found := [task for task in asyncio.all_tasks() if task.get_name() == "monitor.watch"]):
            await asyncio.sleep(0)
    found[0].cancel()
    with pytest.raises(RuntimeError, match=r"monitor\.watch failed"):
        await running


async def test_a_task_that_is_told_to_stop_in_the_moment_of_a_failure_stops() -> None:
    """A TaskGroup that is cancelled while one of its tasks fails raises the failure, and the order would be lost."""
    begun = asyncio.Event()

    async def failing_when_stopped() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            raise Unavailable("the lease is another's")

    async def task() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing_when_stopped())

    supervised = asyncio.create_task(supervise("watch", task))
    async with asyncio.timeout(20):
        await begun.wait()
        supervised.cancel()
        await asyncio.wait([supervised])
    assert supervised.cancelled()
