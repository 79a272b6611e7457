"""What a run of the examples shows: each example with what has become of it, a live table, timelines, the verdict.

On a terminal a table that changes in place; elsewhere one plain line for each step. `showcase.py` tells it what
happens.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serai import grids
from serai.expecting import Expected
from serai.grids import Grid
from serai.jobfile import JobFile
from serai.keeping import Kept
from serai.values import Event, Job

FRAME_S: Final = 0.1
"""Seconds between redraws of the ages on a terminal; states are redrawn as they come."""


@dataclass(slots=True)
class Example:
    """One folder: the job, what is expected of it, and what has become of it."""

    name: str
    file: JobFile
    expected: Expected
    handed_in: float = 0.0
    ended: float | None = None
    job: Job | None = None
    visited: str | None = None
    timeline: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Board:
    """The live table on a terminal; one plain line for each step elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._examples: list[Example] = []
        self._said: dict[str, str] = {}

    @contextmanager
    def live(self, examples: list[Example]) -> Iterator[None]:
        """While it is entered, a terminal shows the table."""
        self._examples = examples
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._table, refresh_per_second=1 / FRAME_S):
            yield

    def _table(self) -> Table:
        return grids.rich_table(table_of(self._examples, time.monotonic()))

    def moved(self, example: Example) -> None:
        """An example has another state: on a terminal the table shows it by itself."""
        job = example.job
        line = f"{example.name}: " + (f"{job.state}{f' at {job.site}' if job.site else ''}" if job else "not handed in")
        if not self._console.is_terminal and self._said.get(example.name) != line:
            self._said[example.name] = line
            self.say(f"{line} ({grids.span(time.monotonic() - example.handed_in)})")

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=not self._console.is_terminal)

    def outcome(self, example: Example, verdicts: Mapping[str, str], kept: Sequence[Kept]) -> None:
        """One example: how it ended, its timeline, why no site took it, where its files are, what differs."""
        self._console.print(self._heading(example), soft_wrap=True)
        if example.timeline:
            grids.show(self._console, grids.timeline_grid(example.timeline))
        for site, code in sorted(verdicts.items()):
            self.say(f"{site}: {code}")
        if kept:
            self.say(f"saved in {kept[0].path.parent}: {', '.join(map(str, kept))}")
        for problem in example.problems:
            self.say(f"not as expected: {problem}", "red")

    def _heading(self, example: Example) -> Text:
        job, took = example.job, grids.span((example.ended or time.monotonic()) - example.handed_in)
        line = Text.assemble(("\n" + example.name, "bold"))
        if job is not None:
            line.append("  ").append(job.state, style=grids.COLOURS.get(job.state, ""))
            line.append(f"{f' at {job.site}' if job.site else ''} after {took}, ")
        line.append("  " if job is None else "")
        return line.append("not as expected" if example.problems else "as expected", "red" if example.problems else "")

    def verdict(self, examples: list[Example]) -> int:
        """The last line, and the exit code."""
        wrong = [example for example in examples if example.problems]
        if wrong:
            names = ", ".join(example.name for example in wrong)
            self.say(f"\n{len(wrong)} of {len(examples)} examples did not end as expected: {names}", "red")
            return 1
        took = max((each.ended or 0) for each in examples) - min(each.handed_in for each in examples)
        self.say(f"\nAll {len(examples)} examples ended as expected, in {took:.1f} s.", "green")
        return 0


def table_of(examples: list[Example], now: float) -> Grid:
    """The live table: job, VO, site, state, how long."""
    rows = (
        (example.name, example.file.job.get("vo"), example.job.site if example.job else None,
         example.job.state if example.job else "", grids.span((example.ended or now) - (example.handed_in or now)))
        for example in examples
    )  # fmt: skip
    return Grid.of(("JOB", "VO", "SITE", "STATE", "HOW LONG"), rows)
