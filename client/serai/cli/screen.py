"""What goes where: data on standard output, talk on standard error, colour only for a terminal."""

import json
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.text import Text

from serai import grids
from serai.grids import Grid


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"


class Screen:
    """The two outputs of one command. `json`: standard output carries JSON and nothing else."""

    def __init__(self, form: Format, environment: Mapping[str, str]) -> None:
        self.json = form is Format.JSON
        self.out = Console(highlight=False, markup=False, _environ=environment)
        self.err = Console(stderr=True, highlight=False, markup=False, _environ=environment)

    def data(self, value: Any, grid: Grid) -> None:
        """The answer: as the platform's own JSON, or as a table."""
        if self.json:
            self.document(value)
        else:
            grids.show(self.out, grid)

    def document(self, value: Any) -> None:
        """JSON: indented for people, else one line."""
        text = json.dumps(value, ensure_ascii=False, indent=2 if self.out.is_terminal else None)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def line_of_json(self, value: Any) -> None:
        """One JSON object on one line, at once: for streams."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """One line of data."""
        self.out.print(Text(grids.visible(text)), soft_wrap=True)

    def say(self, text: str, style: str = "dim") -> None:
        """Talk, for people."""
        self.err.print(Text(grids.visible(text), style=style), soft_wrap=True)

    def raw(self, chunk: bytes, *, error: bool = False) -> None:
        """Bytes of a job, unchanged; with `json`, standard output stays clean and all goes to standard error."""
        target = sys.stderr if error or self.json else sys.stdout
        target.flush()
        target.buffer.write(chunk)
        target.buffer.flush()


def complain(words: str, advice: str | None) -> None:
    """An error, and what to type next."""
    console = Console(stderr=True, highlight=False, markup=False, no_color="NO_COLOR" in os.environ or None)
    console.print(Text(grids.visible(words), style="red"), soft_wrap=True)
    if advice:
        console.print(Text(f"  next: {advice}"), soft_wrap=True)
