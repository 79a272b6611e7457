"""The shapes of answers, for the OpenAPI document; most are sent as ready-made bytes."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from services.gateway.job_view import JobSummary
from services.gateway.settings import Issuer
from shared.contracts.commands import Principal
from shared.contracts.questions import OutputItem
from shared.contracts.reasons import Reason


class ProblemError(BaseModel):
    """One fault of a request."""

    pointer: str = Field(description="RFC 6901 JSON pointer into what was sent.")
    detail: str
    hint: str | None = None


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(description="Link to the page that explains `code`.")
    title: str
    status: int
    detail: str = Field(description="What, where, and how to mend it.")
    code: str
    errors: list[ProblemError] | None = None
    retry_after: int | None = None


class JobList(BaseModel):
    """One page, newest first; `next` is the cursor of the next one, null at the end."""

    items: list[JobSummary]
    next: str | None


class BatchItem(BaseModel):
    """What became of one job of a batch: `status` as a request of its own would have had it."""

    index: int
    status: int
    id: UUID | None = None
    location: str | None = None
    problem: ProblemDocument | None = None


class BatchAnswer(BaseModel):
    accepted: int
    refused: int
    items: list[BatchItem]


class TimelineItem(BaseModel):
    """One step. `attempt` 0 = the job's own series; `sequence` counts within a series, from 1 without holes."""

    id: str
    time: datetime
    type: str = Field(description="`job.<state>` or `attempt.<status>`; `job.accepted` is the 202.")
    attempt: int
    sequence: int
    site: str | None = None
    reason: Reason | None = None
    cause: str | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="The event's content.")


class Timeline(BaseModel):
    job_id: UUID
    items: list[TimelineItem]


class OutputList(BaseModel):
    outputs: list[OutputItem]


class MembershipDocument(BaseModel):
    vo: str
    role: str
    verbs: list[str]


class WhoAmI(BaseModel):
    principal: Principal
    memberships: list[MembershipDocument]
    platform_roles: list[str]
    platform_verbs: list[str]
    expires_at: datetime


class Accepted(BaseModel):
    """A command was handed on; its effect shows in `GET /v1/sites`."""

    site: str
    requested_at: datetime
    command: str


class TraceDocument(BaseModel):
    trace_id: str
    spans: list[dict[str, Any]]


class Index(BaseModel):
    """All that a client needs to begin."""

    name: str
    version: str
    issuers: list[Issuer]
    documents: dict[str, str]
    resources: dict[str, str]
    streams: dict[str, str]
    limits: dict[str, int]
