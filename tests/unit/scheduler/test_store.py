"""Rows and statements: what is saved is what is read, and nobody overwrites what they have not seen."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select
from sqlalchemy.dialects import postgresql

from services.scheduler import queue_store, rows, store, wiring
from services.scheduler.ceilings import Amounts
from services.scheduler.deadlines import Deadline, Graces
from services.scheduler.decisions import Call, CancelAsked, Passed
from services.scheduler.queue_store import Arrival
from services.scheduler.queueing import QueueKey
from services.scheduler.records import Job
from shared.contracts.commands import CancelJob
from shared.contracts.reasons import ReasonCode, because
from shared.job import AttemptStatus
from shared.ports import Store
from shared.runtime.migrating import differences
from tests.builders import ALICE, BOB, NOON, VO, a_spec, job_id
from tests.stores import open_store
from tests.unit.scheduler.builders import NEED, History, later, placed, seen

pytestmark = pytest.mark.fast
GRACES = Graces()
S = AttemptStatus


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "scheduler.sqlite", wiring.MIGRATIONS, synchronous="OFF")
    yield opened
    await opened.close()


async def insert(kept: Store, *jobs: Job) -> None:
    for job in jobs:
        await kept.transact(lambda c, job=job: store.insert_job(c, job, GRACES))  # type: ignore[misc]


async def load(kept: Store, job: Job) -> Job:
    found = await kept.read(lambda c: store.load(c, job.id))
    assert found is not None
    return found


async def test_the_migrations_make_the_tables_that_the_code_has(kept: Store) -> None:
    assert await kept.transact(lambda c: differences(c, store.metadata)) == []


@pytest.mark.parametrize("told", [0, 1, 2, 3, 4])
async def test_a_job_comes_back_as_it_was_saved(kept: Store, told: int) -> None:
    things = [placed(), seen(S.RUNNING), seen(S.DISCONNECTED, sequence=2), seen(S.FAILED, sequence=3)]
    history = History(retries={"attempts": 1}, labels={"a": "b"})
    await insert(kept, history.job)
    before = await load(kept, history.job)
    history.tell(*things[:told])
    await save(kept, before, history.job)
    assert await load(kept, history.job) == replace(history.job, revision=2)


async def save(kept: Store, before: Job, after: Job) -> None:
    await kept.transact(lambda c: store.save(c, before, after, GRACES)())


async def test_a_save_over_somebody_elses_is_refused(kept: Store) -> None:
    history = History()
    await insert(kept, history.job)
    before = await load(kept, history.job)
    history.tell(placed())
    await save(kept, before, history.job)
    with pytest.raises(store.Raced):
        await save(kept, before, History().tell(CancelAsked(NOON)).job)
    assert (await load(kept, history.job)).state == "placed"


async def test_what_was_read_before_is_known_by_whether_somebody_has_saved_it_since(kept: Store) -> None:
    histories = [History(number=number) for number in range(1, 6)]
    await insert(kept, *(history.job for history in histories))
    read = [await load(kept, history.job) for history in histories]
    await save(kept, read[2], histories[2].tell(placed()).job)
    await kept.transact(lambda c: queue_store.look_again(c, read[3].id, later(5)))
    same = await kept.read(lambda c: store.unchanged(c, [*read, History(number=9).job]))
    assert same == {job.id for job in read} - {read[2].id}
    assert await kept.read(lambda c: store.unchanged(c, [])) == frozenset()


async def test_the_queue_comes_by_priority_then_turn(kept: Store) -> None:
    urgent = replace(History(number=3, priority=90).job, turn=9)
    first, second = replace(History(number=2).job, turn=0), replace(History(number=1).job, turn=1)
    await insert(kept, second, urgent, first)
    page = await kept.read(lambda c: queue_store.page(c, NOON, after=None, without=(), most=10))
    assert [waiting.job.id for waiting in page] == [urgent.id, first.id, second.id]
    rest = await kept.read(lambda c: queue_store.page(c, NOON, after=page[0].key, without=(), most=10))
    assert [waiting.job.id for waiting in rest] == [first.id, second.id]
    none = await kept.read(lambda c: queue_store.page(c, NOON, after=None, without={page[0].shape}, most=10))
    assert none == []
    assert await kept.read(lambda c: queue_store.position(c, QueueKey(*page[2].key))) == 2


async def test_jobs_of_one_shape_are_left_out_for_one_owner_alone(kept: Store) -> None:
    """Who is at a ceiling with ten thousand jobs is not read ten thousand times to get at the next one's."""
    mine, theirs = History(number=1).job, replace(History(number=2).job, owner=BOB)
    await insert(kept, mine, theirs)
    shape = (await kept.read(lambda c: queue_store.page(c, NOON, after=None, without=(), most=10)))[0].shape
    for held, left in (
        ([(ALICE.issuer, ALICE.subject, shape)], [theirs.id]),
        ([(ALICE.issuer, ALICE.subject, shape), (BOB.issuer, BOB.subject, shape)], []),
        ([(BOB.issuer, BOB.subject, "another")], [mine.id, theirs.id]),
        ([("https://other.example", ALICE.subject, shape)], [mine.id, theirs.id]),
    ):
        page = await kept.read(
            lambda c, held=held: queue_store.page(c, NOON, after=None, without=(), most=10, held=held)  # type: ignore[misc]
        )
        assert sorted(waiting.job.id for waiting in page) == left


