"""`Store.transact`: one after another, all or nothing, durable when it returns, refused in words."""

import asyncio
import threading

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from shared.errors import Conflict, Unavailable
from tests.ports.store.database import Database, count, numbers, put, things


async def test_what_was_returned_is_there(database: Database) -> None:
    store = await database.open()
    assert await store.transact(put(1)) == 1
    assert await store.read(numbers) == [1]


async def test_an_exception_undoes_its_own_body_and_is_raised(database: Database) -> None:
    store = await database.open()

    def fails(connection: Connection) -> None:
        put(1)(connection)
        raise Conflict("not this one", code="mine")

    with pytest.raises(Conflict, match="not this one"):
        await store.transact(fails)
    assert await store.read(numbers) == []


async def test_of_bodies_that_share_a_commit_only_those_that_fail_are_undone(database: Database) -> None:
    store = await database.open()

    def fails(number: int) -> object:
        def body(connection: Connection) -> None:
            put(number)(connection)
            raise Conflict(f"not {number}")

        return body

    bodies = [fails(n) if n % 3 == 0 else put(n) for n in range(60)]
    results = await asyncio.gather(*(store.transact(body) for body in bodies), return_exceptions=True)  # type: ignore[arg-type]

    assert [n for n, result in enumerate(results) if isinstance(result, Conflict)] == list(range(0, 60, 3))
    assert await store.read(numbers) == [n for n in range(60) if n % 3]


async def test_a_statement_that_the_database_refuses_undoes_its_body_alone(database: Database) -> None:
    store = await database.open()

    def twice(connection: Connection) -> None:
        put(100)(connection)
        put(1)(connection)

    results = await asyncio.gather(
        store.transact(put(1)), store.transact(twice), store.transact(put(2)), return_exceptions=True
    )
    assert isinstance(results[1], IntegrityError)
    assert await store.read(numbers) == [1, 2]


async def test_the_first_body_of_a_commit_may_fail_too(database: Database) -> None:
    store = await database.open()
    await store.transact(put(1))
    results = await asyncio.gather(
        store.transact(put(1)), store.transact(put(1)), store.transact(put(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [IntegrityError, IntegrityError, int]
    assert await store.read(numbers) == [1, 3]


async def test_bodies_run_one_after_another_in_the_order_of_the_calls(database: Database) -> None:
    store = await database.open()
    order: list[int] = []
    running = threading.Lock()

    def body(number: int, connection: Connection) -> None:
        assert running.acquire(blocking=False), "two bodies at a time"
        try:
            put(number)(connection)
            connection.execute(select(things).where(things.c.id == number)).one()
            order.append(number)
        finally:
            running.release()

    await asyncio.gather(*(store.transact(lambda c, n=n: body(n, c)) for n in range(300)))  # type: ignore[misc]
    assert order == list(range(300))


async def test_a_body_sees_what_the_bodies_before_it_wrote(database: Database) -> None:
    store = await database.open()

    def one_more(connection: Connection) -> int:
        return put(count(connection))(connection)

    assert await asyncio.gather(*(store.transact(one_more) for _ in range(100))) == list(range(100))


async def test_two_copies_that_read_and_write_the_same_row_lose_nothing(database: Database) -> None:
    copies = await database.copies(3)
    await copies[0].transact(put(1, "0"))

    def add_one(connection: Connection) -> None:
        name = connection.execute(select(things.c.name).where(things.c.id == 1)).scalar_one()
        connection.execute(update(things).where(things.c.id == 1).values(name=str(int(name) + 1)))

    await asyncio.gather(*(copy.transact(add_one) for copy in copies for _ in range(40)))
    name = await copies[0].read(lambda c: c.execute(select(things.c.name).where(things.c.id == 1)).scalar_one())
    assert int(name) == 120


async def test_two_copies_cannot_each_decide_on_what_the_other_takes_away(database: Database) -> None:
    """Write skew: with snapshots alone, both would see the other's row and delete their own."""
    copies = await database.copies()
    for turn in range(20):
        mine = (2 * turn, 2 * turn + 1)
        for number in mine:
            await copies[0].transact(put(number))

        def give_up(connection: Connection, number: int) -> bool:
            others = [n for n in numbers(connection) if n in mine and n != number]  # noqa: B023
            if others:
                connection.execute(delete(things).where(things.c.id == number))
            return bool(others)

        gone = await asyncio.gather(
            *(copy.transact(lambda c, n=n: give_up(c, n)) for copy, n in zip(copies, mine, strict=True))  # type: ignore[misc]
        )
        assert sorted(gone) == [False, True]


async def test_too_many_that_wait_are_refused(database: Database) -> None:
    store = await database.open(queue=5)
    results = await asyncio.gather(*(store.transact(put(n)) for n in range(20)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert refused and all(each.code == "store_overloaded" for each in refused)
    assert await store.read(count) == 20 - len(refused)
    await store.transact(put(100))


async def test_a_caller_that_gives_up_breaks_nothing(database: Database) -> None:
    store = await database.open()
    calls = [asyncio.create_task(store.transact(put(n))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await store.transact(put(100))
    assert set(range(1, 20, 2)) | {100} <= set(await store.read(numbers))


async def test_an_open_result_is_refused(database: Database) -> None:
    store = await database.open()
    with pytest.raises(TypeError, match=r"\.all\(\)"):
        await store.transact(lambda connection: connection.execute(select(things)))
    with pytest.raises(TypeError, match=r"\.all\(\)"):
        await store.read(lambda connection: connection.execute(select(things)))


@pytest.mark.parametrize("word", ["COMMIT", "ROLLBACK"])
async def test_a_body_must_not_end_the_transaction(database: Database, word: str) -> None:
    store = await database.open()
    with pytest.raises(RuntimeError, match="must not commit or roll back"):
        await store.transact(lambda connection: connection.execute(text(word)) and None)
    await store.transact(put(1))
    assert await store.read(numbers) == [1]


async def test_closing_finishes_what_was_accepted_and_refuses_more(database: Database) -> None:
    store = await database.open()
    calls = [asyncio.create_task(store.transact(put(n))) for n in range(200)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*calls) == list(range(200))
    for refused in (store.transact(put(500)), store.read(numbers), store.read_long(numbers)):
        with pytest.raises(Unavailable, match="closed"):
            await refused
    assert await (await database.open()).read(count) == 200


async def test_closing_twice_is_harmless(database: Database) -> None:
    store = await database.open()
    await store.close()
    await store.close()


async def test_many_rows_go_in_at_once(database: Database) -> None:
    store = await database.open()
    rows = [{"id": n, "name": f"thing {n}"} for n in range(500)]
    await store.transact(lambda connection: connection.execute(insert(things), rows) and None)
    assert await store.read(count) == 500
