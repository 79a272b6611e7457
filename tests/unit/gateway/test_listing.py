"""A page costs the same however many jobs are stored: every list walks an index and never sorts."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from services.gateway import event_log, job_view, listing, store
from services.gateway.event_log import Entry
from services.gateway.listing import JobFilter
from services.gateway.permissions import Sight, Told
from shared.job import JobState
from shared.runtime.migrating import differences
from tests.builders import ALICE, NOON, VO, a_job
from tests.stores import open_store

pytestmark = pytest.mark.fast

SIGHT = Sight(ALICE.issuer, ALICE.subject, frozenset({VO}), frozenset({VO}))
LISTS = [
    (JobFilter(), {"jobs_own"}),
    (JobFilter(states=(JobState.FAILED,)), {"jobs_own_state"}),
    (JobFilter(states=(JobState.QUEUED, JobState.RUNNING)), {"jobs_own_state"}),
    (JobFilter(labels=(("run", "7"),)), {"labels_own"}),
    (JobFilter(labels=(("run", "7"), ("all", "yes"))), {"labels_own"}),
    (JobFilter(labels=(("run", "7"),), states=(JobState.RUNNING,)), {"jobs_own_state"}),
    (JobFilter(whole_vo=True), {"jobs_vo"}),
    (JobFilter(whole_vo=True, vo=VO, states=(JobState.FAILED,)), {"jobs_vo_state"}),
    (JobFilter(whole_vo=True, labels=(("run", "7"),)), {"labels_vo"}),
]


def _plans(connection: Connection, wanted: JobFilter) -> list[str]:
    """SQLite's plan of every statement that a page takes."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    listing.page(connection, wanted, SIGHT, None, 100)
    event.remove(connection, "before_cursor_execute", note)
    return [
        " | ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))
        for statement, parameters in statements
    ]


@pytest.mark.sqlite_only(reason="reads SQLite's plans")
@pytest.mark.parametrize(("wanted", "indexes"), LISTS, ids=[repr(row[0]) for row in LISTS])
async def test_every_list_walks_its_index_in_order(tmp_path: Path, wanted: JobFilter, indexes: set[str]) -> None:
    opened = await open_store(tmp_path / "gateway.sqlite", migrations="services.gateway.migrations")
    plans = await opened.read_long(lambda connection: _plans(connection, wanted))
    await opened.close()
    assert plans
    for plan in plans:
        assert "TEMP B-TREE" not in plan, plan
        assert "SCAN" not in plan, plan
        assert any(f"INDEX {index} " in plan for index in indexes), plan


async def test_pages_of_many_jobs_are_right_for_every_filter(tmp_path: Path) -> None:
    opened = await open_store(tmp_path / "gateway.sqlite", migrations="services.gateway.migrations")
    rows = []
    for number in range(300):
        command = a_job(number, at=NOON + timedelta(seconds=number // 3), labels={"run": str(number % 3)})
        view = job_view.accepted(command).model_copy(
            update={"state": JobState.FAILED if number % 5 == 0 else JobState.QUEUED}
        )
        rows.append(store.new_job(view, b"{}"))
    await opened.transact(lambda connection: store.add_jobs(connection, rows))
    wanted = JobFilter(labels=(("run", "0"),), states=(JobState.FAILED,))
    page = await opened.read_long(lambda connection: listing.page(connection, wanted, SIGHT, None, 100))
    many = await opened.read_long(
        lambda connection: listing.page(connection, JobFilter(states=tuple(JobState)), SIGHT, None, 250)
    )
    await opened.close()

    assert len(page.summaries) == 20
    assert (len(many.summaries), many.last is not None) == (250, True)
    times = [job_view.JobSummary.model_validate_json(each).created_at for each in many.summaries]
    assert times == sorted(times, reverse=True)


async def test_positions_go_on_after_the_log_has_been_emptied(tmp_path: Path) -> None:
    opened = await open_store(tmp_path / "gateway.sqlite", migrations="services.gateway.migrations")
    entries = [Entry(n, "job.queued", Told(VO, "i", "s", "j", "queued", {}), b"{}") for n in (1, 2)]

    def write(connection: Connection) -> None:
        event_log.prepare(connection, "abc")
        event_log.append(connection, entries, 1)
        event_log.move(connection, 2, 2)

    await opened.transact(write)
    await opened.transact(lambda connection: event_log.forget(connection, 100, 10))
    state = await opened.read(event_log.state)
    await opened.close()
    assert (state.head, state.floor, state.stream_offset) == (2, 2, 2)


async def test_the_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    opened = await open_store(tmp_path / "gateway.sqlite", migrations="services.gateway.migrations")
    found = await opened.transact(lambda connection: differences(connection, store.metadata))
    await opened.close()
    assert found == []
