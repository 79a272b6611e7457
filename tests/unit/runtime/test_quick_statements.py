"""The quick way of a statement on SQLite gives what SQLAlchemy's own way gives, row by row and error by error."""

import sqlite3
from collections.abc import Iterator
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
    Row,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, InvalidRequestError, StatementError
from sqlalchemy.pool import NullPool

from shared.adapters.sqlite_quick import QuickConnection
from shared.runtime.sql import insert_or_ignore, upsert

pytestmark = pytest.mark.fast

ROWS = Table(
    "things", MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=True), Column("name", String(20), unique=True),
    Column("open", Boolean, nullable=False), Column("size", Float), Column("body", LargeBinary),
)  # fmt: skip
MADE_HERE = Table("made", MetaData(), Column("id", Integer, primary_key=True), Column("at", Integer, default=lambda: 7))

OPEN = select(ROWS).where(ROWS.c.open == bindparam("is_open"))
NAMED = select(ROWS.c.name, ROWS.c.body, ROWS.c.open.label("is_open")).where(ROWS.c.name == bindparam("wanted"))
OF_TWO = select(ROWS.c.name).where(ROWS.c.name.in_(["a", "b"]), ROWS.c.size > 0.5).order_by(ROWS.c.name)
OF_MANY = select(ROWS.c.name).where(ROWS.c.name.in_(bindparam("names", expanding=True))).order_by(ROWS.c.name)
PAGE = select(ROWS).order_by(ROWS.c.id.desc()).limit(bindparam("most"))
COUNT = select(func.count(), func.max(ROWS.c.size).label("largest"))
ADD = insert(ROWS)
RENAME = update(ROWS).where(ROWS.c.name == bindparam("was")).values(name=bindparam("now"))
DROP = delete(ROWS).where(ROWS.c.name == bindparam("gone"))


@pytest.fixture
def connection() -> Iterator[QuickConnection]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    quick = QuickConnection(create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool))
    ROWS.metadata.create_all(quick)
    MADE_HERE.metadata.create_all(quick)
    given = [{"name": name, "open": name != "b", "size": size, "body": name.encode()} for name, size in
             (("a", 1.0), ("b", 2.5), ("c", None))]  # fmt: skip
    Connection.execute(quick, ADD, given)
    yield quick
    quick.close()


def thrice(connection: Connection, statement: Any, given: Any = None) -> list[list[Row[Any]]]:
    """The rows that the statement gives the first, second and third time: Core's, just compiled, and known."""
    return [list(connection.execute(statement, given)) for _ in range(3)]


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        (OPEN, {"is_open": True}), (OPEN, {"is_open": False}), (NAMED, {"wanted": "a"}), (NAMED, {"wanted": "x"}),
        (OF_TWO, {}), (OF_MANY, {"names": ["a", "c"]}), (PAGE, {"most": 2}), (COUNT, {}),
    ],
)  # fmt: skip
def test_a_statement_gives_the_same_rows_however_often_it_is_run(
    connection: QuickConnection, statement: Any, given: dict[str, Any]
) -> None:
    expected = list(Connection.execute(connection, statement, given))
    for found in thrice(connection, statement, given):
        assert found == expected
        assert [row._mapping for row in found] == [row._mapping for row in expected]
        assert [[type(value) for value in row] for row in found] == [[type(value) for value in row] for row in expected]


def test_rows_are_found_by_name_by_place_and_as_mappings(connection: QuickConnection) -> None:
    for _ in range(3):
        row = connection.execute(NAMED, {"wanted": "b"}).one()
        assert (row.name, row[1], row.is_open) == ("b", b"b", False)
        assert connection.execute(NAMED, {"wanted": "b"}).mappings().one()["body"] == b"b"
        assert connection.execute(COUNT).scalar() == 3
        assert connection.execute(NAMED, {"wanted": "nobody"}).first() is None


def test_other_values_are_not_mixed_up_with_those_before(connection: QuickConnection) -> None:
    for name in ("a", "b", "c", "a"):
        assert connection.execute(NAMED, {"wanted": name}).one().name == name


def test_a_longer_list_of_values_is_another_statement(connection: QuickConnection) -> None:
    for names in (["a"], ["a", "b"], ["a", "b", "c"], ["c"]):
        assert list(connection.execute(OF_MANY, {"names": names}).scalars()) == names


def test_a_statement_derived_from_a_known_one_is_its_own(connection: QuickConnection) -> None:
    thrice(connection, PAGE, {"most": 3})
    assert [row.name for row in connection.execute(PAGE.where(ROWS.c.open), {"most": 3})] == ["c", "a"]


def test_writes_tell_how_many_rows_they_reached(connection: QuickConnection) -> None:
    for name in ("x", "y", "z"):
        assert connection.execute(ADD, {"name": name, "open": True}).rowcount == 1
        assert connection.execute(RENAME, {"was": name, "now": name * 2}).rowcount == 1
        assert connection.execute(RENAME, {"was": name, "now": "never"}).rowcount == 0
        assert connection.execute(DROP, {"gone": name * 2}).rowcount == 1


def test_the_same_insert_takes_other_columns_and_many_rows(connection: QuickConnection) -> None:
    for turn in range(3):
        connection.execute(ADD, {"name": f"one-{turn}", "open": True})
        connection.execute(ADD, {"name": f"two-{turn}", "open": False, "body": b"x"})
        connection.execute(ADD, [{"name": f"{n}-{turn}", "open": True, "size": 1.5} for n in range(2)])
    assert connection.execute(COUNT).one() == (15, 2.5)


def test_inserts_that_leave_out_clashes_and_overwriting_ones(connection: QuickConnection) -> None:
    for turn in range(3):
        assert not insert_or_ignore(connection, ROWS, {"name": "a", "open": True})
        assert insert_or_ignore(connection, ROWS, {"name": f"new-{turn}", "open": True})
        upsert(connection, ROWS, {"name": "a", "open": True, "size": float(turn)}, ["name"])
        size = select(ROWS.c.size).where(ROWS.c.name == "a")
        assert connection.execute(size).scalar() == turn


def test_defaults_that_python_makes_are_made(connection: QuickConnection) -> None:
    statement = insert(MADE_HERE)
    for number in range(3):
        connection.execute(statement, {"id": number})
    assert list(connection.execute(select(MADE_HERE.c.at)).scalars()) == [7, 7, 7]


def test_errors_are_those_of_sqlalchemy(connection: QuickConnection) -> None:
    for _ in range(3):
        with pytest.raises(IntegrityError, match="UNIQUE"):
            connection.execute(ADD, {"name": "a", "open": True})
        with pytest.raises((StatementError, InvalidRequestError), match="is_open"):
            connection.execute(OPEN, {})
