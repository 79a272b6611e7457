"""Commands: imperative, one receiver, may be refused. The scheduler receives them all.

A command's body is the exact bytes that its grant covers; unknown fields are refused.
"""

from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field, StringConstraints

from shared.job import JobSpec, SiteName, Value, VoName


class Principal(Value):
    """Who acts: (issuer, subject) is the identity, the name is for people."""

    issuer: str
    subject: str
    name: str = ""


class Command(Value):
    """Base: `kind` names the command on the wire; `version` grows when its meaning does."""

    kind: ClassVar[str]
    verb: ClassVar[str]
    version: ClassVar[int] = 1


class SubmitJob(Command):
    """Run this job. The id was given by the gateway or by the client (PUT)."""

    kind: ClassVar[str] = "job.submit"
    verb: ClassVar[str] = "job.submit"

    job_id: UUID
    owner: Principal
    spec: JobSpec
    submitted_at: datetime


class CancelJob(Command):
    """Stop this job wherever it is. For an unknown job it is kept and applied when SubmitJob comes."""

    kind: ClassVar[str] = "job.cancel"
    verb: ClassVar[str] = "job.cancel"

    job_id: UUID
    vo: VoName
    requested_by: Principal
    requested_at: datetime


class CordonSite(Command):
    """Place nothing more at this site; what runs there goes on."""

    kind: ClassVar[str] = "site.cordon"
    verb: ClassVar[str] = "site.cordon"

    site: SiteName
    reason: str = ""
    requested_by: Principal
    requested_at: datetime


class UncordonSite(Command):
    """Place at this site again."""

    kind: ClassVar[str] = "site.uncordon"
    verb: ClassVar[str] = "site.cordon"

    site: SiteName
    requested_by: Principal
    requested_at: datetime


Figure = Annotated[float, Field(allow_inf_nan=False)] | int | bool | Annotated[str, StringConstraints(max_length=256)]
FigureName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ReportProgress(Command):
    """A task tells how far it has come. `fraction` from 0 to 1; `results` are small figures to look at, not outputs."""

    kind: ClassVar[str] = "job.report"
    verb: ClassVar[str] = "job.report"

    job_id: UUID
    attempt: Annotated[int, Field(ge=1)]
    vo: VoName
    reported_by: Principal
    reported_at: datetime
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    message: Annotated[str, StringConstraints(max_length=500)] = ""
    results: Annotated[dict[FigureName, Figure], Field(default={}, max_length=16)]


COMMANDS: tuple[type[Command], ...] = (SubmitJob, CancelJob, CordonSite, UncordonSite, ReportProgress)
