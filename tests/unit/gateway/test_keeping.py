"""Requests that are ready at the same moment share a transaction, and each has its own outcome."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from services.gateway import job_view, keeping, store
from services.gateway.access import Caller
from services.gateway.keeping import Keeping, Key, Wanted
from services.gateway.permissions import sight_of
from services.gateway.store import runtime
from shared.contracts.envelope import Message
from shared.errors import Conflict, Unavailable
from shared.ports import Store
from shared.runtime.clock import system_clock
from shared.runtime.transactions import Transactions
from tests.builders import ALICE, a_job
from tests.stores import open_store
from tests.unit.gateway.world import MIGRATIONS, context

pytestmark = pytest.mark.fast

CALLER = Caller("token", context(ALICE), sight_of(context(ALICE)))


class Counted:
    """The store, with the transactions counted; away when told."""

    def __init__(self, store: Store) -> None:
        self.store, self.transactions, self.away = store, 0, False

    async def transact(self, body: Callable[[Connection], Any]) -> Any:
        self.transactions += 1
        if self.away:
            raise Unavailable("the store is away")
        return await self.store.transact(body)


class World:
    def __init__(self, opened: Store) -> None:
        self.store = Counted(opened)
        self.keeping = Keeping(Transactions(self.store, runtime, "gateway", system_clock))  # type: ignore[arg-type]

    async def keep(self, *wanted: Wanted) -> list[Any]:
        """Want them at the same moment."""
        return await asyncio.gather(*(self.keeping.keep(each) for each in wanted), return_exceptions=True)

    async def there(self, number: int) -> bool:
        id = str(a_job(number).job_id)
        return await self.store.store.read(lambda connection: store.hot_row(connection, id)) is not None

    async def sent(self) -> list[str]:
        query = runtime.outbox.select().order_by(runtime.outbox.c.position)
        return await self.store.store.read(lambda connection: [row.id for row in connection.execute(query)])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    opened = await open_store(tmp_path / "gateway.sqlite", migrations=MIGRATIONS)
    yield World(opened)
    await opened.close()


def wanted(*numbers: int, key: Key | None = None) -> Wanted:
    jobs = []
    for number in numbers:
        command = a_job(number, labels={"run": "7"})
        new = store.new_job(job_view.accepted(command), job_view.spec_document(command.spec))
        jobs.append((new, Message(f"m-{number}", "a.type", "an.exchange", "a.key", b"{}", "application/json")))
    return Wanted(CALLER, key, f"answer-{numbers[0]}".encode(), jobs)


async def test_what_is_wanted_at_one_moment_is_one_transaction_and_its_commands_leave_in_order(world: World) -> None:
    assert await world.keep(*(wanted(number) for number in range(1, 31))) == [None] * 30
    assert world.store.transactions == 1
    assert all([await world.there(number) for number in range(1, 31)])
    assert await world.sent() == [f"m-{number}" for number in range(1, 31)]


async def test_a_lonely_one_is_kept_at_once(world: World) -> None:
    assert await world.keeping.keep(wanted(1)) is None
    assert await world.keeping.keep(wanted(2)) is None
    assert world.store.transactions == 2


async def test_no_transaction_is_larger_than_it_may_be_and_a_batch_is_not_divided(world: World) -> None:
    most = keeping.MOST_JOBS
    singles = [wanted(number) for number in range(1, most + 3)]
    assert await world.keep(*singles, wanted(*range(1000, 1000 + 2 * most))) == [None] * (most + 3)
    assert world.store.transactions == 3


async def test_an_answer_without_jobs_is_kept_under_its_key(world: World) -> None:
    nothing = Wanted(CALLER, Key("k-1", "hash"), b"nothing was taken", ())
    assert await world.keep(nothing) == [None]
    assert await world.keep(wanted(1, key=Key("k-1", "hash"))) == [b"nothing was taken"]


async def test_requests_with_the_same_key_are_one_and_another_request_with_it_is_told_alone(world: World) -> None:
    key, other = Key("k-1", "hash"), Key("k-1", "another hash")
    outcomes = await world.keep(wanted(1, key=key), wanted(2, key=key), wanted(3, key=other), wanted(4))
    assert outcomes[:2] == [None, b"answer-1"]
    assert isinstance(outcomes[2], Conflict)
    assert outcomes[3] is None
    assert [await world.there(number) for number in (1, 2, 3, 4)] == [True, False, False, True]
    assert await world.sent() == ["m-1", "m-4"]


async def test_one_that_the_store_refuses_fails_alone(world: World) -> None:
    assert await world.keep(wanted(1)) == [None]
    outcomes = await world.keep(wanted(2), wanted(1), wanted(3))
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert isinstance(outcomes[1], Exception)
    assert [await world.there(number) for number in (2, 3)] == [True, True]
    assert await world.sent() == ["m-1", "m-2", "m-3"]


async def test_while_the_store_is_away_all_are_told_so_and_it_is_asked_once(world: World) -> None:
    world.store.away = True
    outcomes = await world.keep(wanted(1), wanted(2))
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert world.store.transactions == 1


async def test_one_that_does_not_wait_any_more_keeps_nobody_from_his_answer(world: World) -> None:
    impatient = asyncio.create_task(world.keeping.keep(wanted(1)))
    patient = asyncio.create_task(world.keeping.keep(wanted(2)))
    asyncio.get_running_loop().call_soon(impatient.cancel)
    assert await patient is None
    assert impatient.cancelled()
