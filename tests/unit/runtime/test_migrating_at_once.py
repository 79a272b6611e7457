"""Databases that are opened at the same moment in one process."""

import asyncio
from pathlib import Path

import pytest

from shared.adapters.sqlite import open_store

pytestmark = pytest.mark.fast

SERVICES = ("auth", "scheduler", "monitor", "gateway")


async def test_databases_that_are_opened_at_once_are_all_migrated(tmp_path: Path) -> None:
    """Alembic's `op` is one for the whole process, and each database is opened in a thread of its own."""
    opening = [
        open_store(tmp_path / f"{service}-{number}.sqlite", f"services.{service}.migrations")
        for service in SERVICES
        for number in range(3)
    ]
    stores = await asyncio.gather(*opening)
    try:
        for store in stores:
            assert await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar()) == 1
    finally:
        for store in stores:
            await store.close()
