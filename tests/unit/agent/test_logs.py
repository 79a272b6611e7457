"""Log files: where a reader starts, and rotation under a task that keeps writing."""

from pathlib import Path

import pytest

from services.embedded.agent.logs import LogQuery, log_files, rotate, start_at


def query(origin: str, offset: int) -> LogQuery:
    return LogQuery("main", "stdout", origin, offset, follow=False, plain=False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "main.stdout.2").write_text("0123456789")
    (tmp_path / "main.stdout.10").write_text("abcde")
    (tmp_path / "main.stderr.0").write_text("other")
    (tmp_path / "main.stdout.10.tmp").write_text("no log")
    return log_files(tmp_path, "main", "stdout")


def test_files_are_in_order_of_their_numbers(files: list[Path]) -> None:
    assert [path.name for path in files] == ["main.stdout.2", "main.stdout.10"]


@pytest.mark.parametrize(
    ("origin", "offset", "place"),
    [
        ("start", 0, (0, 0)),
        ("start", 12, (1, 2)),
        ("start", 99, (1, 89)),
        ("end", 3, (1, 2)),
        ("end", 7, (0, 8)),
        ("end", 0, (0, 0)),
        ("end", 99, (0, 0)),
    ],
)
def test_where_reading_starts(files: list[Path], origin: str, offset: int, place: tuple[int, int]) -> None:
    assert start_at(files, query(origin, offset)) == place


def test_a_writer_goes_on_through_rotations(tmp_path: Path) -> None:
    with (tmp_path / "main.stdout.0").open("ab", buffering=0) as task:
        for turn in range(5):
            task.write(b"%d" % turn * 10)
            rotate(tmp_path, "main", "stdout", 10, 3)
        task.write(b"end")
    found = [path.read_bytes() for path in log_files(tmp_path, "main", "stdout")]
    assert found == [b"3" * 10, b"4" * 10, b"end"]
