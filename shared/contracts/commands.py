"""Commands: imperative, one receiver, may be refused. The scheduler receives them all.

A command's body is the exact bytes that its grant covers; unknown fields are refused.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

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


COMMANDS: tuple[type[Command], ...] = (SubmitJob, CancelJob, CordonSite, UncordonSite)
