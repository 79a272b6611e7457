"""What a measurement reports, and how the figures get into the file and the document."""

import json
from pathlib import Path

import pytest

from bench import results
from bench.results import Result, of_rounds
from tests.builders import NOON

pytestmark = pytest.mark.fast


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_a_goal_bounds_it() -> None:
    found = of_rounds("reads", [60, 10, 90], "1/s", "three rounds", against=[100, 100, 100], goal=("at least", 0.6))
    assert (found.value, found.ratio, found.met, found.spread) == (60, 0.6, True, (10, 90))
    assert of_rounds("reads", [50], "1/s", "one", against=[100], goal=("at least", 0.6)).met is False


def test_a_goal_without_a_denominator_bounds_the_value() -> None:
    assert Result("memory", 150, "MB", "once", goal=("at most", 200)).met is True
    assert Result("memory", 250, "MB", "once", goal=("at most", 200)).met is False
    assert Result("memory", 250, "MB", "once").met is None


def test_figures_that_were_not_measured_again_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results.keep([Result("a", 1, "s", "once"), Result("b", 2, "s", "once")], file, NOON)
    results.keep([Result("b", 3, "s", "again")], file, NOON)
    assert [(row["name"], row["value"]) for row in json.loads(file.read_text())] == [("a", 1), ("b", 3)]


def test_the_document_shows_the_figures_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    file, document = tmp_path / "results.json", tmp_path / "figures.md"
    document.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    results.keep([Result("memory", 250, "MB", "once", goal=("at most", 200))], file, NOON)
    for _ in range(2):
        results.write_into(document, file, "Here.")
    text = document.read_text()
    assert "| memory | 250 MB |  |  | at most 200: **missed** |" in text
    assert text.startswith(f"before\n{results.BEGIN}\n") and text.endswith(f"{results.END}\nafter\n")
    assert "old" not in text and text.count("memory") == 1
