"""The store that a test runs on: SQLite, or PostgreSQL where `tests/conftest.py` says so. Worlds open theirs here."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.adapters import sqlite
from shared.ports import Store
from tests import postgres

SQLITE = "sqlite"
POSTGRES = "postgres"

_kind = SQLITE


@contextlib.contextmanager
def of_kind(kind: str) -> Iterator[None]:
    """Within it, stores are of this kind."""
    global _kind
    before, _kind = _kind, kind
    try:
        yield
    finally:
        _kind = before


async def open_store(path: Path, migrations: str | None = None, **options: Any) -> Store:
    """As `shared.adapters.sqlite.open_store`; on PostgreSQL, `path` names the database and `options` have no effect."""
    if _kind == SQLITE:
        return await sqlite.open_store(path, migrations, **options)
    from shared.adapters.postgres import open_store as open_postgres

    return await open_postgres(postgres.schema_of(path.parent, path.name), migrations)
