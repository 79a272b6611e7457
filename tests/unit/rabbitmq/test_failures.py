"""What the AMQP library raises, as the bus's port tells it."""

import asyncio

import pytest
from aiormq.base import FutureStore

from shared.adapters.rabbitmq.failures import closing, translated
from shared.errors import Unavailable

pytestmark = pytest.mark.fast


async def ended_without_a_cause() -> None:
    """A call that waited when its channel closed, as the library ends it: with a bare `Exception`."""
    calls = FutureStore(loop=asyncio.get_running_loop())
    waiting = calls.create_future()
    await calls.reject_all(None)
    await waiting


async def test_a_call_that_the_library_ends_without_a_cause_says_that_the_broker_is_away() -> None:
    with pytest.raises(Unavailable, match=r"RabbitMQ at there .*\(acknowledge\)") as told:
        async with translated("RabbitMQ at there", "acknowledge"):
            await ended_without_a_cause()
    assert told.value.code == "bus_away"


async def test_closing_what_dies_meanwhile_is_no_failure() -> None:
    async with closing(10):
        await ended_without_a_cause()
    async with closing(0):
        await asyncio.Event().wait()
    async with closing(10):
        raise asyncio.CancelledError  # by the library: nobody cancelled this task


async def test_what_is_wrong_with_ourselves_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        async with translated("RabbitMQ at there", "publish"):
            raise KeyError("ours")
    with pytest.raises(KeyError):
        async with closing(10):
            raise KeyError("ours")


async def test_who_is_cancelled_while_closing_is_cancelled() -> None:
    begun = asyncio.Event()

    async def close() -> None:
        async with closing(10):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(close())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