async def test_what_is_in_use_is_what_current_attempts_take(kept: Store) -> None:
    """Not what is queued, has ended, or was given up with its site."""
    spec = {"resources": {"cpu_cores": 0.25}}
    histories = {
        "running": [placed(), seen(S.RUNNING)], "queued": [], "over": [placed(), seen(S.SUCCEEDED)],
        "given up": [placed(), seen(S.RUNNING), Passed(Deadline.SITE_GRACE)], "stopping": [placed(), CancelAsked(NOON)],
    }  # fmt: skip
    for number, told in enumerate(histories.values(), 1):
        history = History(number=number, **spec)
        await insert(kept, history.job)
        before = await load(kept, history.job)
        history.tell(*told)
        await kept.transact(lambda c, b=before, j=history.job: store.save(c, b, j, GRACES))  # type: ignore[misc]
    found = await kept.read(queue_store.read_in_use)
    two = Amounts(500, 2 * NEED.memory_mib, 2 * NEED.disk_mib, 0, 2)
    assert found.of(VO) == found.of(VO, ALICE) == found.of(VO, ALICE, "prague") == two
    assert found.of(VO, BOB) == found.of("vo.other") == Amounts()


def test_a_specification_is_read_once_unless_it_is_long() -> None:
    short, long = (a_spec(env={"WORDS": "a" * length}).model_dump_json() for length in (10, rows.SHORT))
    assert rows.spec_of(short) is rows.spec_of(short)
    assert rows.spec_of(long) == rows.spec_of(long)
    assert rows.spec_of(long) is not rows.spec_of(long)


async def test_a_job_that_backs_off_is_left_out_until_its_time(kept: Store) -> None:
    await insert(kept, replace(History().job, not_before=later(10)))
    for seconds, there in ((9, 0), (10, 1)):
        at = later(seconds)
        page = await kept.read(lambda c, at=at: queue_store.page(c, at, after=None, without=(), most=9))  # type: ignore[misc]
        assert len(page) == there


async def test_turns_are_given_by_owner(kept: Store) -> None:
    for number in (1, 2, 3):
        met = await kept.read(lambda c, n=number: queue_store.arrival(c, job_id(n), 50, ALICE))  # type: ignore[misc]
        assert met == Arrival(known=False, turn=number - 1, cancelled=False)
        await insert(kept, replace(History(number=number).job, turn=met.turn))
    assert (await kept.read(lambda c: queue_store.arrival(c, job_id(4), 50, BOB))).turn == 0
    assert (await kept.read(lambda c: queue_store.arrival(c, job_id(4), 10, ALICE))).turn == 0
    assert (await kept.read(lambda c: queue_store.arrival(c, job_id(3), 50, ALICE))).known


