"""What users see of a job, folded from its events. Pure: (view, event) -> view.

Every series of events (the job's own, and each attempt's) counts from 1 without holes, so a late or repeated event is
recognised and a missing one is noticed. Final states never change, and an older attempt never moves the job.
"""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.commands import Principal, SubmitJob
from shared.contracts.events import (
    AttemptEnded,
    AttemptEvent,
    AttemptRunning,
    EndpointAddress,
    JobCancelled,
    JobEnded,
    JobEvent,
    JobProgress,
)
from shared.contracts.reasons import Reason
from shared.job import FINAL_JOB_STATES, AttemptStatus, JobKind, JobSpec, JobState


class View(BaseModel):
    """Base of what is shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class AttemptView(View):
    """One attempt: where it went and what became of it. `status` is null until the site has told of it."""

    number: int
    sequence: int = Field(default=0, description="The newest event of this attempt that is shown here.")
    site: str | None = None
    status: AttemptStatus | None = None
    node: str | None = None
    allocation: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    endpoints: tuple[EndpointAddress, ...] = ()


class JobSummary(View):
    """A job as lists show it. Times are RFC 3339, UTC."""

    id: UUID
    name: str
    vo: str
    owner: Principal
    kind: JobKind
    state: JobState
    site: str | None = Field(default=None, description="Where it is, or was last.")
    attempt: int = Field(default=0, description="The current attempt; 0 before the first.")
    version: int = Field(default=1, description="Grows with every change; the ETag.")
    sequence: int = Field(default=0, description="The newest of the job's own events that is shown here.")
    priority: int
    labels: dict[str, str]
    reason: Reason | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    cancel_requested_at: datetime | None = None
    confirmed: bool = Field(default=True, description="False when a cancelled job's site never confirmed the stop.")
    endpoints: tuple[EndpointAddress, ...] = Field(default=(), description="Where a running service answers.")


class ProgressView(View):
    """What the task of an attempt said of itself last."""

    attempt: int
    at: datetime
    fraction: float | None = None
    message: str = ""
    results: dict[str, float | int | bool | str] = Field(default={}, description="Small figures.")


class JobView(JobSummary):
    """A job with its attempts and what was asked for; values of `env` and contents of `files` are at `/spec`."""

    attempts: tuple[AttemptView, ...] = ()
    progress: ProgressView | None = Field(default=None, description="Null until the present attempt tells of itself.")
    spec: dict[str, Any] = Field(description="What was asked for; `env` lists names, `files` paths and sizes.")


class Standing(StrEnum):
    """How an event stands to what is shown already."""

    NEXT = "next"
    SEEN = "seen"
    EARLY = "early"


def accepted(command: SubmitJob) -> JobView:
    """The view of a job from the moment of its 202."""
    spec = command.spec
    return JobView(
        id=command.job_id, name=spec.name, vo=spec.vo, owner=command.owner, kind=spec.kind, state=JobState.ACCEPTED,
        priority=spec.priority, labels=spec.labels, created_at=command.submitted_at, updated_at=command.submitted_at,
        spec=told_spec(spec),
    )  # fmt: skip


def told_spec(spec: JobSpec) -> dict[str, Any]:
    """The part of a spec that everyone who sees the job may see: no values of `env`, no contents of `files`."""
    told = spec.model_dump(mode="json", exclude={"name", "vo", "kind", "priority", "labels", "env", "files"})
    files = [
        {"path": file.path, "size": len(file.content.encode()), "executable": file.executable} for file in spec.files
    ]
    return {**told, "env": sorted(spec.env), "files": files}


def spec_document(spec: JobSpec) -> bytes:
    """A spec as it is stored, the same for every way to write it."""
    return spec.model_dump_json().encode()


def digest_of(spec: bytes) -> str:
    """SHA-256 (hex) of a stored spec."""
    return hashlib.sha256(spec).hexdigest()


def is_final(view: JobSummary) -> bool:
    return view.state in FINAL_JOB_STATES


def has_ended(document: bytes) -> bool:
    """Of a ready-made document."""
    return orjson.loads(document)["state"] in FINAL_JOB_STATES


def series_of(event: JobEvent | AttemptEvent) -> int:
    """0 = the job's own series, else the attempt's number."""
    return event.attempt if isinstance(event, AttemptEvent) else 0


def applied(view: JobView, series: int) -> int:
    """The newest sequence number of a series that is in the view."""
    if series == 0:
        return view.sequence
    return next((attempt.sequence for attempt in view.attempts if attempt.number == series), 0)


def standing(view: JobView, event: JobEvent | AttemptEvent) -> Standing:
    """Whether an event is the next of its series, was seen before, or came while others are missing."""
    newest = applied(view, series_of(event))
    if event.sequence <= newest:
        return Standing.SEEN
    return Standing.NEXT if event.sequence == newest + 1 else Standing.EARLY


def apply(view: JobView, event: JobEvent | AttemptEvent, at: datetime) -> JobView:
    """The view after an event that happened `at`. Whether it is the next one is the caller's business."""
    moved = _job_moved(view, event, at) if isinstance(event, JobEvent) else _attempt_moved(view, event, at)
    return moved.model_copy(update={"version": view.version + 1, "updated_at": max(at, view.updated_at)})


