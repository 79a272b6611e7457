"""How a process ends: told to, requests first and tasks after; when a task fails, without waiting for open streams."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from shared.processes.backing import Backing
from shared.processes.door import Door
from shared.processes.settings import ProcessSettings
from shared.runtime.service import Service
from shared.runtime.serving import HttpServer


class World:
    """A process without a socket, and what happened in it."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.happened: list[str] = []
        self.working = asyncio.Event()
        told = ProcessSettings(service_key="hush", service_keys="monitor=x", database_url="sqlite:///x")  # type: ignore[arg-type]  # as read
        door = Door("monitor")
        server = HttpServer(door, told.host, 0)
        server.stop = self.step("server stopped")  # type: ignore[method-assign]  # never started: no socket
        self.ground = Backing("monitor", told, {}, door, stack, asyncio.Event(), server)
        self.service = Service(
            "monitor", app=None, tasks={"watch": self.watch}, drains=[self.step("streams ended")],
            closers=[self.step("lease given back")],
        )  # fmt: skip

    def step(self, word: str) -> Callable[[], Awaitable[None]]:
        async def happen() -> None:
            self.happened.append(word)

        return happen

    async def watch(self) -> None:
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.happened.append("task ended")


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        yield World(stack)


async def test_told_to_end_it_ends_streams_then_requests_then_tasks_and_gives_back_what_it_holds(world: World) -> None:
    serving = asyncio.create_task(world.ground.serve(world.service))
    await world.working.wait()
    world.ground.stopping.set()
    async with asyncio.timeout(20):
        await serving
    assert world.happened == ["streams ended", "server stopped", "task ended", "lease given back"]


async def test_a_task_that_fails_ends_the_process_with_its_reason_and_its_endless_answers(world: World) -> None:
    async def fail() -> None:
        await world.working.wait()
        raise RuntimeError("the Nomad of lyon is elsewhere now")

    world.service.tasks["site-addresses"] = fail
    with pytest.raises(RuntimeError, match=r"monitor\.site-addresses failed") as caught:
        async with asyncio.timeout(20):
            await world.ground.serve(world.service)
    assert isinstance(caught.value.__cause__, BaseException)
    assert set(world.happened) == {"task ended", "lease given back", "streams ended"}


async def test_a_task_that_was_started_before_the_service_ends_it_as_well(world: World) -> None:
    async def fail() -> None:
        await world.working.wait()
        raise RuntimeError("no such registry")

    world.ground.start("registry", fail)
    with pytest.raises(RuntimeError, match=r"monitor\.registry failed"):
        async with asyncio.timeout(20):
            await world.ground.serve(world.service)
