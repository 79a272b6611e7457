"""The monitor's tables are what its migrations make, and give back what they were given."""

from pathlib import Path

import pytest

from services.monitor import store
from services.monitor.attempts import AttemptRecord, Identity, observe
from services.monitor.store import record_from, row_of
from shared.runtime.migrating import differences
from tests.builders import VO
from tests.stores import open_store
from tests.unit.monitor.builders import allocation_seen, an_attempt, ended, evaluation_seen, full, job_seen

pytestmark = pytest.mark.fast


async def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    opened = await open_store(tmp_path / "monitor.sqlite", "services.monitor.migrations", synchronous="OFF")
    try:
        assert await opened.transact(lambda connection: differences(connection, store.metadata)) == []
    finally:
        await opened.close()


def test_a_record_comes_back_from_its_row() -> None:
    identity = Identity(an_attempt(), VO, "prague", "prague", "default", (("counts", "out/counts.txt"),))
    record, _ = observe(AttemptRecord(identity), [
        job_seen(an_attempt(), 1), evaluation_seen(an_attempt(), 2, "blocked", failures=full()),
        allocation_seen(an_attempt(), 3, "failed", tasks=(ended(3),), ports=(("http", "::1", 80),)),
    ])  # fmt: skip
    assert record_from(row_of(record)) == record
