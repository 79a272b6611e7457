"""The journal: what was confirmed is there after a crash, what was torn is not."""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.embedded.agent.disk import Journal


async def written(journal: Journal, *records: dict[str, Any]) -> None:
    done = asyncio.Event()
    journal.append([orjson.dumps(record) for record in records], done.set)
    await asyncio.wait_for(done.wait(), 5)


def numbers(directory: Path) -> list[int]:
    return [record["i"] for record in Journal(directory).load()]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_what_was_confirmed_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert list(journal.load()) == []
    await written(journal, {"i": 1}, {"i": 2})
    await written(journal, {"i": 3})
    await journal.close()
    assert numbers(tmp_path) == [1, 2, 3]


async def test_a_torn_line_is_cut_off_and_written_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    list(journal.load())
    await written(journal, {"i": 1})
    await journal.close()
    with (tmp_path / "journal-0.ndjson").open("ab") as file:
        file.write(b'{"i":2,"half')
    journal = Journal(tmp_path)
    assert [record["i"] for record in journal.load()] == [1]
    await written(journal, {"i": 3})
    await journal.close()
    assert numbers(tmp_path) == [1, 3]


async def test_callbacks_come_in_order_and_after_the_write(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    list(journal.load())
    order: list[int] = []
    done = asyncio.Event()
    for number in range(20):
        journal.append([orjson.dumps({"i": number})], lambda number=number: order.append(number))  # type: ignore[misc]
    journal.append((), done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert order == list(range(20))
    assert numbers(tmp_path) == order
    await journal.close()


async def test_a_snapshot_takes_the_place_of_what_was_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path, snapshot_bytes=10)
    list(journal.load())
    await written(journal, {"i": 1}, {"i": 2})
    journal.fold([["eval", {"ID": "e"}, None]], 2)
    await written(journal, {"i": 3})
    await journal.close()
    assert names(tmp_path) == ["journal-1.ndjson", "snapshot-1.ndjson"]
    assert [(r["i"], r.get("t")) for r in Journal(tmp_path).load()] == [(2, "Snapshot"), (3, None)]


async def test_a_crash_before_the_snapshot_is_whole_costs_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    list(journal.load())
    await written(journal, {"i": 1})
    await journal.close()
    (tmp_path / "snapshot-1.tmp").write_bytes(b'{"i":')
    (tmp_path / "journal-1.ndjson").write_bytes(b'{"i":2}\n')
    assert numbers(tmp_path) == [1, 2]


async def test_a_snapshot_that_cannot_be_written_costs_nothing_and_the_next_one_is_tried(tmp_path: Path) -> None:
    journal = Journal(tmp_path, snapshot_bytes=5)
    list(journal.load())
    await written(journal, {"i": 1})
    (tmp_path / "snapshot-1.tmp").mkdir()  # in its way
    journal.fold([["eval", {"ID": "e"}, None]], 1)
    await written(journal, {"i": 2})
    await journal.folded()
    assert numbers(tmp_path) == [1, 2]
    await journal.settled()
    assert journal.wants_snapshot
    journal.fold([["eval", {"ID": "e"}, None]], 2)
    await journal.close()
    assert [(r["i"], r.get("t")) for r in Journal(tmp_path).load()] == [(2, "Snapshot")]


async def test_a_disk_that_fails_is_told_and_nothing_is_confirmed(tmp_path: Path) -> None:
    told: list[OSError] = []
    journal = Journal(tmp_path, on_failure=told.append)
    list(journal.load())
    os.close(journal._file)  # the disk is gone
    confirmed: list[int] = []
    journal.append([b"{}"], lambda: confirmed.append(1))
    await journal.settled()
    assert (len(told), confirmed) == (1, [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.append([b"{}"], lambda: None)
