"""The attack table has every row of the design, and the tests that it names are there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.fast
HERE = Path(__file__).parent
ROWS = {"T": 12, "C": 12, "I": 5, "H": 10, "A": 8, "J": 13, "S": 5, "B": 9}
TABLE: dict[str, Any] = yaml.safe_load((HERE / "attacks.yaml").read_text())


def named(row: Any) -> list[str]:
    return list(row) if isinstance(row, list) else list(row.get("partly", []))


def test_every_row_is_there_in_order() -> None:
    assert list(TABLE) == [f"{group}{number}" for group, count in ROWS.items() for number in range(1, count + 1)]


@pytest.mark.parametrize("code", TABLE)
def test_a_row_names_tests_that_exist_or_says_what_is_missing(code: str) -> None:
    row = TABLE[code]
    assert named(row) or row["missing"]
    for each in named(row):
        file, name = each.split("::")
        assert re.search(rf"^(?:async )?def {name}\(", (HERE / file).read_text(), re.MULTILINE), each
