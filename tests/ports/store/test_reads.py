"""`Store.read` and `read_long`: one committed snapshot, nothing written, nothing older than what was returned."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from shared.errors import Unavailable
from shared.ports import Store
from tests.ports.store.database import Database, count, numbers, put, runtime, things

READERS: list[Callable[[Store], Callable[[Callable[[Connection], object]], object]]] = [
    lambda store: store.read,
    lambda store: store.read_long,
]
both = pytest.mark.parametrize("reader", READERS, ids=["read", "read_long"])


@both
async def test_a_read_sees_everything_that_was_returned_before(database: Database, reader: object) -> None:
    store = await database.open()
    for number in range(50):
        await store.transact(put(number))
        assert len(await reader(store)(numbers)) == number + 1  # type: ignore[operator]


@both
async def test_a_read_cannot_write(database: Database, reader: object) -> None:
    store = await database.open()
    with pytest.raises((DBAPIError, Unavailable)):
        await reader(store)(put(1))  # type: ignore[operator]
    assert await store.read(numbers) == []
    await store.transact(put(1))


async def test_a_read_of_several_statements_sees_one_moment(database: Database) -> None:
    """Two rows always move together; a read that takes them one by one never sees them apart."""
    store = await database.open()
    await store.transact(lambda connection: (put(1, "0")(connection), put(2, "0")(connection)))
    stop = False

    def move(connection: Connection) -> None:
        name = str(int(connection.execute(select(things.c.name).where(things.c.id == 1)).scalar_one()) + 1)
        connection.execute(update(things).where(things.c.id.in_((1, 2))).values(name=name))

    def look(connection: Connection) -> list[str]:
        query = select(things.c.name)
        return [connection.execute(query.where(things.c.id == n)).scalar_one() for n in (1, 2, 1)]

    async def mover() -> None:
        while not stop:
            await store.transact(move)

    moving = asyncio.create_task(mover())
    seen = [names for _ in range(60) for names in [await store.read(look), await store.read_long(look)]]
    stop = True
    await moving
    assert all(len(set(names)) == 1 for names in seen)


async def test_an_error_of_a_read_is_raised_and_the_next_read_works(database: Database) -> None:
    store = await database.open()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            await store.read(lambda _: 1 // 0)
    assert await store.read(numbers) == []


async def test_many_reads_at_once_are_all_answered(database: Database) -> None:
    store = await database.open()
    await store.transact(put(1))
    assert await asyncio.gather(*(store.read_long(count) for _ in range(200))) == [1] * 200


async def test_readers_that_give_up_leave_room_for_others(database: Database) -> None:
    store = await database.open()
    calls = [asyncio.create_task(store.read_long(count)) for _ in range(50)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await store.read_long(count) == 0


async def test_text_is_ordered_by_its_code_points(database: Database) -> None:
    """As Python orders it: cursors of lists and merges of index ranges rely on it, whatever the database's locale."""
    store = await database.open()
    names = ["B", "a", "-a", "Z9", "é", "0b", "_", "aB", "a-b", "ab", "10", "9"]
    for number, name in enumerate(names):
        await store.transact(put(number, name))
    query = select(things.c.name).order_by(things.c.name)
    assert await store.read(lambda connection: list(connection.execute(query).scalars())) == sorted(names)


async def test_bytes_and_absent_values_come_back_as_they_went_in(database: Database) -> None:
    store = await database.open()
    row = {
        "id": "x", "type": "t", "exchange": "", "routing_key": "", "content_type": "", "headers": "{}",
        "body": bytes(range(256)), "job_id": None, "attempt": None, "sequence": 2**31 - 1, "created_at": 2**53,
    }  # fmt: skip
    await store.transact(lambda connection: connection.execute(runtime.outbox.insert(), row) and None)
    found = await store.read(lambda connection: connection.execute(select(runtime.outbox)).mappings().one())
    assert {**found, "body": bytes(found["body"])} == {"position": 1, **row}
