"""The life of one attempt: from what was seen at its site to its status and events (architecture, section 3).

Pure. `observe` folds sights, asks what they mean by now, and lets `TABLE` say whether the attempt moves. The watcher
calls it line by line; the diagram in the docs is drawn from `TABLE`. What happens to the job is the scheduler's.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from services.monitor import evidence as seeing
from services.monitor.evidence import AllocationEvidence, Evidence
from services.monitor.verdicts import Verdict, nomad_says, verdict
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
from shared.contracts.reasons import Reason, ReasonCode, because
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


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence means now. `says` tells one telling of a status from the next."""

    status: AttemptStatus
    allocation: AllocationEvidence | None = None
    verdict: Verdict | None = None
    reason: Reason | None = None
    says: str = ""


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
    return _step(record, _gone(record.evidence))


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


# -- what the evidence means --------------------------------------------------------------------------------------


def find(evidence: Evidence) -> Finding | None:
    """What is true of the attempt now; None where the evidence does not say (dead and nobody saw how, or all ended and
    the job was not seen yet, so that nobody knows whether Nomad goes on)."""
    ended = _ended(evidence)
    if ended is not None:
        return ended
    active = [allocation for allocation in evidence.current if not allocation.ended]
    if active and evidence.job.closed:
        return _gone(evidence)
    if active:
        return _active(active[-1])
    if evidence.allocations and evidence.job.service is None:
        return None
    if evidence.allocations or not evidence.job.dead:
        return _pending(evidence)
    if evidence.job.stop:
        reason = because(ReasonCode.STOPPED, "The attempt was stopped before it ran.")
        return Finding(AttemptStatus.STOPPED, None, Verdict(AttemptStatus.STOPPED, reason), reason)
    return None


def _gone(evidence: Evidence) -> Finding:
    lost = Verdict(AttemptStatus.LOST, because(ReasonCode.VANISHED))
    return Finding(AttemptStatus.LOST, evidence.newest, lost, lost.reason, ReasonCode.VANISHED)


def _active(allocation: AllocationEvidence) -> Finding:
    match allocation.client:
        case "running":
            return Finding(AttemptStatus.RUNNING, allocation, says=allocation.id)
        case "unknown":
            return Finding(AttemptStatus.DISCONNECTED, allocation, says=allocation.id)
    return Finding(AttemptStatus.STARTING, allocation, says=allocation.id)


def _pending(evidence: Evidence) -> Finding:
    reason = evidence.blocking.reason
    return Finding(AttemptStatus.PENDING, None, None, reason, reason.code if reason else "")


def _ended(evidence: Evidence) -> Finding | None:
    """The outcome, when nothing of the attempt runs any more and Nomad will not start anything either."""
    if evidence.job.service is False:
        lost = next((one for one in evidence.allocations.values() if one.client == "lost"), None)
        if lost is not None:
            return _outcome(lost)
    current = evidence.current
    if not current or not all(allocation.ended for allocation in current):
        return None
    deciding = _deciding(current) if evidence.job.service is False else current[-1]
    return None if _may_come_again(evidence, deciding) else _outcome(deciding)


_PRECEDENCE: Final = (_S.LOST, _S.FAILED, _S.STOPPED, _S.SUCCEEDED)


def _deciding(allocations: Sequence[AllocationEvidence]) -> AllocationEvidence:
    """Of several parts of a batch the worst one decides."""
    return min(allocations, key=lambda allocation: _PRECEDENCE.index(verdict(allocation).status))


def _may_come_again(evidence: Evidence, allocation: AllocationEvidence) -> bool:
    """Whether Nomad still means to run it: it keeps services up, and may reschedule what failed by itself.

    Our batch work is never rescheduled; then Nomad calls the job dead in the very line that ends the allocation. What
    was drained, evicted, stopped or out of time is over for a batch whatever Nomad has in mind: the platform decides.
    """
    if evidence.job.service is False:
        failed = verdict(allocation)
        by_itself = failed.status is AttemptStatus.FAILED and failed.failure not in _TAKEN
        return by_itself and not evidence.job.dead and evidence.job.index >= (allocation.ended_index or 0)
    return not evidence.job.dead


_TAKEN: Final = frozenset({FailureClass.DRAINED, FailureClass.EVICTED, FailureClass.TIMEOUT})


def _outcome(allocation: AllocationEvidence) -> Finding:
    judged = verdict(allocation)
    return Finding(judged.status, allocation, judged, judged.reason, allocation.id)


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
