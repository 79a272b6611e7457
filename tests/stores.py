"""The store that a test runs on: SQLite, or PostgreSQL where `tests/conftest.py` says so. Worlds open theirs here."""

import contextlib
import functools
import shutil
import tempfile
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
        if migrations is not None:
            _copied(await _model(migrations), path)
        return await sqlite.open_store(path, migrations, **options)
    from shared.adapters.postgres import open_store as open_postgres

    return await open_postgres(postgres.schema_of(path.parent, path.name), migrations)


@functools.cache
def _made() -> "tempfile.TemporaryDirectory[str]":
    """Where databases are that were migrated before, one for each package; gone with the process."""
    return tempfile.TemporaryDirectory(prefix="serai-tests-")


async def _model(migrations: str) -> Path:
    """A new database as migrating leaves it: most of many tests' time would go into making the same one again."""
    model = Path(_made().name) / migrations
    if not model.exists():
        await (await sqlite.open_store(model, migrations)).close()
    return model


def _copied(model: Path, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, path)
