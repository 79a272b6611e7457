"""All events of a job in order. From our log while it holds them all, else from their owners, who keep them longer."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson

from services.gateway import event_log, job_view
from services.gateway.job_view import JobView
from shared.contracts.questions import EventsAnswer
from shared.contracts.reasons import Verdict
from shared.errors import NotFound
from shared.ports import Store
from shared.runtime.questions import Questions

_MOST = 10_000


class Timelines:
    """Collects timelines."""

    def __init__(self, store: Store, scheduler: Questions, monitor: Questions) -> None:
        self._store = store
        self._scheduler = scheduler
        self._monitor = monitor

    async def of(self, view: JobView) -> list[dict[str, Any]]:
        """The timeline of a job, from its acceptance on. Raises Unavailable when an owner must be asked and is away."""
        job_id = str(view.id)
        entries = await self._store.read_long(lambda connection: event_log.after(connection, 0, _MOST, job_id))
        events = [orjson.loads(entry.body) for entry in entries]
        if not _whole(view, events):
            events = in_order([event for series in _series(view) for event in await self._ask(job_id, series)])
        return [accepted(view), *(item(event) for event in events)]

    async def _ask(self, job_id: str, series: int) -> list[dict[str, Any]]:
        owner = self._monitor if series else self._scheduler
        params = {"after": 0, "attempt": series}
        try:
            answer = await owner.ask("GET", f"/internal/jobs/{job_id}/events", EventsAnswer, params=params)
        except NotFound:
            return []
        return list(answer.events)


def _series(view: JobView) -> range:
    return range(len(view.attempts) + 1)


def _whole(view: JobView, events: Iterable[dict[str, Any]]) -> bool:
    """Whether the log has every event that the view was folded from."""
    counts = dict.fromkeys(_series(view), 0)
    for event in events:
        series = 0 if event["type"].startswith("eu.serai.job.") else int(event["attempt"])
        counts[series] = counts.get(series, 0) + 1
    return all(counts[series] >= job_view.applied(view, series) for series in _series(view))


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several series merged by time; within a series the sequence decides, never a clock."""
    latest: dict[tuple[str, str], str] = {}
    keyed = []
    for event in sorted(events, key=lambda event: event["sequence"]):
        series = (event["type"].split(".")[2], "" if ".job." in event["type"] else str(event["attempt"]))
        latest[series] = max(latest.get(series, ""), event["time"])
        keyed.append((latest[series], event))
    return [event for _, event in sorted(keyed, key=lambda pair: pair[0])]


def item(event: dict[str, Any]) -> dict[str, Any]:
    """A CloudEvent as a line of the timeline."""
    data = event["data"]
    kind = event["type"].removeprefix("eu.serai.").rpartition(".v")[0]
    rest = {name: value for name, value in data.items() if name not in _TOLD}
    return {
        "id": event["id"], "time": event["time"], "type": kind,
        "attempt": int(data.get("attempt", 0)), "sequence": data["sequence"], "site": data.get("site"),
        "reason": data.get("reason"), "cause": event.get("cause"), "data": rest,
    }  # fmt: skip


def last_verdicts(items: Sequence[dict[str, Any]]) -> tuple[Verdict, ...]:
    """Every site's verdict as the newest event of a timeline has them: when the job was placed, or was given up."""
    for each in reversed(items):
        found = each["data"].get("verdicts") or each["data"].get("receipt")
        if found:
            return tuple(Verdict.model_validate(verdict) for verdict in found)
    return ()


_TOLD = frozenset({"job_id", "vo", "owner", "name", "sequence", "attempt", "site", "reason"})


def accepted(view: JobView) -> dict[str, Any]:
    """The first line: the 202, which is a row of ours and no event."""
    id: UUID = view.id
    return {
        "id": str(id), "time": view.created_at.isoformat(), "type": "job.accepted", "attempt": 0, "sequence": 0,
        "site": None, "reason": None, "cause": None, "data": {},
    }  # fmt: skip
