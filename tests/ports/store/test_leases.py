"""Leases: one holder at a time, a fencing number that grows with each change, and writes that check it."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from shared.errors import Conflict
from shared.ports import Lease, Store
from shared.runtime.leases import check_lease, holder_of
from tests.builders import NOON
from tests.ports.store.database import Database, numbers, put


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def taken(store: Store, holder: str, seconds: float, *, ttl_s: float = 10, name: str = "leader") -> Lease:
    lease = await store.acquire_lease(name, holder, ttl_s, at(seconds))
    assert lease is not None
    return lease


async def write(store: Store, lease: Lease, number: int) -> None:
    """What a leader does: check and write in one transaction."""

    def body(connection: Connection) -> None:
        check_lease(connection, lease)
        put(number)(connection)

    await store.transact(body)


async def test_a_new_lease_is_given_with_its_end(database: Database) -> None:
    lease = await taken(await database.open(), "one", 0)
    assert (lease.name, lease.holder, lease.until) == ("leader", "one", at(10))


async def test_a_good_lease_is_refused_to_others_and_renewed_with_the_same_fence(database: Database) -> None:
    one, two = await database.copies()
    first = await taken(one, "one", 0)
    assert await two.acquire_lease("leader", "two", 10, at(9.9)) is None
    again = await taken(one, "one", 9)
    assert (again.fence, again.until) == (first.fence, at(19))
    assert await two.acquire_lease("leader", "two", 10, at(18.9)) is None


async def test_the_fence_grows_with_every_change_of_holder(database: Database) -> None:
    one, two = await database.copies()
    fences = [(await taken(one, "one", 0)).fence]
    for turn in range(1, 6):
        store, holder = ((one, "one"), (two, "two"))[turn % 2]
        fences.append((await taken(store, holder, turn * 11)).fence)
    assert fences == sorted(set(fences))


async def test_two_processes_of_one_name_are_two_holders(database: Database) -> None:
    one, two = await database.copies()
    first, second = holder_of("monitor"), holder_of("monitor")
    assert await one.acquire_lease("leader", first, 10, at(0)) is not None
    assert await two.acquire_lease("leader", second, 10, at(1)) is None


async def test_a_copy_that_was_killed_is_succeeded_by_its_next_life_at_once_with_a_new_fence(
    database: Database,
) -> None:
    store = await database.open()
    before = await taken(store, holder_of("monitor-1"), 0)
    after = await store.acquire_lease("leader", holder_of("monitor-1"), 10, at(1), succeeds="monitor-1")
    assert after is not None and after.fence == before.fence + 1
    with pytest.raises(Conflict):
        await write(store, before, 1)
    await write(store, after, 2)
    assert await store.read(numbers) == [2]


async def test_nobody_succeeds_a_copy_of_another_name(database: Database) -> None:
    store = await database.open()
    await taken(store, holder_of("monitor-11"), 0)
    for name in ("monitor-1", "monitor", ""):
        assert await store.acquire_lease("leader", holder_of(name), 10, at(1), succeeds=name) is None


async def test_an_old_holder_that_gets_it_back_has_a_new_fence(database: Database) -> None:
    store = await database.open()
    first = await taken(store, "one", 0)
    await taken(store, "two", 11)
    assert (await taken(store, "one", 22)).fence > first.fence + 1


async def test_a_released_lease_is_free_at_once(database: Database) -> None:
    one, two = await database.copies()
    first = await taken(one, "one", 0)
    await one.release_lease(first)
    second = await taken(two, "two", 0.1)
    assert second.fence > first.fence
    await one.release_lease(first)
    assert await one.acquire_lease("leader", "one", 10, at(0.2)) is None


async def test_leases_of_other_names_do_not_meet(database: Database) -> None:
    store = await database.open()
    assert (await taken(store, "one", 0)).fence == (await taken(store, "two", 0, name="other")).fence


async def test_of_many_that_want_it_one_gets_it(database: Database) -> None:
    copies = await database.copies(4)
    for turn in range(10):
        asked = (
            copy.acquire_lease("leader", f"{number} in turn {turn}", 10, at(11 * turn))
            for number, copy in enumerate(copies)
        )
        assert sum(lease is not None for lease in await asyncio.gather(*asked)) == 1


async def test_a_leader_that_slept_through_its_lease_cannot_write_when_it_wakes(database: Database) -> None:
    one, two = await database.copies()
    old = await taken(one, "one", 0)
    await write(one, old, 1)
    new = await taken(two, "two", 10.1)
    await write(two, new, 2)

    with pytest.raises(Conflict) as refused:
        await write(one, old, 3)
    assert refused.value.code == "lease_lost"
    assert await two.read(numbers) == [1, 2]


async def test_a_write_under_a_lease_and_a_change_of_holder_are_never_both_right(database: Database) -> None:
    """Whatever the order, nothing of the old holder is written behind the first write of the new one."""
    one, two = await database.copies()
    order: list[str] = []

    def write_as(lease: Lease, number: int, connection: Connection) -> None:
        check_lease(connection, lease)
        put(number)(connection)
        order.append(lease.holder)

    for turn in range(15):
        order.clear()
        old = await taken(one, f"old {turn}", 100 * turn)

        async def depose(turn: int = turn) -> None:
            new = await taken(two, f"new {turn}", 100 * turn + 11)
            await two.transact(lambda c: write_as(new, 1000 + turn, c))

        writes = [one.transact(lambda c, n=n, old=old, turn=turn: write_as(old, 2000 + 10 * turn + n, c))  # type: ignore[misc]
                  for n in range(5)]  # fmt: skip
        results = await asyncio.gather(*writes[:2], depose(), *writes[2:], return_exceptions=True)
        assert all(result is None or isinstance(result, Conflict) for result in results)
        assert order == sorted(order, reverse=True)


async def test_a_lease_outlives_its_store(database: Database) -> None:
    store = await database.open()
    lease = await taken(store, "one", 0)
    await store.close()
    store = await database.open()
    assert await store.acquire_lease("leader", "two", 10, at(5)) is None
    await write(store, lease, 1)
