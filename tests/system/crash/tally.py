"""The figures of the crash tests: points, lost, doubled. Shown at the end of a run by `tests/told.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.system.crash.oracle import Wrong


@dataclass
class Tally:
    """`points` = crashes that happened; `of` = how many there could have been."""

    name: str
    of: int = 0
    points: int = 0
    wrong: dict[str, list[Wrong]] = field(default_factory=dict)

    def count(self, where: str, crashed: bool, wrong: Sequence[Wrong]) -> None:
        """One crash, or a walk that its point was not met on, and what was wrong after it."""
        self.points += crashed
        if wrong:
            self.wrong[where] = list(wrong)

    def many(self, kind: str) -> int:
        """How many points at which something was `lost` or `doubled`."""
        return sum(any(each.kind == kind for each in wrong) for wrong in self.wrong.values())

    def __str__(self) -> str:
        lost, doubled = self.many("lost"), self.many("doubled")
        return f"{self.name}: {self.points} points of {self.of}, {lost} lost, {doubled} doubled"

    def details(self) -> str:
        """Every broken promise, by the point it followed."""
        return "\n".join(f"{where}: {'; '.join(map(str, wrong))}" for where, wrong in self.wrong.items())


TALLIES: list[Tally] = []
"""Of this run of pytest."""
