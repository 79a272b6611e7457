"""What `transact` has returned is there after any death: of the process, and of the database's server."""

import asyncio
import sys

import pytest

from shared.adapters import postgres
from shared.adapters.postgres.throwaway import ThrowAway
from shared.errors import OutcomeUnknown, Unavailable
from tests.ports.store.conftest import POSTGRES
from tests.ports.store.database import Database, numbers, put

pytestmark = pytest.mark.crash


async def killed_while_writing(url: str, first: int, returned: int) -> list[int]:
    """What a process was told to be written by the time it is killed, `returned` numbers at least."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ports.store.writing_process", url, str(first), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    told: list[int] = []
    try:
        async with asyncio.timeout(60):
            while len(told) < returned:
                line = await process.stdout.readline()
                assert line, "the process ended by itself"
                told += [int(line)] if line.strip().isdigit() else []
    finally:
        process.kill()
        told += [int(line) for line in (await process.stdout.read()).split(b"\n")[:-1] if line.isdigit()]
        await process.wait()
    return told


@pytest.mark.parametrize("database", ["sqlite", POSTGRES], indirect=True)
async def test_everything_that_was_returned_is_there_after_kill_9(database: Database) -> None:
    store = await database.open()
    await store.close()
    told: list[int] = []
    for returned in (1, 17, 120, 300):
        told += await killed_while_writing(database.url, max(told, default=-1) + 1000, returned)

    found = set(await (await database.open()).read(numbers))
    assert set(told) <= found
    assert len(found) - len(told) <= 4 * 8, "more than what was under way in the 8 writers of each process"


@pytest.mark.postgres
async def test_everything_that_was_returned_is_there_after_the_server_died(own_server: ThrowAway) -> None:
    database = Database(own_server.url(), several=True)
    store = await database.open()
    returned: set[int] = set()
    unknown: set[int] = set()

    async def write(number: int) -> None:
        while True:
            try:
                returned.add(await store.transact(put(number)))
                return
            except OutcomeUnknown:
                unknown.add(number)
                return
            except Unavailable:
                await asyncio.sleep(0)

    writes = [asyncio.create_task(write(number)) for number in range(400)]
    for milestone in (50, 150):
        async with asyncio.timeout(30):
            while len(returned) < milestone:
                await asyncio.sleep(0)
        await own_server.kill()
        await own_server.restart()
    async with asyncio.timeout(60):
        await asyncio.gather(*writes)

    found = set(await store.read(numbers))
    await database.close()
    assert returned <= found <= returned | unknown
    assert returned | unknown == set(range(400))


@pytest.mark.postgres
async def test_a_server_that_restarts_is_found_again_without_a_failed_call(own_server: ThrowAway) -> None:
    store = await postgres.open_store(own_server.url())
    await store.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    await own_server.stop()
    await own_server.restart()
    one = await store.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    two = await store.transact(lambda connection: connection.exec_driver_sql("SELECT 2").scalar())
    await store.close()
    assert (one, two) == (1, 2)