async def test_an_arrival_is_asked_of_the_indexes_that_have_its_order(kept: Store) -> None:
    """Also where PostgreSQL plans it over an empty table and keeps the plan, as it does for prepared statements."""
    plan = await kept.read(lambda c: _kept_plan(c, queue_store.ARRIVAL))
    assert "jobs_queue" in plan and "jobs_turn" in plan
    assert not re.search("Sort|Seq Scan|TEMP B-TREE|jobs_(told|shape|due|ended)", plan), plan


def _kept_plan(connection: Connection, query: Select[Any]) -> str:
    """How the database runs a statement that it planned before it saw any values."""
    if connection.dialect.name == "sqlite":
        words = str(query.compile(dialect=connection.dialect))
        found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", (None,) * words.count("?"))
        return "\n".join(str(row) for row in found)
    compiled = query.compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
    values = ", ".join("NULL" for _ in compiled.positiontup or ())
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE kept AS {compiled}")
    found = connection.exec_driver_sql(f"EXPLAIN EXECUTE kept ({values})")
    return "\n".join(str(row) for row in found)


async def test_only_waiting_reasons_count_as_told(kept: Store) -> None:
    told = replace(History(number=1).job, reason=because(ReasonCode.WAITING_FOR_ROOM))
    untold = History(number=2).job
    await insert(kept, told, untold)
    found = await kept.read(lambda c: queue_store.untold(c, later(9), later(9), 10))
    assert [waiting.job.id for waiting in found] == [untold.id]
    shape = found[0].shape
    other = await kept.read(lambda c: queue_store.told_otherwise(c, shape, ReasonCode.NO_SITE_FITS, later(9), 10))
    assert [waiting.job.id for waiting in other] == [told.id]


async def test_an_owed_call_is_kept_once_and_put_off(kept: Store) -> None:
    for _ in range(2):
        await kept.transact(
            lambda c: store.owe(c, job_id(1), 1, Call.CLOSE, cluster="prague", namespace="default", now=NOON)
        )
    (owed,) = await kept.read(lambda c: store.due_calls(c, "prague", NOON, 9))
    await kept.transact(lambda c: store.owe_later(c, owed, later(5), "away"))
    assert await kept.read(lambda c: store.due_calls(c, "prague", later(4), 9)) == []
    (again,) = await kept.read(lambda c: store.due_calls(c, "prague", later(5), 9))
    assert again.tries == 1
    await kept.transact(lambda c: store.due_again(c, "prague", NOON))
    assert len(await kept.read(lambda c: store.due_calls(c, "prague", NOON, 9))) == 1


@pytest.mark.parametrize(("own", "vo", "applied"), [(None, VO, True), (ALICE, VO, True), (BOB, VO, False),
                                                    (None, "vo.other", False)])  # fmt: skip
async def test_an_early_cancel_reaches_only_what_its_grant_covers(
    kept: Store, own: object, vo: str, applied: bool
) -> None:
    job = History().job
    command = CancelJob(job_id=job.id, vo=vo, requested_by=BOB, requested_at=later(3))
    await kept.transact(lambda c: store.keep_cancel(c, command, own, NOON))  # type: ignore[arg-type]
    assert await kept.transact(lambda c: store.take_cancel(c, job)) == (later(3) if applied else None)
    assert await kept.transact(lambda c: store.take_cancel(c, job)) is None


async def test_what_was_observed_earlier_does_not_overwrite_what_was_later(kept: Store) -> None:
    for at, suspect in ((later(5), True), (later(3), False)):
        await kept.transact(
            lambda c, at=at, suspect=suspect: store.save_site(c, "prague", "health_at", at, {"suspect": suspect})  # type: ignore[misc]
        )
    (record,) = await kept.read(queue_store.read_sites)
    assert record.suspect


async def test_ended_jobs_are_forgotten_after_their_time_with_all_that_is_theirs(kept: Store) -> None:
    over, live = History(number=1).tell(Passed(Deadline.MAX_WAIT)).job, History(number=2).job
    await insert(kept, over, live)
    assert await kept.transact(lambda c: queue_store.forget_jobs(c, NOON, 10)) == 0
    assert await kept.transact(lambda c: queue_store.forget_jobs(c, later(60), 10)) == 1
    assert await kept.read(lambda c: store.known(c, live.id))
    assert not await kept.read(lambda c: store.known(c, over.id))
