"""The life of one attempt: from what was seen at its site to its status and events (architecture, section 3).

Pure. `observe` folds sights, asks what they mean by now, and lets `TABLE` say whether the attempt moves. The watcher
calls it line by line; the diagram in the docs is drawn from `TABLE`. What happens to the job is the scheduler's.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from services.monitor import evidence as seeing
from services.monitor.evidence import AllocationEvidence, Evidence
from services.monitor.findings import Finding, find, gone
from services.monitor.verdicts import nomad_says
from shared.contracts.events import (
    AttemptDisconnected,
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptLost,
    AttemptPending,
    AttemptRunning,
    AttemptStarting,
    AttemptStopped,
    AttemptSucceeded,
    EndpointAddress,
)
from shared.contracts.reasons import ReasonCode
from shared.engine import Seen
from shared.ids import AttemptId
from shared.job import ATTEMPT_OUTCOMES, AttemptStatus, FailureClass

_S = AttemptStatus
Before = AttemptStatus | None
LIVE: Final = (_S.PENDING, _S.STARTING, _S.RUNNING, _S.DISCONNECTED)

TABLE: Final[dict[tuple[Before, AttemptStatus], AttemptStatus]] = {
    (before, after): after for before in (None, *LIVE) for after in AttemptStatus
}
"""(before, found) -> after. From a live status every other can follow: quick jobs skip, services go back and forth
inside their site. A status that follows itself is told again only when what it says is another (`Finding.says`)."""

TOLD_LATE: Final[dict[tuple[Before, AttemptStatus], str]] = {
    (_S.LOST, after): "a late outcome after lost enters timeline and usage, once; the attempt stays lost"
    for after in (_S.SUCCEEDED, _S.FAILED, _S.STOPPED)
}

IGNORED: Final[dict[tuple[Before, AttemptStatus], str]] = {
    (before, after): "late: the first outcome stands"
    for before in sorted(ATTEMPT_OUTCOMES)
    for after in AttemptStatus
    if (before, after) not in TOLD_LATE
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What an attempt is, as the meta of its Nomad job says; it never changes."""

    attempt: AttemptId
    vo: str
    site: str
    cluster: str
    namespace: str
    outputs: tuple[tuple[str, str], ...] = ()
    """Declared outputs as (name, path inside the working folder)."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt as the monitor keeps it. `sequence` is the number of its last event, `says` what that one said."""

    identity: Identity
    status: AttemptStatus | None = None
    sequence: int = 0
    says: str = ""
    late: AttemptStatus | None = None
    """The outcome that came after `lost`, once it was told."""
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def live(self) -> bool:
        return self.status not in ATTEMPT_OUTCOMES

    @property
    def in_doubt(self) -> bool:
        """It lives by our record, but Nomad said that its job is deleted: ask whether it is there."""
        return self.live and self.evidence.job.deleted


def observe(record: AttemptRecord, seen: Iterable[Seen]) -> tuple[AttemptRecord, tuple[AttemptEvent, ...]]:
    """The record after one line (or one row of a listing) and the events to tell, numbered.

    All of `seen` happened in one transaction of Nomad and is judged together. Nothing new gives the same record.
    """
    evidence = record.evidence
    for one in seen:
        evidence = seeing.fold(evidence, one)
    if evidence is record.evidence and record.status is not None:
        return record, ()
    record = replace(record, evidence=evidence)
    found = find(evidence)
    return (record, ()) if found is None else _step(record, found)


def vanished(record: AttemptRecord) -> tuple[AttemptRecord, tuple[AttemptEvent, ...]]:
    """The record after proof that the site does not know the attempt any more."""
    if not record.live:
        return record, ()
    return _step(record, gone(record.evidence))


def found_again(record: AttemptRecord) -> AttemptRecord:
    """The record after proof that the site does know the attempt."""
    return replace(record, evidence=seeing.present_after_all(record.evidence))


