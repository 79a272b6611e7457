"""What happened, told by witnesses that are not the services: files that jobs wrote, the agents, what clients read.

A job's command writes `start ATTEMPT NANOSECONDS PID` when it begins and `end ATTEMPT NANOSECONDS` when it is through.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

MARKS: Final = "MARKS"
"""The environment variable that names the file a job writes to."""
START: Final = 'echo "start $NOMAD_JOB_ID $(date +%s%N) $$" >> "$MARKS"'
END: Final = 'echo "end $NOMAD_JOB_ID $(date +%s%N)" >> "$MARKS"'


@dataclass(frozen=True, slots=True)
class Wrong:
    """A broken promise: something accepted was `lost`, or something was done twice (`doubled`)."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def lost(what: str) -> Wrong:
    return Wrong("lost", what)


def doubled(what: str) -> Wrong:
    return Wrong("doubled", what)


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a command; `ended` is None when it was killed."""

    attempt: str
    started: int
    pid: int
    ended: int | None


def runs_of(marks: Path) -> list[Run]:
    """Every start that a job wrote down, in order."""
    lines = [line.split() for line in marks.read_text().splitlines()] if marks.exists() else []
    ends: dict[str, list[int]] = defaultdict(list)
    for words in lines:
        if words[0] == "end":
            ends[words[1]].append(int(words[2]))
    starts = [words for words in lines if words[0] == "start"]
    return [
        Run(attempt, int(at), int(pid), ends[attempt].pop(0) if ends[attempt] else None)
        for _, attempt, at, pid in starts
    ]


def judge_runs(runs: Sequence[Run], expected: Sequence[bool]) -> list[Wrong]:
    """`expected`: for each attempt in order, whether its command comes to its end. No start twice, none at once."""
    counts = Counter(run.attempt for run in runs)
    wrong = [doubled(f"{attempt} ran {count} times") for attempt, count in counts.items() if count > 1]
    for one, next_one in pairwise(runs):
        if one.attempt != next_one.attempt and (one.ended or 0) > next_one.started:
            wrong.append(doubled(f"{next_one.attempt} began before {one.attempt} had ended"))
    if len(runs) > len(expected):
        wrong.append(doubled(f"{len(runs)} runs, {len(expected)} expected"))
    if len(runs) < len(expected):
        wrong.append(lost(f"{len(runs)} runs, {len(expected)} expected"))
    for run, ends in zip(runs, expected, strict=False):
        if (run.ended is not None) != ends:
            wrong.append(lost(f"{run.attempt} {'did not come' if ends else 'came'} to its end"))
    return wrong


def still_running(runs: Iterable[Run]) -> list[Wrong]:
    """Processes of the job that outlived its end."""
    return [doubled(f"{run.attempt} still runs (pid {run.pid})") for run in runs if _is_there(run.pid, run.attempt)]


def _is_there(pid: int, attempt: str) -> bool:
    """Whether the process is the job's still, and not another one that got its number."""
    try:
        os.kill(pid, 0)
        return attempt.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, PermissionError):
        return False


def judge_timeline(items: Sequence[dict[str, Any]], state: str) -> list[Wrong]:
    """Each series counts from 1 without holes, no event twice, and the job's own ends with `state`, once."""
    facts = [item for item in items if item["type"] != "job.accepted"]
    wrong = [doubled(f"event {id}") for id, count in Counter(item["id"] for item in facts).items() if count > 1]
    series: dict[tuple[str, int], list[int]] = defaultdict(list)
    for item in facts:
        own = item["type"].startswith("job.")
        series["job" if own else "attempt", 0 if own else item["attempt"]].append(item["sequence"])
    for name, numbers in series.items():
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            wrong.append(lost(f"events of {name}: {sorted(numbers)}"))
    ends = [item["type"] for item in facts if item["type"] == f"job.{state}"]
    if len(ends) != 1:
        wrong.append(Wrong("doubled" if ends else "lost", f"{len(ends)} events job.{state}"))
    return wrong


def judge_reader(heard: Sequence[str], items: Sequence[dict[str, Any]]) -> list[Wrong]:
    """What a reader of the event stream heard over all lives: every event of the job's own until its end, once."""
    wrong = [doubled(f"heard {id} {count} times") for id, count in Counter(heard).items() if count > 1]
    told = {item["id"] for item in items if item["type"].startswith("job.") and item["type"] != "job.accepted"}
    wrong += [lost(f"never heard of {id}") for id in sorted(told - set(heard))]
    strange = set(heard) - {item["id"] for item in items}
    return wrong + [doubled(f"heard {id}, which is not in the timeline") for id in sorted(strange)]


@dataclass(frozen=True, slots=True)
class Heard:
    """One event of a job (`series` 0) or of one of its attempts, as a subscriber got it."""

    id: str
    job_id: str
    series: int
    sequence: int


def judge_subscriber(heard: Sequence[Heard], job_id: str, items: Sequence[dict[str, Any]]) -> list[Wrong]:
    """A subscriber who is promised each event once: of this job every event of its timeline, each series in order."""
    mine = [each for each in heard if each.job_id == job_id]
    wrong = [doubled(f"heard {id} {count} times") for id, count in Counter(h.id for h in mine).items() if count > 1]
    return wrong + _judge_series(mine, items)


def judge_stream(heard: Sequence[Heard], job_id: str, items: Sequence[dict[str, Any]]) -> list[Wrong]:
    """The broker's stream is read at least once: doubles are known by their id, and without them nothing is amiss."""
    first: dict[str, Heard] = {}
    for each in heard:
        if each.job_id == job_id:
            first.setdefault(each.id, each)
    return _judge_series(list(first.values()), items)


def _judge_series(mine: Sequence[Heard], items: Sequence[dict[str, Any]]) -> list[Wrong]:
    series: dict[int, list[int]] = defaultdict(list)
    for each in mine:
        series[each.series].append(each.sequence)
    wrong = [
        lost(f"heard {name or 'the job'} as {numbers}")
        for name, numbers in series.items()
        if numbers != list(range(1, len(numbers) + 1))
    ]
    told = {item["id"] for item in items if item["type"] != "job.accepted"}
    return wrong + [lost(f"never heard {id}") for id in sorted(told - {each.id for each in mine})]


def judge_sites(placed: dict[str, Sequence[str]], job_id: str, most: int) -> list[Wrong]:
    """The sites' own lists of Nomad jobs: each attempt of a job is at one site, and there are not too many attempts."""
    mine = [attempt for attempts in placed.values() for attempt in attempts if attempt.startswith(job_id)]
    wrong = [doubled(f"{attempt} is at {count} sites") for attempt, count in Counter(mine).items() if count > 1]
    return wrong + ([doubled(f"attempts at the sites: {sorted(mine)}")] if len(set(mine)) > most else [])
