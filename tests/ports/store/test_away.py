"""When the database does not serve: Unavailable in time, in words that name it; and a stopped copy holds nobody up."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Connection, delete, insert, make_url

from shared.adapters import postgres
from shared.adapters.postgres import Limits
from shared.adapters.postgres.throwaway import ThrowAway
from shared.errors import Unavailable
from tests.pacing import pause
from tests.ports.store.database import Database, numbers, put, things

ADD = insert(things)
QUICK = Limits(connect_s=2, statement_s=2, lock_s=1, idle_s=1, group_s=2, transact_s=10, read_s=2)


@pytest.mark.fast
async def test_a_file_that_somebody_else_writes_is_waited_for(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/store.sqlite", several=False)
    store = await database.open()
    other = sqlite3.connect(f"{tmp_path}/store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.transact(put(1)))
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    assert await store.read(numbers) == []
    other.execute("COMMIT")
    other.close()
    assert await waiting == 1
    await database.close()


@pytest.mark.postgres
async def test_without_a_server_every_call_is_refused_in_time_and_works_again_when_it_is_back(
    own_server: ThrowAway,
) -> None:
    database = Database(own_server.url(), several=True)
    store = await database.open()
    await store.transact(put(1))
    await own_server.stop()

    started = time.monotonic()
    results = await asyncio.gather(
        *(store.transact(put(n)) for n in range(10, 15)), store.read(numbers), return_exceptions=True
    )
    assert all(isinstance(result, Unavailable) for result in results), results
    assert f"127.0.0.1:{own_server.port}" in str(results[0])
    assert time.monotonic() - started < 5

    await own_server.restart()
    await store.transact(put(2))
    assert await store.read(numbers) == [1, 2]
    await database.close()


@asynccontextmanager
async def silent_proxy(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A way to a port that, once its event is set, stays open and passes nothing on any more."""
    silent = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65536):
            if not silent.is_set():
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)
        writer.close()
        there[1].close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], silent
    server.close()
    for writer in writers:
        writer.close()


@pytest.mark.postgres
async def test_a_server_that_falls_silent_is_given_up_in_time(own_server: ThrowAway) -> None:
    async with silent_proxy(own_server.port) as (port, silent):
        url = make_url(own_server.url()).set(port=port).render_as_string(hide_password=False)
        store = await postgres.open_store(url, limits=QUICK)
        await store.transact(lambda connection: things.create(connection))
        await store.read(numbers)
        silent.set()
        started = time.monotonic()
        results = await asyncio.gather(store.transact(put(1)), store.read(numbers), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results), results
        assert time.monotonic() - started < 8
        silent.clear()
        await store.transact(put(2))
        assert 2 in await store.read(numbers)
        await store.close()


def add_one(connection: Connection) -> None:
    """As services write: by a statement that was built once."""
    connection.execute(ADD, {"id": 1, "name": ""})


@pytest.mark.postgres
@pytest.mark.parametrize("written", [put(1), add_one], ids=["and waited for it", "and had not waited for it"])
async def test_a_copy_that_is_stopped_in_the_middle_of_its_turn_loses_it(
    own_server: ThrowAway, written: Callable[[Connection], object]
) -> None:
    """As a process that gets SIGSTOP between two statements: its event loop stands still. One that had not even heard
    that it was its turn tries again when it wakes: nothing of it has happened.
    """
    limits = replace(QUICK, idle_s=0.5, group_s=20, statement_s=20)  # a clock of its own would stand still as well
    one, two = [await postgres.open_store(own_server.url(), limits=limits) for _ in range(2)]
    await one.transact(lambda connection: (things.create(connection), written(connection)))
    await one.transact(lambda connection: connection.execute(delete(things)).rowcount)
    stopped, go_on = asyncio.Event(), asyncio.Event()

    def stands_still(connection: Connection) -> None:
        from sqlalchemy.util import await_only

        written(connection)
        stopped.set()
        await_only(go_on.wait())
        put(2)(connection)

    standing = asyncio.create_task(one.transact(stands_still))
    await stopped.wait()
    started = time.monotonic()
    while True:
        try:
            await two.transact(put(3))
            break
        except Unavailable:
            assert time.monotonic() - started < 5
    go_on.set()
    if written is add_one:
        await standing
    else:
        with pytest.raises(Unavailable):
            await standing
    assert await two.read(numbers) == ([1, 2, 3] if written is add_one else [3])
    await one.transact(put(4))
    await one.close()
    await two.close()


@pytest.mark.postgres
async def test_one_that_stops_while_another_waits_already_loses_its_turn_to_it(own_server: ThrowAway) -> None:
    """The first look at who holds the turn may come too early; it is not the last."""
    limits = replace(QUICK, idle_s=1.0, lock_s=8, group_s=20, statement_s=20)
    one, two = [await postgres.open_store(own_server.url(), limits=limits) for _ in range(2)]
    await one.transact(lambda connection: (things.create(connection), add_one(connection)))
    await one.transact(lambda connection: connection.execute(delete(things)).rowcount)
    writes, stopped, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def stands_still(connection: Connection) -> None:
        from sqlalchemy.util import await_only

        add_one(connection)
        writes.set()
        await_only(pause(0.6))
        connection.execute(ADD, {"id": 2, "name": ""})
        stopped.set()
        await_only(go_on.wait())

    standing = asyncio.create_task(one.transact(stands_still))
    await writes.wait()
    await two.transact(put(3))
    assert stopped.is_set()
    assert await two.read(numbers) == [3]
    go_on.set()
    await standing  # it never heard that it was its turn, and tries again
    assert await two.read(numbers) == [1, 2, 3]
    await one.close()
    await two.close()


@pytest.mark.postgres
async def test_a_deadlock_with_somebody_else_is_tried_again(own_server: ThrowAway) -> None:
    """An operator's transaction and ours lock two rows in opposite order; ours is run once more and succeeds."""
    database = Database(own_server.url() + "?options=-c%20deadlock_timeout%3D100ms", several=True)
    store = await database.open()
    await store.transact(lambda connection: (put(1)(connection), put(2)(connection)))
    runs = 0
    async with await psycopg.AsyncConnection.connect(own_server.url()) as other:
        await other.execute("SET deadlock_timeout = '10s'")
        await other.execute("UPDATE things SET name = 'theirs' WHERE id = 2")
        first_done = asyncio.Event()

        def ours(connection: Connection) -> None:
            nonlocal runs
            runs += 1
            connection.execute(things.update().where(things.c.id == 1).values(name="ours"))
            first_done.set()
            connection.execute(things.update().where(things.c.id == 2).values(name="ours"))

        writing = asyncio.create_task(store.transact(ours))
        await first_done.wait()
        await other.execute("UPDATE things SET name = 'theirs' WHERE id = 1")
        await other.commit()
        await writing
    assert runs == 2
    names = await store.read(lambda connection: list(connection.execute(things.select().order_by(things.c.id))))
    assert [tuple(row) for row in names] == [(1, "ours"), (2, "ours")]
    await database.close()