def cancel_requested(view: JobView, at: datetime) -> JobView:
    """The view after a cancel was accepted; the first request counts."""
    if view.cancel_requested_at is not None or is_final(view):
        return view
    return view.model_copy(update={"cancel_requested_at": at, "updated_at": at, "version": view.version + 1})


def _job_moved(view: JobView, event: JobEvent, at: datetime) -> JobView:
    if is_final(view):
        return view.model_copy(update={"sequence": event.sequence})
    if isinstance(event, JobProgress):
        told = ProgressView(
            attempt=event.attempt, at=at, fraction=event.fraction, message=event.message, results=event.results
        )
        return view.model_copy(update={"sequence": event.sequence, "progress": told})
    attempt = max(view.attempt, event.attempt)
    changes: dict[str, Any] = {
        "sequence": event.sequence, "state": event.state, "reason": event.reason, "attempt": attempt,
        "attempts": _with(view.attempts, event.attempt, {"site": event.site} if event.site else {}),
    }  # fmt: skip
    if event.site is not None or event.state is JobState.QUEUED:
        changes["site"] = event.site
    if event.state is JobState.RUNNING and view.started_at is None:
        changes["started_at"] = at
    if isinstance(event, JobEnded):
        changes |= {"finished_at": at, "exit_code": event.exit_code}
    if isinstance(event, JobCancelled):
        changes["confirmed"] = event.confirmed
    if event.state in FINAL_JOB_STATES or event.state is JobState.QUEUED:
        changes["endpoints"] = ()
    if event.state is JobState.QUEUED:
        changes["progress"] = None
    return view.model_copy(update=changes)


def _attempt_moved(view: JobView, event: AttemptEvent, at: datetime) -> JobView:
    told: dict[str, Any] = {
        "sequence": event.sequence, "status": event.status, "site": event.site, "reason": event.reason,
    }  # fmt: skip
    told |= {name: value for name in ("node", "allocation") if (value := getattr(event, name)) is not None}
    if isinstance(event, AttemptRunning):
        told |= {"endpoints": event.endpoints, "started_at": at}
    if isinstance(event, AttemptEnded):
        told |= {"finished_at": event.finished_at or at, "exit_code": event.exit_code, "signal": event.signal}
        told |= {"endpoints": ()} | ({"started_at": event.started_at} if event.started_at else {})
    attempts = _with(view.attempts, event.attempt, told)
    changes: dict[str, Any] = {"attempts": attempts}
    if not is_final(view) and event.attempt >= view.attempt:
        changes["endpoints"] = attempts[event.attempt - 1].endpoints
    return view.model_copy(update=changes)


def _with(attempts: tuple[AttemptView, ...], number: int, told: dict[str, Any]) -> tuple[AttemptView, ...]:
    """The attempts with what is told of one of them; those in between are there too, though nothing is known yet."""
    missing = tuple(AttemptView(number=each) for each in range(len(attempts) + 1, number + 1))
    return tuple(
        attempt.model_copy(update=told) if attempt.number == number else attempt for attempt in attempts + missing
    )
