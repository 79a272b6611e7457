"""Decision records: numbered without gaps, of one form, one page, all in the index, none named that is not there."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]
HERE = ROOT / "docs" / "decisions"
RECORDS = sorted(file for file in HERE.glob("*.md") if file.name != "README.md")
PAGE_LINES = 50


def test_each_number_is_given_once() -> None:
    """Those who write at the same time have ranges of numbers, so some are never used."""
    numbers = [file.name[:3] for file in RECORDS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.name[:3])
def test_every_record_has_the_form(file: Path) -> None:
    text = file.read_text()
    assert text.startswith(f"# {file.name[:3]} ")
    places = [text.find(f"**{part}.**") for part in ("Context", "Decision", "Consequences")]
    assert -1 not in places and places == sorted(places)
    assert len(text.splitlines()) <= PAGE_LINES


def test_the_index_names_every_record_with_its_title() -> None:
    named = re.findall(r"^\| (\d{3}) \| \[(.+)\]\((.+)\) \|", (HERE / "README.md").read_text(), re.M)
    assert named == [(file.name[:3], file.read_text().splitlines()[0][6:], file.name) for file in RECORDS]


def test_whoever_names_a_record_finds_it() -> None:
    lost = [
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("services", "shared", "client", "docs", "bench", "tests")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".md") and file.is_file()
        for name in re.findall(r"docs/decisions/(\d{3}[\w-]*\.md)", file.read_text())
        if not (HERE / name).exists()
    ]
    assert lost == []