def _step(record: AttemptRecord, found: Finding) -> tuple[AttemptRecord, tuple[AttemptEvent, ...]]:
    pair = (record.status, found.status)
    if pair in TOLD_LATE:
        if record.late is not None:
            return record, ()
        after = replace(record, sequence=record.sequence + 1, late=found.status)
        return after, (_event(after, found),)
    if pair in IGNORED or (record.status is found.status and record.says == found.says):
        return record, ()
    after = replace(record, sequence=record.sequence + 1, status=TABLE[pair], says=found.says)
    return after, (_event(after, found),)


# -- telling ------------------------------------------------------------------------------------------------------


def _event(record: AttemptRecord, found: Finding) -> AttemptEvent:
    identity, allocation = record.identity, found.allocation
    common = {
        "job_id": identity.attempt.job_id, "attempt": identity.attempt.number, "vo": identity.vo,
        "site": identity.site, "sequence": record.sequence, "reason": found.reason,
        "node": allocation.node or None if allocation else None, "allocation": allocation.id if allocation else None,
    }  # fmt: skip
    match found.status:
        case AttemptStatus.PENDING:
            return AttemptPending(**common)
        case AttemptStatus.STARTING:
            return AttemptStarting(**common)
        case AttemptStatus.RUNNING:
            return AttemptRunning(**common, endpoints=_endpoints(allocation))
        case AttemptStatus.DISCONNECTED:
            return AttemptDisconnected(**common, since=_since(allocation))
    return _ending(found, {**common, **_figures(found)})


def _ending(found: Finding, fields: dict[str, Any]) -> AttemptEnded:
    match found.status:
        case AttemptStatus.SUCCEEDED:
            return AttemptSucceeded(**fields)
        case AttemptStatus.STOPPED:
            return AttemptStopped(**fields)
        case AttemptStatus.LOST:
            gone = found.reason is not None and found.reason.code is ReasonCode.VANISHED
            return AttemptLost(**fields, vanished=gone)
    failure = found.verdict.failure if found.verdict else None
    return AttemptFailed(**fields, failure=failure or FailureClass.UNKNOWN)


def _figures(found: Finding) -> dict[str, Any]:
    task = found.verdict.task if found.verdict else None
    tasks = found.allocation.tasks if found.allocation else ()
    shown = task or (tasks[0] if tasks else None)
    return {
        "exit_code": task.exit_code if task else None,
        "signal": task.signal or None if task else None,
        "started_at": _moment(shown.started_at) if shown else None,
        "finished_at": _moment(shown.finished_at) if shown else None,
        "nomad_says": nomad_says(found.allocation, task) if found.allocation else "",
    }


def _endpoints(allocation: AllocationEvidence | None) -> tuple[EndpointAddress, ...]:
    ports = allocation.ports if allocation else ()
    return tuple(EndpointAddress(name=label, address=_address(host, port)) for label, host, port in ports)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _since(allocation: AllocationEvidence | None) -> datetime | None:
    if allocation is None or not allocation.modified_at:
        return None
    return datetime.fromtimestamp(allocation.modified_at / 1e9, UTC)


def _moment(text: str | None) -> datetime | None:
    """Go prints nanoseconds; microseconds are what we keep."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


# -- becoming known -----------------------------------------------------------------------------------------------

VO_KEY: Final = "serai_vo"
SITE_KEY: Final = "serai_site"
OUTPUTS_KEY: Final = "serai_outputs"


def is_ours(meta: Mapping[str, str]) -> bool:
    """Whether a Nomad job with this meta is an attempt of ours (a tombstone has neither VO nor site)."""
    return bool(meta.get(VO_KEY)) and bool(meta.get(SITE_KEY))


def identity_of(attempt: AttemptId, meta: Mapping[str, str], *, cluster: str, namespace: str) -> Identity:
    """The identity that the meta of a job of ours gives."""
    return Identity(attempt, meta[VO_KEY], meta[SITE_KEY], cluster, namespace, _outputs(meta.get(OUTPUTS_KEY, "")))


def _outputs(text: str) -> tuple[tuple[str, str], ...]:
    """A JSON list of {name, path}; none where somebody wrote something else there."""
    try:
        return tuple((str(row["name"]), str(row["path"])) for row in json.loads(text or "[]"))
    except (ValueError, TypeError, KeyError):
        return ()
