"""One suite, two databases: SQLite always, PostgreSQL where it is installed.

What SQLite cannot keep, by name: several copies at a time (`several`). It refuses the second opening in words
(`test_opening.py`), and tests of two copies give both the one store.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.adapters.postgres import throwaway
from tests import postgres
from tests.ports.store.database import Database

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
SQLITE = pytest.param("sqlite", marks=pytest.mark.fast)


@pytest.fixture(params=[SQLITE, POSTGRES])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        made = Database(f"sqlite:///{tmp_path / 'store.sqlite'}", several=False)
    else:
        need_postgres()
        made = Database(postgres.schema_of(tmp_path, "store"), several=True)
    yield made
    await made.close()


@pytest.fixture
async def own_server() -> AsyncIterator[throwaway.ThrowAway]:
    """A PostgreSQL that the test may kill."""
    need_postgres()
    async with throwaway.server(durable=False) as server:
        yield server


def need_postgres() -> None:
    if throwaway.installed() is None:
        pytest.skip(postgres.MISSING)
