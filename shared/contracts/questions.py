"""Questions between services, over HTTP at `/internal/...`: what is asked and what is answered.

Questions change nothing. One asked for a user carries that user's read grant in `Serai-Read-Grant`; every one
carries the asking service's identity in `Serai-Service` (`shared/runtime/service_identity.py`).
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.commands import Principal
from shared.contracts.policies import Demand, Policy
from shared.contracts.reasons import Reason, Verdict
from shared.ids import AttemptId
from shared.job import JobSpec
from shared.site import SiteCapacity


class Answer(BaseModel):
    """Base of requests and answers alike; unknown fields are ignored, so services roll one by one."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# -- auth ---------------------------------------------------------------------------------------------------------


class ContextRequest(Answer):
    """`POST /internal/context` at auth: who is behind this bearer token?  401 problem when nobody is."""

    token: str


class Membership(Answer):
    """A VO, the role held there, and the verbs that auth's table gives to that role."""

    vo: str
    role: str
    verbs: frozenset[str]


class WorkloadIdentity(Answer):
    """The attempt whose own token this is, as its cluster says: the Nomad job id, its namespace and allocation.

    `sites`: those whose jobs that cluster may speak for, as auth's settings say.
    """

    job: str
    namespace: str
    allocation: str
    sites: tuple[str, ...]

    def is_of(self, attempt: AttemptId) -> bool:
        """Whether it is this attempt's: the whole id, never a prefix of it (CVE-2025-4922)."""
        return self.job == attempt.nomad_id


class Context(Answer):
    """A verified principal and what they may do. Good until `expires_at`, and cached no longer than 60 s.

    `platform_verbs` hold everywhere (site operators). `read_grant` is a JWS naming principal and verbs per VO, for
    questions to other services. `client` and `token_id` are what suspensions can name beside the principal.
    """

    principal: Principal
    memberships: tuple[Membership, ...]
    platform_roles: tuple[str, ...] = ()
    platform_verbs: frozenset[str] = frozenset()
    expires_at: datetime
    read_grant: str
    client: str = ""
    token_id: str = ""
    workload: WorkloadIdentity | None = None
    """Set when the caller is a running job: then it is nobody else, in no VO."""

    def may(self, verb: str, vo: str) -> bool:
        """Whether the principal has this verb in this VO."""
        return any(membership.vo == vo and verb in membership.verbs for membership in self.memberships)


class GrantItem(Answer):
    """One command to be granted: the digest is SHA-256 (hex) of the exact body.

    `demand`: what a job asks for. Auth never sees the body; it judges this, and the grant names its digest, so that
    the receiver finds a demand that is not the body's.
    """

    verb: str
    vo: str | None
    message_type: str
    body_sha256: str
    content_type: str = "application/json"
    own: bool = True
    """Whether the caller owns what the command acts on (cancel: own or VO-wide verb)."""
    attempt: str | None = None
    """The Nomad job id of the attempt that tells of itself."""
    demand: Demand | None = None


class GrantRequest(Answer):
    """`POST /internal/grants` at auth: up to 1,000 commands of one caller, one question."""

    token: str
    items: tuple[GrantItem, ...]


class GrantAnswer(Answer):
    """For each item in order: a grant, or why not."""

    grant: str | None = None
    refusal: str | None = None
    refusal_code: str | None = None


class GrantsAnswer(Answer):
    answers: tuple[GrantAnswer, ...]


class DecisionRequest(Answer):
    """`POST /internal/decisions` at auth, asked at dispatch: may this job of this owner still run at this site?

    `foreseen`: somebody only wants to know; nothing is done on the strength of the answer, so it is not written down.
    """

    principal: Principal
    vo: str
    verb: str
    site: str | None = None
    foreseen: bool = False


class Decision(Answer):
    """`policy`: what the platform, the VO and the site together allow (asked with a site), or the platform and the VO;
    whoever asks at dispatch holds the job against it. `policy_version` names the policies that were looked at.
    """

    allowed: bool
    code: str = ""
    message: str = ""
    policy: Policy | None = None
    policy_version: str = ""


class SecretWrite(Answer):
    """`PUT /internal/secrets` at auth: keep this value under this name for the caller in a VO; never read back."""

    token: str = Field(repr=False)
    vo: str
    name: str
    value: str = Field(repr=False)
    """Base64: a secret is any bytes."""


class SecretDelete(Answer):
    """`POST /internal/secrets:delete` at auth."""

    token: str = Field(repr=False)
    vo: str
    name: str


