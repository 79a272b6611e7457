"""Replays recordings of a real Nomad through the adapter's parser into the monitor's pure core.

The recordings' jobs are not ours: their ids and meta are mapped to attempts here, everything else is the product's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson

from services.monitor import attempts, watching
from services.monitor.attempts import AttemptRecord, Identity
from services.monitor.store import record_from, row_of
from shared.adapters.nomad.parsing import line_of
from shared.contracts.events import AttemptDisconnected, AttemptEnded, AttemptEvent, AttemptFailed, AttemptLost
from shared.engine import JobSeen, Line
from shared.ids import AttemptId

FOLDER = Path(__file__).parents[3] / "recordings"
NAMES = sorted(file.name.removesuffix(".ndjson") for file in FOLDER.glob("*.ndjson") if ".reconnect" not in file.name)


@cache
def lines(name: str) -> tuple[Line, ...]:
    """All lines of a recording; what came after its reconnect follows."""
    files = [FOLDER / f"{name}.ndjson", *sorted(FOLDER.glob(f"{name}.reconnect*.ndjson"))]
    parsed = (line_of(raw) for file in files for raw in file.read_bytes().splitlines())
    return tuple(line for line in parsed if isinstance(line, Line))


def as_ours(nomad_id: str) -> AttemptId:
    """Any Nomad job id as an attempt of ours."""
    return AttemptId(uuid5(NAMESPACE_URL, nomad_id), 1)


@dataclass
class Replay:
    """A monitor that sees one cluster: feeds lines, keeps records as rows, collects the events told of each job."""

    records: dict[AttemptId, AttemptRecord] = field(default_factory=dict)
    names: dict[AttemptId, str] = field(default_factory=dict)
    told: dict[AttemptId, list[AttemptEvent]] = field(default_factory=dict)

    def feed(self, seen_lines: Iterable[Line]) -> "Replay":
        for line in seen_lines:
            for attempt, seen in watching.by_attempt(line.seen, as_ours).items():
                self._meet(attempt, seen)
                self._keep(attempt, *attempts.observe(self.records[attempt], seen))
                if self.records[attempt].in_doubt:
                    self._keep(attempt, *attempts.vanished(self.records[attempt]))
        return self

    def restarted(self) -> "Replay":
        """The monitor after its process was killed: what it knows, it knows from its store."""
        kept = {attempt: record_from(row_of(record)) for attempt, record in self.records.items()}
        return Replay(kept, dict(self.names), {attempt: list(events) for attempt, events in self.told.items()})

    def timeline(self) -> dict[str, list[Any]]:
        """The readable story of every job that was told anything of."""
        return {self.names[attempt]: [story(event) for event in events] for attempt, events in self.told.items()}

    def _meet(self, attempt: AttemptId, seen: Sequence[Any]) -> None:
        if attempt not in self.records:
            first = seen[0]
            self.names[attempt] = first.id if isinstance(first, JobSeen) else first.job_id
            self.records[attempt] = AttemptRecord(Identity(attempt, "vo", "site", "cluster", "default"))

    def _keep(self, attempt: AttemptId, record: AttemptRecord, events: tuple[AttemptEvent, ...]) -> None:
        self.records[attempt] = record
        for event in events:
            story_so_far = self.told.setdefault(attempt, [])
            assert event.sequence == len(story_so_far) + 1
            story_so_far.append(event)


def story(event: AttemptEvent) -> Any:
    """An event as one readable entry: its status, with what matters about it."""
    said: dict[str, Any] = {}
    if isinstance(event, AttemptFailed):
        said["failure"] = event.failure.value
    if isinstance(event, AttemptEnded):
        said |= {"exit_code": event.exit_code, "signal": event.signal, "nomad_says": event.nomad_says}
    if isinstance(event, AttemptLost) and event.vanished:
        said["vanished"] = True
    if isinstance(event, AttemptDisconnected):
        assert event.since is not None
        said["node"] = event.node
    if event.reason is not None and not isinstance(event, AttemptEnded):
        said |= {"reason": event.reason.code.value, "message": event.reason.message}
    said = {name: value for name, value in said.items() if value not in (None, "")}
    return {event.status.value: said} if said else event.status.value


def dumped(replay: Replay) -> bytes:
    """Everything that was told, to compare."""
    return orjson.dumps({replay.names[a]: [e.model_dump(mode="json") for e in es] for a, es in replay.told.items()})
