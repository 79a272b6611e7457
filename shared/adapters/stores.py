"""Choosing the Store adapter by a database's address (SQLAlchemy URL).

Called by whoever runs a service as a process, with its setting `database_url`. Drivers are imported when they are
needed only: the embedded platform starts without PostgreSQL's.
"""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from shared.adapters import sqlite
from shared.errors import Misconfigured
from shared.ports import Store

SHAPES = "sqlite:///relative/path, sqlite:////absolute/path or postgresql://user:password@host:5432/database"


async def open_store_at(url: str, migrations: str | None) -> Store:
    """The store at `url`, brought to the newest version of the package `migrations`.

    Raises Misconfigured (address, credentials, rights, version), Unavailable (server away, file in use).
    """
    path = sqlite_path(url)
    if path is not None:
        return await sqlite.open_store(path, migrations)
    from shared.adapters import postgres

    return await postgres.open_store(url, migrations)


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite address, None for a PostgreSQL one. Raises Misconfigured for anything else."""
    try:
        made = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Misconfigured(f"database_url is not an address like {SHAPES}") from error
    match made.get_backend_name():
        case "sqlite" if made.database and made.database != ":memory:":
            return Path(made.database)
        case "postgresql" | "postgres":
            return None
    raise Misconfigured(f"database_url: {made.drivername} is not known or names no database; use {SHAPES}")
