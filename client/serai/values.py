"""What the platform tells, as plain frozen values. Each keeps the platform's own JSON in `raw`.

Fields that a newer platform adds are ignored here and stay in `raw`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

JOB_STATES: Final = (
    "accepted", "queued", "placed", "starting", "running", "cancelling", "succeeded", "failed", "cancelled", "rejected",
)  # fmt: skip
FINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled", "rejected"})
ATTEMPT_STATES: Final = ("pending", "starting", "running", "disconnected", "succeeded", "failed", "lost", "stopped")
_TYPE_PREFIX: Final = "eu.serai."


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the platform shows it. `attempt` is 0 before the first placement; times are RFC 3339 text in UTC.

    `endpoints` maps the name of a service's endpoint to the address `host:port` where it answers now.
    """

    id: str
    state: str
    name: str = ""
    vo: str = ""
    kind: str = "batch"
    site: str | None = None
    attempt: int = 0
    exit_code: int | None = None
    reason_code: str | None = None
    reason: str | None = None
    owner: str = ""
    created_at: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    progress: float | None = None
    """From 0 to 1, as the running job tells of itself."""
    etag: str | None = field(default=None, compare=False)
    raw: Json = field(default_factory=dict, compare=False, repr=False)

    @property
    def ended(self) -> bool:
        """Whether the job is in a final state."""
        return self.state in FINAL_STATES

    @classmethod
    def of(cls, raw: Json, etag: str | None = None) -> "Job":
        """From the platform's JSON. Raises KeyError when it has no id or state."""
        reason = raw.get("reason") or {}
        owner = raw.get("owner") or {}
        return cls(
            id=str(raw["id"]), state=str(raw["state"]), name=raw.get("name") or "", vo=raw.get("vo") or "",
            kind=raw.get("kind") or "batch", site=raw.get("site"), attempt=raw.get("attempt") or 0,
            exit_code=raw.get("exit_code"), reason_code=reason.get("code"), reason=reason.get("message"),
            owner=owner.get("name") or owner.get("subject") or "", created_at=raw.get("created_at") or "",
            started_at=raw.get("started_at"), finished_at=raw.get("finished_at"),
            endpoints=_addresses(raw.get("endpoints") or ()), progress=(raw.get("progress") or {}).get("fraction"),
            etag=etag, raw=raw,
        )  # fmt: skip


def _addresses(endpoints: Any) -> dict[str, str]:
    return {item["name"]: item["address"] for item in endpoints if item.get("address")}


@dataclass(frozen=True, slots=True)
class Event:
    """One fact from the event log: a CloudEvent. `position` is where a reader goes on after it (Last-Event-ID).

    `kind` is e.g. `job.running`, `attempt.failed`, `site.unreachable`; `sequence` counts the facts of one job
    (`job.*`) or of one attempt (`attempt.*`) without holes.
    """

    id: str
    kind: str
    time: str
    position: str = ""
    job_id: str | None = None
    vo: str | None = None
    site: str | None = None
    attempt: int = 0
    sequence: int = 0
    data: Json = field(default_factory=dict, compare=False)
    raw: Json = field(default_factory=dict, compare=False, repr=False)

    @property
    def reason(self) -> str | None:
        """The sentence of the fact's reason, where it has one."""
        return (self.data.get("reason") or self.raw.get("reason") or {}).get("message")

    @property
    def site_says(self) -> str | None:
        """The site's own words about an attempt that ended badly, where they say more than an exit code does."""
        if self.kind != "attempt.failed" or self.data.get("exit_code") is not None:
            return None
        return str(self.data.get("nomad_says") or "") or None

    @classmethod
    def of(cls, raw: Json, position: str = "") -> "Event":
        """From a structured CloudEvent or an item of a timeline. Raises KeyError when it is neither."""
        data = raw.get("data") or {}
        return cls(
            id=str(raw["id"]), kind=_kind(str(raw["type"])), time=str(raw.get("time", "")), position=position,
            job_id=data.get("job_id") or raw.get("job_id"), vo=data.get("vo") or raw.get("vo"),
            site=data.get("site") or raw.get("site"), attempt=int(data.get("attempt") or raw.get("attempt") or 0),
            sequence=int(data.get("sequence") or raw.get("sequence") or 0), data=data, raw=raw,
        )  # fmt: skip


def _kind(type: str) -> str:
    """`eu.serai.job.running.v1` -> `job.running`."""
    name = type.removeprefix(_TYPE_PREFIX)
    head, _, version = name.rpartition(".v")
    return head if version.isdigit() else name


def last_words(events: Sequence[Event]) -> str | None:
    """What the site said when the newest attempt failed, where that says more than an exit code does."""
    return next((event.site_says for event in reversed(events) if event.kind == "attempt.failed"), None)


def last_verdicts(events: Sequence[Event]) -> list[Json]:
    """Every site's verdict as the job's newest fact that has them tells it: at its end, or when it was placed."""
    for event in reversed(events):
        verdicts = event.data.get("verdicts") or event.data.get("receipt")
        if verdicts:
            return list(verdicts)
    return []


@dataclass(frozen=True, slots=True)
class Gap:
    """Events between the last one seen and the next are not kept any more: read the jobs again."""

    message: str
    raw: Json = field(default_factory=dict, compare=False)
