"""Choosing the Store adapter by a database address."""

from pathlib import Path

from shared.adapters.sqlite import open_store
from shared.errors import Misconfigured
from shared.ports import Store


async def open_store_at(url: str, migrations: str) -> Store:
    """The store at an SQLAlchemy URL, migrated. Raises Misconfigured for a kind that there is no adapter for."""
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite" or not rest.startswith("/"):
        raise Misconfigured(f"database_url: {scheme or 'nothing'} is not known; use sqlite:///path")
    return await open_store(Path(rest[1:]), migrations)
