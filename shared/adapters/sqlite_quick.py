"""Compiled statements (`quick.py`) on the standard library's SQLite driver."""

import sqlite3
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from shared.adapters import quick
from shared.adapters.quick import NO_COLUMNS, Plan, QuickResult


class QuickConnection(quick.QuickConnection):
    """A connection of an SQLite engine in autocommit mode: `QuickConnection(engine)`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._raw = cast(sqlite3.Connection, self.connection.dbapi_connection)

    def run(self, plan: Plan, values: list[Any], *, many: bool) -> QuickResult:
        try:
            cursor = self._raw.executemany(plan.sql, values) if many else self._raw.execute(plan.sql, values)
            if plan.types is None:
                return QuickResult(NO_COLUMNS, (), cursor.rowcount)
            found: list[Any] = cursor.fetchall()
        except sqlite3.Error as error:
            raise DBAPIError.instance(plan.sql, values, error, sqlite3.Error, dialect=self.dialect) from error
        return self.rows(plan, found, cursor)
