"""What a region keeps count of: jobs, allocations and nodes, each a row in Nomad's names and what follows from others.

Counts are kept as rows are written (`state.py`), so that a status or a node's room never needs a scan.
"""

from dataclasses import dataclass, field
from typing import Any

from .jobspec import Row
from .rows import thawed

JobKey = tuple[str, str]
"""Namespace and id."""


@dataclass(slots=True)
class Ask:
    """What an allocation takes from its node."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0
    ports: tuple[int, ...] = ()
    devices: dict[str, int] = field(default_factory=dict)

    def packed(self) -> list[Any]:
        """As kept in the journal."""
        return [self.cpu, self.memory, self.disk, list(self.ports), self.devices]

    @classmethod
    def unpacked(cls, raw: list[Any]) -> "Ask":
        """The opposite of `packed`."""
        return cls(raw[0], raw[1], raw[2], tuple(raw[3]), dict(raw[4]))


@dataclass(slots=True)
class Job:
    """A job row and what is counted about it, so that its status never needs a scan."""

    row: Row
    groups: list[Row] | None = None
    allocs: dict[str, None] = field(default_factory=dict)
    evals: dict[str, None] = field(default_factory=dict)
    live: int = 0
    open: int = 0
    versions: list[Row] = field(default_factory=list)
    deployment: str = ""
    """The active deployment's id."""
    finished_at: int = 0

    def task_groups(self) -> list[Row]:
        """The parsed groups; dropped when the job is dead and read again on demand."""
        if self.groups is None:
            self.groups = thawed(self.row["TaskGroups"]) or []
        return self.groups

    def group(self, name: str) -> Row | None:
        """One group by name."""
        return next((group for group in self.task_groups() if group["Name"] == name), None)

    def status(self) -> str:
        """Nomad's rule: running while anything is wanted and alive, pending while an evaluation is open, else dead."""
        if self.live or self.deployment:
            return "running"
        if self.open:
            return "pending"
        return "dead" if self.evals or self.allocs or self.row["Stop"] else "pending"


@dataclass(slots=True)
class Alloc:
    """An allocation row, the job version it belongs to and what it takes."""

    row: Row
    version: int
    ask: Ask


@dataclass(slots=True)
class Node:
    """A node row and what is taken on it by allocations that are not client-terminal."""

    row: Row
    cpu: int = 0
    memory: int = 0
    disk: int = 0
    ports: set[int] = field(default_factory=set)
    devices: dict[str, int] = field(default_factory=dict)
    allocs: dict[str, None] = field(default_factory=dict)

    def take(self, ask: Ask, sign: int) -> None:
        """Add (1) or give back (-1) an allocation's share."""
        self.cpu += sign * ask.cpu
        self.memory += sign * ask.memory
        self.disk += sign * ask.disk
        for name, count in ask.devices.items():
            self.devices[name] = self.devices.get(name, 0) + sign * count
        if sign > 0:
            self.ports.update(ask.ports)
        else:
            self.ports.difference_update(ask.ports)
