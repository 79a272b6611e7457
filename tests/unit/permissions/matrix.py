"""docs/permissions.md as data: the page that people read is the specification that tests ask."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "permissions.md"
COLUMNS = (
    "no token", "no VO", "other VO", "observer", "member", "owner", "operator", "manager", "service account",
    "site-operator", "admin", "running job",
)  # fmt: skip
"""Who asks. All but the first three, and the last three, are in the VO; `owner` is the member whose job it is,
and the running job is that job."""


@dataclass(frozen=True, slots=True)
class Row:
    """One route: what it needs, and what each who asks is answered."""

    service: str
    method: str
    path: str
    verb: str
    cells: tuple[str, ...]


def rows() -> Iterator[Row]:
    """The rows of all tables of routes, each under the heading of its service."""
    service = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"### (\w+)", line):
            service = heading[1]
        if row := re.fullmatch(r"\| `(\w+) ([^`]+)` \| ([\w.]+) \|(.*)\|", line):
            cells = tuple(cell.strip() for cell in row[4].split("|"))
            yield Row(service, row[1], row[2], row[3], cells)


def of_people() -> list[Row]:
    """Routes that people ask."""
    return [row for row in rows() if row.verb != "service"]


def of_services() -> list[Row]:
    """Routes that services ask each other."""
    return [row for row in rows() if row.verb == "service"]


def verb_table() -> dict[str, dict[str, bool]]:
    """The table of verbs: may a role do it?"""
    found: dict[str, dict[str, bool]] = {}
    names: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "verb":
            names = cells[1:]
        elif names and (verb := re.fullmatch(r"`([\w.]+)`", cells[0])) and len(cells) == len(names) + 1:
            found[verb[1]] = dict(zip(names, (cell == "yes" for cell in cells[1:]), strict=True))
    return found
