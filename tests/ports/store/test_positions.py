"""Positions that the database gives (the outbox): they grow, are never used again, and appear in their order."""

import asyncio
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from shared.errors import Conflict
from tests.ports.store.database import Database, runtime

outbox = runtime.outbox


def write(words: str, *, fail: bool = False) -> Any:
    row = {
        "id": words, "type": "t", "exchange": "", "routing_key": "", "content_type": "", "headers": "", "body": b"",
        "created_at": 0,
    }  # fmt: skip

    def body(connection: Connection) -> None:
        connection.execute(insert(outbox), [row, row])
        if fail:
            raise Conflict("undone")

    return body


def positions(after: int) -> Any:
    query = select(outbox.c.position).where(outbox.c.position > after).order_by(outbox.c.position)
    return lambda connection: list(connection.execute(query).scalars())


async def test_a_reader_with_a_cursor_misses_nothing_of_what_two_copies_write(database: Database) -> None:
    copies = await database.copies(3)
    done = False
    seen: list[int] = []

    async def follow() -> None:
        while True:
            last = done
            seen.extend(await copies[0].read(positions(seen[-1] if seen else 0)))
            if last:
                return
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    calls = [copy.transact(write("w", fail=n % 7 == 0)) for n in range(60) for copy in copies]
    results = await asyncio.gather(*calls, return_exceptions=True)
    done = True
    await following
    written = 2 * sum(result is None for result in results)
    assert len(seen) == written == len(await copies[0].read(positions(0)))


async def test_positions_go_on_after_everything_was_deleted(database: Database) -> None:
    """A relay whose cursor stands behind the last row would never see a row that got an old position again."""
    store = await database.open()
    for _ in range(3):
        await store.transact(write("old"))
    last = (await store.read(positions(0)))[-1]
    await store.transact(lambda connection: connection.execute(delete(outbox)) and None)
    await store.transact(write("new"))
    assert await store.read(positions(last)) != []


async def test_positions_go_on_after_everything_was_deleted_and_the_store_opened_anew(database: Database) -> None:
    store = await database.open()
    await store.transact(write("old"))
    last = (await store.read(positions(0)))[-1]
    await store.transact(lambda connection: connection.execute(delete(outbox)) and None)
    await store.close()
    store = await database.open()
    await store.transact(write("new"))
    assert await store.read(positions(last)) != []
