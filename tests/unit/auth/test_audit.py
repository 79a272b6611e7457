"""The audit log as a chain: whoever changes, leaves out, adds or reorders one record is found."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, update

from services.auth import audit, audit_store, tables
from services.auth.audit import GENESIS, AuditRow, Break, End
from shared.runtime.migrating import migrate
from tests.builders import ALICE, NOON
from tests.stores import open_store
from tests.unit.auth.world import Auth, FakeIssuer, auth

pytestmark = pytest.mark.fast
START = End(0, GENESIS)
ROW = AuditRow("q1", NOON, ALICE, "job.submit", "vo.x", True, "", 1)


def records(count: int) -> list[dict[str, Any]]:
    made, end = [], START
    for number in range(count):
        row = replace(ROW, question=f"q{number}", allowed=number % 3 > 0)
        made.append(audit.chained(audit_store._record(row), end))
        end = End(made[-1]["position"], made[-1]["hash"])
    return made


def test_a_whole_chain_holds_and_its_end_is_known() -> None:
    made = records(10)
    assert audit.verify(made, START) == End(10, made[-1]["hash"])
    assert audit.verify([], START) == START
    assert audit.verify(made[5:], End(5, made[4]["hash"])) == End(10, made[-1]["hash"])


CHANGES: dict[str, Any] = {
    "kind": "admin", "question": "q", "at": 1, "issuer": "x", "subject": "mallory", "verb": "x", "vo": None,
    "allowed": "no", "code": "x", "items": 9, "detail": "x", "previous": GENESIS, "hash": "f" * 64, "position": 99,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_field_of_one_record_is_found_there(name: str) -> None:
    made = records(10)
    made[6] = made[6] | {name: CHANGES[name]}
    found = audit.verify(made, START)
    assert isinstance(found, Break)
    assert found.position == 7


@given(st.integers(0, 19), st.sampled_from(["leave out", "double", "swap", "insert", "lose a field"]))
def test_records_that_are_missing_added_or_moved_are_found(at: int, how: str) -> None:
    made = records(20)
    match how:
        case "leave out":
            if at == 19:
                return
            del made[at]
        case "double":
            made.insert(at, made[at])
        case "swap":
            made[at], made[(at + 1) % 20] = made[(at + 1) % 20], made[at]
        case "insert":
            made.insert(at, made[at] | {"subject": "mallory"})
        case _:
            made[at] = {name: value for name, value in made[at].items() if name != "verb"}
    assert isinstance(audit.verify(made, START), Break)


def test_a_log_that_was_cut_at_its_end_is_told_by_its_known_head() -> None:
    made = records(10)
    assert audit.verify(made[:8], START) == End(8, made[7]["hash"])
    assert audit.verify(made[:8], START) != End(10, made[9]["hash"])


# -- in the store -------------------------------------------------------------------------------------------------


async def appended(running: Auth, *rows: AuditRow) -> None:
    await running.store.transact(partial(audit_store.append, decisions=rows))


async def verified(running: Auth) -> tuple[End | Break, End]:
    anchor, head = await running.store.read(audit_store.ends)
    rows = await running.store.read_long(partial(audit_store.read, after=anchor.position))
    return audit.verify(rows, anchor), head


async def test_what_is_read_back_from_the_store_verifies(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        await appended(running, ROW, replace(ROW, vo=None, allowed=False, code="not_in_vo", items=7))
        await appended(running, replace(ROW, detail='{"a":"ě"}', kind="admin"))
        end, head = await verified(running)
        assert end == head == End(3, head.hash)


async def test_a_row_that_is_changed_in_the_database_is_found(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        await appended(running, *[ROW] * 5)
        change = update(tables.audit).where(tables.audit.c.position == 3).values(subject="mallory")
        await running.store.transact(lambda connection: connection.execute(change) and None)
        found, _ = await verified(running)
        assert isinstance(found, Break)
        assert found.what == "record 3 was changed after it was written"


async def test_a_row_that_is_taken_out_of_the_database_is_found(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        await appended(running, *[ROW] * 5)
        await running.store.transact(
            lambda connection: connection.execute(delete(tables.audit).where(tables.audit.c.position == 2)) and None
        )
        found, _ = await verified(running)
        assert isinstance(found, Break)
        assert found.position == 2


async def test_old_records_go_from_the_old_end_only_and_the_rest_still_verifies(tmp_path: Path) -> None:
    async with auth(tmp_path, FakeIssuer()) as running:
        for day in range(5):
            await appended(running, replace(ROW, at=NOON + timedelta(days=day)))
        await running.store.transact(partial(audit_store.prune, before=NOON + timedelta(days=3)))
        anchor, head = await running.store.read(audit_store.ends)
        assert (anchor.position, head.position) == (3, 5)
        assert (await verified(running))[0] == head
        await running.store.transact(partial(audit_store.prune, before=NOON + timedelta(days=30)))
        assert (await verified(running))[0] == head, "nothing is left, and the chain goes on from there"
        await appended(running, replace(ROW, at=NOON + timedelta(days=40)))
        end, head = await verified(running)
        assert end == head
        assert head.position == 6


async def test_what_the_log_held_before_it_was_a_chain_is_its_beginning(tmp_path: Path) -> None:
    """A database of version 0001 with two decisions in it is brought to the newest version."""
    from services.auth.migrations.first_audit import first_audit

    store = await open_store(tmp_path / "auth.sqlite", None)
    old = {"question": "q", "at": 1, "issuer": "i", "subject": "s", "verb": "job.submit", "vo": None, "allowed": True,
           "code": "", "items": 1}  # fmt: skip

    def as_it_was(connection: Connection) -> None:
        from sqlalchemy import Column, MetaData, String, Table

        tables.metadata.create_all(connection, tables=[tables.signing_keys, tables.principals, tables.memberships])
        tables.metadata.create_all(connection, tables=list(tables.runtime.all))
        first_audit.create(connection)
        version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
        version.create(connection)
        connection.execute(insert(version), {"version_num": "0001"})
        connection.execute(insert(first_audit), [old, old | {"subject": "t", "allowed": False}])

    try:
        await store.read_long(lambda connection: connection.execute(select(1)) and None)
        await store.transact(as_it_was)
        await store.transact(lambda connection: migrate(connection, "services.auth.migrations") and None)
        rows = await store.read(partial(audit_store.read, after=0))
        assert [(row["subject"], row["allowed"]) for row in rows] == [("s", True), ("t", False)]
        assert audit.verify(rows, START) == (await store.read(audit_store.ends))[1]
    finally:
        await store.close()
