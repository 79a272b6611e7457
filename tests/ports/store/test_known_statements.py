"""Statements that a module built once: run often, by the quick way of each driver, they do what they did at first."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.errors import Conflict
from shared.ports import Store
from shared.runtime.migrating import create_tables
from shared.runtime.sql import asked, insert_new, insert_or_ignore, upsert
from tests.ports.store.database import Database, runtime

rows = Table(
    "rows", MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False), Column("name", String(64), nullable=False),
    Column("open", Boolean), Column("size", Float), Column("body", LargeBinary),
)  # fmt: skip
ADD = insert(rows)
ALL = select(rows).order_by(rows.c.id)
NAME = select(rows.c.name).where(rows.c.id == bindparam("of"))
RENAME = update(rows).where(rows.c.id == bindparam("of")).values(name=bindparam("now"))
RENAME_TWO = update(rows).where(rows.c.id.in_([1, 2])).values(name=bindparam("now"))
DROP = delete(rows).where(rows.c.id == bindparam("of"))
SENT = insert(runtime.outbox)
SENT_BACK = select(runtime.outbox.c.sequence, runtime.outbox.c.created_at).order_by(runtime.outbox.c.position)


@pytest.fixture
async def store(database: Database) -> Store:
    """A store in which every statement has been run before, so that all of them are known."""
    opened = await database.open()
    await opened.transact(lambda connection: create_tables(connection, rows))
    for _ in range(3):
        await opened.transact(_everything)
    return opened


def _everything(connection: Connection) -> None:
    for _ in range(2):
        add(1)(connection)
        connection.execute(ADD, [row(2), row(3)])
        names(connection)
        connection.execute(NAME, {"of": 1}).scalar()
        for statement in (RENAME, RENAME_TWO):
            assert connection.execute(statement, {"of": 1, "now": "other"} if statement is RENAME else {"now": "x"})
        for number in (1, 2, 3):
            connection.execute(DROP, {"of": number})


def row(number: int, name: str = "") -> dict[str, Any]:
    return {"id": number, "name": name, "open": None, "size": None, "body": None}


def add(number: int, name: str = "") -> Callable[[Connection], int]:
    def body(connection: Connection) -> int:
        connection.execute(ADD, row(number, name))
        return number

    return body


def names(connection: Connection) -> dict[int, str]:
    return {found.id: found.name for found in connection.execute(ALL)}


async def test_values_come_back_as_they_went_in(store: Store) -> None:
    given = [
        {"id": 1, "name": "żółć 'x' %s %%", "open": True, "size": 0.1, "body": bytes(range(256))},
        {"id": -(2**31), "name": "", "open": False, "size": None, "body": b""},
        {"id": 2**31 - 1, "name": "\\x00", "open": None, "size": -1e300, "body": None},
    ]
    for each in given:
        await store.transact(lambda connection, each=each: connection.execute(ADD, each) and None)  # type: ignore[misc]
    found = await store.read(lambda connection: [dict(each) for each in connection.execute(ALL).mappings()])
    assert found == sorted(given, key=lambda each: each["id"])  # type: ignore[arg-type, return-value]


async def test_numbers_of_every_size_take_the_same_statement(store: Store) -> None:
    sizes = [0, 1, 2**15, 2**31 - 1, 2**31, 2**53, 2**63 - 1]
    base = {"type": "t", "exchange": "", "routing_key": "", "content_type": "", "headers": "", "body": b""}
    for at in sizes:
        sent = {**base, "id": str(at), "sequence": None if at % 2 else 7, "created_at": at}
        await store.transact(lambda connection, sent=sent: connection.execute(SENT, [sent]) and None)  # type: ignore[misc]
    found = await store.read(lambda connection: [tuple(each) for each in connection.execute(SENT_BACK)])
    assert found == [(None if at % 2 else 7, at) for at in sizes]


async def test_writes_tell_how_many_rows_they_reached(store: Store) -> None:
    def body(connection: Connection) -> list[int]:
        return [
            connection.execute(ADD, row(1)).rowcount,
            connection.execute(ADD, [row(2), row(3)]).rowcount,
            connection.execute(RENAME, {"of": 1, "now": "a"}).rowcount,
            connection.execute(RENAME, {"of": 9, "now": "a"}).rowcount,
            connection.execute(RENAME_TWO, {"now": "b"}).rowcount,
            connection.execute(DROP, {"of": 3}).rowcount,
            connection.execute(DROP, {"of": 3}).rowcount,
        ]

    assert await store.transact(body) == [1, 2, 1, 0, 2, 1, 0]
    assert await store.read(names) == {1: "b", 2: "b"}


async def test_a_body_sees_what_it_wrote_itself_and_what_was_written_before_it(store: Store) -> None:
    def body(number: int, connection: Connection) -> list[str]:
        connection.execute(ADD, row(number, "first"))
        seen = [connection.execute(NAME, {"of": number}).scalar_one()]
        connection.execute(RENAME, {"of": number, "now": "second"})
        seen.append(connection.execute(NAME, {"of": number}).scalar_one())
        connection.execute(update(rows).where(rows.c.id == number).values(name="third"))
        seen.append(connection.execute(NAME, {"of": number}).scalar_one())
        return [*seen, *(connection.execute(NAME, {"of": n}).scalar_one() for n in range(number))]

    calls = [store.transact(lambda connection, n=n: body(n, connection)) for n in range(20)]  # type: ignore[misc]
    for number, seen in enumerate(await asyncio.gather(*calls)):
        assert seen == ["first", "second", "third", *["third"] * number]


async def test_of_bodies_that_share_a_commit_only_those_that_fail_are_undone(store: Store) -> None:
    """Some fail by a statement whose outcome they did not wait for, some by themselves, before or after writing."""

    def refused(number: int) -> Any:
        return lambda connection: (add(number)(connection), add(0)(connection)) and number

    def fails(number: int, *, writes: bool) -> Any:
        def body(connection: Connection) -> None:
            if writes:
                add(number)(connection)
            raise Conflict(f"not {number}")

        return body

    kinds = [add, refused, lambda n: fails(n, writes=True), lambda n: fails(n, writes=False)]
    for only in (kinds, kinds[:2], [add, kinds[2]], [add, kinds[3]], [refused], [add]):
        await store.transact(lambda connection: connection.execute(delete(rows)) and None)
        await store.transact(add(0))
        bodies = {n: only[n % len(only)] for n in range(1, 40)}
        results = await asyncio.gather(*(store.transact(kind(n)) for n, kind in bodies.items()), return_exceptions=True)
        expected = {add: int, refused: IntegrityError}
        for (number, kind), result in zip(bodies.items(), results, strict=True):
            assert type(result) is expected.get(kind, Conflict), (number, result)
        assert list(await store.read(names)) == [0, *(n for n, kind in bodies.items() if kind is add)]


async def test_clashes_are_left_out_or_overwritten(store: Store) -> None:
    for turn in range(3):
        assert await store.transact(lambda c, turn=turn: insert_or_ignore(c, rows, row(turn)))  # type: ignore[misc]
        assert not await store.transact(lambda c, turn=turn: insert_or_ignore(c, rows, row(turn)))  # type: ignore[misc]
        await store.transact(lambda c, turn=turn: upsert(c, rows, row(0, f"turn {turn}"), ["id"]))  # type: ignore[misc]
        assert (await store.read(names))[0] == f"turn {turn}"


async def test_of_rows_that_are_written_down_the_new_ones_are_told(store: Store) -> None:
    def note(*numbers: int) -> Callable[[Connection], set[Any]]:
        return lambda connection: insert_new(connection, rows, "id", numbers, name="noted")

    for turn in (0, 10, 20):
        assert await store.transact(note()) == set()
        assert await store.transact(note(turn)) == {turn}
        assert await store.transact(note(turn, turn + 1, turn + 2)) == {turn + 1, turn + 2}
        assert await store.transact(note(turn + 3, turn + 3)) == {turn + 3}
        assert await store.transact(note(turn, turn + 3)) == set()
    assert set((await store.read(names)).values()) == {"noted"}
    assert len(await store.read(names)) == 12


async def test_a_body_that_is_undone_has_noted_nothing(store: Store) -> None:
    def fails(connection: Connection) -> None:
        insert_new(connection, rows, "id", [1, 2], name="noted")
        raise Conflict("no")

    before, failed, after = await asyncio.gather(
        store.transact(add(3)), store.transact(fails), store.transact(add(4)), return_exceptions=True
    )  # fmt: skip
    assert (before, type(failed), after) == (3, Conflict, 4)
    assert list(await store.read(names)) == [3, 4]


async def test_a_read_of_several_statements_sees_one_moment(store: Store) -> None:
    await store.transact(lambda connection: connection.execute(ADD, [row(1, "0"), row(2, "0")]) and None)
    stop = False

    def move(connection: Connection) -> None:
        connection.execute(RENAME_TWO, {"now": str(int(connection.execute(NAME, {"of": 1}).scalar_one()) + 1)})

    def look(connection: Connection) -> list[str]:
        return [connection.execute(NAME, {"of": n}).scalar_one() for n in (1, 2, 1)]

    async def mover() -> None:
        while not stop:
            await store.transact(move)

    moving = asyncio.create_task(mover())
    seen = [await store.read(look) for _ in range(60)]
    stop = True
    await moving
    assert all(len(set(each)) == 1 for each in seen)


async def test_a_read_cannot_write(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(Exception, match=r"read-?only"):
            await store.read(add(1))
    assert await store.read(names) == {}


async def test_what_was_asked_first_is_looked_at_later_also_after_the_commit(store: Store) -> None:
    def body(connection: Connection) -> tuple[str, Callable[[], Sequence[Any]]]:
        before = asked(connection, NAME, {"of": 1})
        connection.execute(ADD, row(1, name="first"))
        then = asked(connection, NAME, {"of": 1})
        connection.execute(RENAME, {"of": 1, "now": "second"})
        after = asked(connection, NAME, {"of": 1})
        assert before() == []
        return then()[0].name, after

    first, second = await store.transact(body)
    assert (first, second()[0].name) == ("first", "second")


async def test_what_was_asked_of_a_body_that_is_run_again_is_what_it_sees_then(store: Store) -> None:
    """The second body makes the whole group run again, on databases that send ahead."""

    def asks(connection: Connection) -> Callable[[], Sequence[Any]]:
        connection.execute(ADD, row(1, name="kept"))
        return asked(connection, NAME, {"of": 1})

    kept, clash = await asyncio.gather(store.transact(asks), store.transact(add(1)), return_exceptions=True)
    assert isinstance(clash, IntegrityError)
    assert not isinstance(kept, BaseException)
    assert kept()[0].name == "kept"


async def test_a_question_that_the_database_refuses_is_an_error_of_its_body_alone(store: Store) -> None:
    lost = Table("lost", MetaData(), Column("id", Integer, primary_key=True))
    query = select(lost)
    await store.transact(lambda connection: create_tables(connection, lost))
    for _ in range(2):
        await store.transact(lambda connection: asked(connection, query)())
    await store.transact(lost.drop)
    refused, fine = await asyncio.gather(
        store.transact(lambda connection: asked(connection, query)()), store.transact(add(2)), return_exceptions=True
    )
    assert isinstance(refused, DBAPIError)
    assert fine == 2
    assert list(await store.read(names)) == [2]


async def test_a_read_may_ask_ahead(store: Store) -> None:
    await store.transact(lambda connection: connection.execute(ADD, [row(1, name="a"), row(2, name="b")]) and None)

    def both(connection: Connection) -> list[str]:
        looks = [asked(connection, NAME, {"of": number}) for number in (1, 2)]
        return [look()[0].name for look in looks]

    for _ in range(3):
        assert await store.read(both) == ["a", "b"]
