"""What SQLite and PostgreSQL spell alike but SQLAlchemy Core has no common word for: two statements, asking ahead, and
lists of values in statements that are built once.

Used by services' `store.py` and by the runtime inside `Store.transact`. Everything else is plain Core.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite

from shared.errors import Misconfigured

Row = Mapping[str, object]
_Insert = sqlite.Insert | postgresql.Insert


def asked(connection: Connection, query: Select[Any], given: Row | None = None) -> Callable[[], Sequence[Any]]:
    """Ask for rows now, and look at them later: what is returned gives them, within the body or once it is committed.

    Questions that are asked before the first one is looked at share one way to the database and back.
    """
    ahead = getattr(connection, "ask", None)
    if ahead is not None:
        promised: Callable[[], Sequence[Any]] = ahead(query, given)
        return promised
    rows = connection.execute(query, given or {}).all()
    return lambda: rows


def insert_or_ignore(connection: Connection, table: Table, values: Row | Sequence[Row]) -> bool:
    """Insert one row or many, leaving out those that clash with any unique key. True when at least one was new.

    Rows of one call have the same columns.
    """
    rows = [values] if isinstance(values, Mapping) else values
    if not rows:
        return False
    return connection.execute(_ignoring(table, connection.dialect.name), _parameters(rows)).rowcount > 0


def insert_missing(connection: Connection, table: Table, values: Row | Sequence[Row]) -> None:
    """The same where nobody wants to know what was new: on PostgreSQL the answer is not waited for."""
    rows = [values] if isinstance(values, Mapping) else values
    if rows:
        connection.execute(_ignoring(table, connection.dialect.name), _parameters(rows))


def insert_new(
    connection: Connection, table: Table, column: str, values: Sequence[Any], **same: object
) -> set[Any]:  # fmt: skip
    """Insert a row for each of `values`, all alike but for `column`; which of them were not there before.

    One statement, because one that looks first is at the mercy of the planner: knowing nothing yet of a new table,
    PostgreSQL read every row of a consumer's inbox to find sixteen of them.
    """
    if not values:
        return set()
    names = tuple(same)
    statement = _noting(table, connection.dialect.name, column, names, size_for(len(values)))
    found = connection.execute(statement, {f"every_{name}": same[name] for name in names} | in_places(column, values))
    return {row[0] for row in found}


def upsert(connection: Connection, table: Table, values: Row | Sequence[Row], keys: Sequence[str]) -> None:
    """Insert one row or many; where `keys` (a unique key) clash, overwrite the other columns that were given.

    Rows of one call have the same columns.
    """
    rows = [values] if isinstance(values, Mapping) else values
    if not rows:
        return
    statement = _overwriting(table, connection.dialect.name, tuple(keys), tuple(rows[0]))
    connection.execute(statement, _parameters(rows))


# -- lists of values ----------------------------------------------------------------------------------------------


def size_for(count: int) -> int:
    """Of a list in a statement that is built once: the next power of two. 0 for an empty one."""
    return 1 << (count - 1).bit_length() if count else 0


def places(name: str, size: int) -> list[BindParameter[Any]]:
    """So many parameters for `IN`, as `column.in_(places("id", size))`; `in_places` gives their values."""
    return [bindparam(f"{name}_{place}") for place in range(size)]


def in_places(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """The values of a list, the last one repeated up to its size."""
    last = len(values) - 1
    return {f"{name}_{place}": values[min(place, last)] for place in range(size_for(len(values)))}


def _parameters(rows: Sequence[Row]) -> dict[str, object] | list[dict[str, object]]:
    """One row goes to `execute`, several to `executemany`: the first is cheaper and counts rows everywhere."""
    return dict(rows[0]) if len(rows) == 1 else [dict(row) for row in rows]


@lru_cache(maxsize=256)
def _ignoring(table: Table, dialect: str) -> _Insert:
    """Asks SQLAlchemy to keep the count of rows, which it otherwise drops for inserts."""
    return _insert(table, dialect).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


@lru_cache(maxsize=256)
def _noting(table: Table, dialect: str, column: str, same: tuple[str, ...], size: int) -> Any:
    every: dict[str, BindParameter[Any]] = {name: bindparam(f"every_{name}") for name in same}
    rows = [every | {column: place} for place in places(column, size)]
    return _insert(table, dialect).values(rows).on_conflict_do_nothing().returning(table.c[column])


@lru_cache(maxsize=256)
def _overwriting(table: Table, dialect: str, keys: tuple[str, ...], columns: tuple[str, ...]) -> _Insert:
    statement = _insert(table, dialect)
    others = {name: statement.excluded[name] for name in columns if name not in keys}
    if not others:
        return statement.on_conflict_do_nothing(index_elements=list(keys))
    return statement.on_conflict_do_update(index_elements=list(keys), set_=others)


def _insert(table: Table, dialect: str) -> _Insert:
    match dialect:
        case "sqlite":
            return sqlite.insert(table)
        case "postgresql":
            # Inline: without the primary key that SQLAlchemy would ask back of each row, and nobody reads.
            return postgresql.insert(table).inline()
    raise Misconfigured(f"the databases of the platform are SQLite and PostgreSQL, not {dialect}")
