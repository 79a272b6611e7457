"""Which points are crashed at: all that a path touches, or a part of them that is the same each time. Pure."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.system.crash.crashing import Point

_ONLY_LOOKS: Final = re.compile(r"\.(read|read_long|ready|namespaces|listing) by ")
"""A crash around a call that changes nothing is mostly a crash between two others: taken last into a sample."""


PARTS: Final = 12
"""Of a run at all points: each a test of a few minutes, for as many processes as there are."""


@dataclass(frozen=True, slots=True)
class Part:
    """Points belong to parts by checksum: the same in every process, whatever calls it came by."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number + 1} of {self.of}"

    def has(self, point: Point) -> bool:
        return _checksum(point) % self.of == self.number


def points_of(calls: Sequence[tuple[str, int]]) -> list[Point]:
    """Before and after each call."""
    return [Point(call, number, after) for call, number in calls for after in (False, True)]


def sample(points: Sequence[Point], most: int) -> list[Point]:
    """Up to `most`: of every call that changes something one before any call's second, chosen by checksum."""
    rounds: dict[tuple[str, bool], int] = {}
    ranked: list[tuple[tuple[bool, int, int], Point]] = []
    for point in sorted(points, key=_checksum):
        group = point.call, point.after
        rounds[group] = turn = rounds.get(group, 0) + 1
        ranked.append(((_ONLY_LOOKS.search(point.call) is not None, turn, _checksum(point)), point))
    return [point for _, point in sorted(ranked)[:most]]


def _checksum(point: Point) -> int:
    return zlib.crc32(str(point).encode())