class SecretList(Answer):
    """`POST /internal/secrets:list` at auth: the caller's own, of one VO or of all of theirs."""

    token: str = Field(repr=False)
    vo: str | None = None


class SecretTold(Answer):
    """All that anybody is ever told of a secret."""

    vo: str
    name: str
    created_at: datetime
    updated_at: datetime
    used_at: datetime | None = None


class SecretsTold(Answer):
    secrets: tuple[SecretTold, ...]


class SecretsRequest(Answer):
    """`POST /internal/secrets:release` at auth, by the scheduler alone: the values that an attempt is about to need."""

    principal: Principal
    vo: str
    site: str
    attempt: str
    names: tuple[str, ...]


class SecretsAnswer(Answer):
    """The values (base64) by name, or (`code`) why there are none: they go into the site's Nomad and nowhere else."""

    values: dict[str, str] = Field(default={}, repr=False)
    code: str = ""
    message: str = ""


class Bearer(Answer):
    """Somebody who is not here: a principal, with the client and the token (its `jti`) that they came with last."""

    principal: Principal
    client: str = ""
    token_id: str = ""


class RememberedRequest(Answer):
    """`POST /internal/remembered` at auth: what may these up to 500 see by now, without a token of theirs at hand?"""

    bearers: tuple[Bearer, ...]


class Remembered(Answer):
    """As in `Context`, from what was last seen of the principal, with suspensions as of now.

    `refusal`: why they may see nothing at all (suspended, token revoked, not seen for too long); empty = they may.
    """

    memberships: tuple[Membership, ...] = ()
    platform_verbs: frozenset[str] = frozenset()
    refusal: str = ""


class RememberedAnswer(Answer):
    """For each bearer in order."""

    answers: tuple[Remembered, ...]


# -- scheduler ----------------------------------------------------------------------------------------------------


class ExplainRequest(Answer):
    """`POST /internal/explain` at the scheduler: where would this go, if it were handed in now?"""

    spec: JobSpec


class Explanation(Answer):
    """Why a job is where it is, or where it would go: the summary and each site's verdict.

    `position` counts jobs of the queue that are served before this one (0 = next), where it is queued.
    """

    state: str
    summary: str
    reason: Reason | None = None
    verdicts: tuple[Verdict, ...] = ()
    position: int | None = None
    job_id: UUID | None = None


class SiteStatus(Answer):
    """One row of `GET /internal/sites` at the scheduler. Cores and MiB are totals over usable nodes."""

    name: str
    country: str
    vos: tuple[str, ...]
    cluster: str
    health: str
    reachable: bool
    suspect: bool = False
    cordoned: bool = False
    cordon_reason: str | None = None
    hardware: tuple[str, ...] = ()
    carbon_g_per_kwh: float | None = None
    cost_per_core_hour: float | None = None
    capacity: SiteCapacity | None = None
    cores_total: float = 0
    cores_free: float = 0
    memory_mib_total: int = 0
    memory_mib_free: int = 0
    gpus_total: int = 0
    gpus_free: int = 0
    attempts: int = 0
    observed_at: datetime | None = None


class SitesAnswer(Answer):
    sites: tuple[SiteStatus, ...]


class EventsAnswer(Answer):
    """`GET /internal/jobs/{id}/events?after=<sequence>&attempt=<n>` at scheduler (attempt 0) and monitor.

    Structured CloudEvents in order of sequence, at most 1,000: fills any hole that a reader finds.
    """

    events: tuple[dict[str, Any], ...]


class StraysRequest(Answer):
    """`POST /internal/attempts:strays` at the scheduler, by the monitor: which of these are not current?"""

    attempts: tuple[str, ...]


class StraysAnswer(Answer):
    strays: tuple[str, ...]


class SpeakRequest(Answer):
    """`POST /internal/attempts:speak` at the scheduler: is this the identity of that job's attempt, which lives now?"""

    job_id: UUID
    workload: WorkloadIdentity


class SpeakAnswer(Answer):
    """`attempt` is its number; 0 with `why` when it is not."""

    attempt: int = 0
    vo: str = ""
    why: str = ""


# -- monitor ------------------------------------------------------------------------------------------------------


class OutputItem(Answer):
    name: str
    size: int
    problem: str | None = None
    attempt: int


class OutputsAnswer(Answer):
    """`GET /internal/jobs/{id}/outputs` at the monitor; bytes at `/internal/jobs/{id}/outputs/{name}`."""

    outputs: tuple[OutputItem, ...]
