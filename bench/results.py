"""What a benchmark reports, and the file that keeps it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- figures: written by `make bench` -->"
END: Final = "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `ratio` is `value / denominator`, both taken in the same run; `method` lets anyone repeat it.

    `spread` is the least and the greatest of the rounds whose median `value` is. `goal` bounds the ratio if there is a
    denominator, else the value: ("at least", 0.6); a figure without one is told for what it is.
    """

    name: str
    value: float
    unit: str
    method: str
    denominator: float | None = None
    denominator_is: str = ""
    spread: tuple[float, float] | None = None
    goal: tuple[str, float] | None = None
    measured_ratio: float | None = None
    """Median of the rounds' ratios, where rounds alternate; None = value / denominator."""

    @property
    def ratio(self) -> float | None:
        if not self.denominator:
            return None
        return round(self.measured_ratio or self.value / self.denominator, 3)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        bound, limit = self.goal
        seen = self.value if self.ratio is None else self.ratio
        return seen >= limit if bound == "at least" else seen <= limit

    def as_row(self) -> dict[str, object]:
        row = asdict(self)
        row.pop("measured_ratio")
        goal = (
            None
            if self.goal is None
            else f"{'ratio ' if self.ratio is not None else ''}{self.goal[0]} {self.goal[1]:g}"
        )
        return row | {"ratio": self.ratio, "goal": goal, "met": self.met}


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        return float("nan")
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def of_rounds(
    name: str, rounds: Sequence[float], unit: str, method: str, *, against: Sequence[float] = (),
    denominator_is: str = "", goal: tuple[str, float] | None = None,
) -> Result:  # fmt: skip
    """The median of several rounds with its spread; `against` are the denominator's, round by round."""
    ratios = [value / other for value, other in zip(rounds, against, strict=True)] if against else []
    return Result(
        name, median(rounds), unit, method, denominator=median(against) if against else None,
        denominator_is=denominator_is, spread=(min(rounds), max(rounds)), goal=goal,
        measured_ratio=median(ratios) if ratios else None,
    )  # fmt: skip


def keep(results: list[Result], file: Path, at: datetime) -> None:
    """Write the figures of a run that ended at `at`; those of names that were not measured this time stay."""
    rows = {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    rows |= {result.name: result.as_row() | {"measured_at": f"{at:%Y-%m-%dT%H:%M}Z"} for result in results}
    file.write_text(json.dumps(list(rows.values()), indent=2) + "\n")


def table(results: Sequence[Result]) -> str:
    """For people: one line a figure."""
    lines = [f"{'figure':<58} {'value':>10} {'unit':<14} {'spread':<21} {'ratio':>6}  goal"]
    for result in results:
        row = result.as_row()
        spread = "" if result.spread is None else f"{_short(result.spread[0])} to {_short(result.spread[1])}"
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        goal = "" if result.goal is None else f"{row['goal']}: {'met' if result.met else 'MISSED'}"
        lines.append(
            f"{result.name:<58} {_short(result.value):>10} {result.unit:<14} {spread:<21} {ratio:>6}  {goal}".rstrip()
        )
    return "\n".join(lines)


def write_into(document: Path, file: Path, machine: str) -> None:
    """Put the kept figures, as a table, between the two marks of a document; nothing when it has no marks."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        rows = json.loads(file.read_text())
        times = sorted({row["measured_at"] for row in rows})
        when = times[0] if len(times) == 1 else f"in {len(times)} runs, {times[0]} to {times[-1]}"
        document.write_text(f"{before}{begin}\n\nMeasured {when}, {machine}\n\n{_markdown(rows)}\n\n{end}{after}")


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| figure | value | spread | against | goal |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        spread = "" if row["spread"] is None else f"{_short(row['spread'][0])} to {_short(row['spread'][1])}"
        against = "" if row["ratio"] is None else f"{row['ratio']:.2f} of {row['denominator_is']}"
        goal = "" if row["goal"] is None else f"{row['goal']}: {'met' if row['met'] else '**missed**'}"
        lines.append(f"| {row['name']} | {_short(row['value'])} {row['unit']} | {spread} | {against} | {goal} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
