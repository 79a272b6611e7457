"""What a benchmark reports, and the file that keeps it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `ratio` is `value / denominator`, both taken in the same run; `method` lets anyone repeat it."""

    name: str
    value: float
    unit: str
    method: str
    denominator: float | None = None
    denominator_is: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.denominator else round(self.value / self.denominator, 3)

    def as_row(self) -> dict[str, object]:
        return asdict(self) | {"ratio": self.ratio}

    def __str__(self) -> str:
        against = (
            f"  ({self.ratio} of {self.denominator:,.6g}: {self.denominator_is})" if self.ratio is not None else ""
        )
        return f"{self.name:<58} {self.value:>12,.6g} {self.unit}{against}"


def keep(results: list[Result], file: Path) -> None:
    """Write the figures; those of names that were not measured this time stay."""
    rows = {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    rows |= {result.name: result.as_row() for result in results}
    file.write_text(json.dumps(list(rows.values()), indent=2) + "\n")


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
