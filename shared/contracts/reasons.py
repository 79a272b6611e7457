"""Closed lists of reason codes: the short words behind every 'why', each with its sentence for people.

A code never changes its meaning; a new cause is a new code. Readers treat a code that they do not know as `unknown`.
"""

from enum import StrEnum

from pydantic import Field

from shared.job import Value


class VerdictCode(StrEnum):
    """Why a job fits a site, or does not. `VERDICTS` says what each means and whether waiting can change it."""

    FITS = "fits"
    VO_NOT_SERVED = "vo_not_served"
    SITE_NOT_ALLOWED = "site_not_allowed"
    COUNTRY_NOT_ALLOWED = "country_not_allowed"
    CORDONED = "cordoned"
    SITE_CRITICAL = "site_critical"
    SITE_UNREACHABLE = "site_unreachable"
    SITE_SUSPECT = "site_suspect"
    NOT_OBSERVED = "not_observed"
    DRIVER_MISSING = "driver_missing"
    GPU_MISSING = "gpu_missing"
    GPU_MODEL_MISSING = "gpu_model_missing"
    GPUS_BUSY = "gpus_busy"
    CPU_TOO_SMALL = "cpu_too_small"
    MEMORY_TOO_SMALL = "memory_too_small"
    DISK_TOO_SMALL = "disk_too_small"
    CPU_BUSY = "cpu_busy"
    MEMORY_BUSY = "memory_busy"
    DISK_BUSY = "disk_busy"
    NO_ROOM_ON_ONE_NODE = "no_room_on_one_node"
    NAMESPACE_MISSING = "namespace_missing"
    POLICY_FORBIDS = "policy_forbids"
    CEILING_REACHED = "ceiling_reached"
    REFUSED_BY_SITE = "refused_by_site"
    TRIED_BEFORE = "tried_before"


class ReasonCode(StrEnum):
    """Why a job or attempt is as it is."""

    # waiting
    WAITING_TO_BE_PLACED = "waiting_to_be_placed"
    WAITING_FOR_ROOM = "waiting_for_room"
    NO_SITE_FITS = "no_site_fits"
    RETRYING = "retrying"
    WAITING_FOR_AUTHORISATION = "waiting_for_authorisation"
    WAITING_FOR_SITE = "waiting_for_site"
    CEILING_REACHED = "ceiling_reached"
    SUSPENDED = "suspended"
    # ends of attempts and jobs
    COMPLETED = "completed"
    TASK_ERROR = "task_error"
    OUT_OF_MEMORY = "out_of_memory"
    START_FAILURE = "start_failure"
    IMAGE_OR_ARTIFACT = "image_or_artifact"
    MAX_RUNTIME_EXCEEDED = "max_runtime_exceeded"
    DRAINED = "drained"
    EVICTED = "evicted"
    STOPPED = "stopped"
    NODE_LOST = "node_lost"
    SITE_LOST = "site_lost"
    VANISHED = "vanished"
    START_DEADLINE_PASSED = "start_deadline_passed"
    NOT_PLACED_IN_TIME = "not_placed_in_time"
    REFUSED_BY_SITE = "refused_by_site"
    CANCELLED_BY_USER = "cancelled_by_user"
    AUTHORISATION_EXPIRED = "authorisation_expired"
    NOT_AUTHORISED = "not_authorised"
    SECRET_MISSING = "secret_missing"
    INVALID_REQUEST = "invalid_request"
    DEAD_LETTERED = "dead_lettered"
    UNKNOWN = "unknown"


REASON_SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.WAITING_TO_BE_PLACED: "The job waits for its turn to be placed.",
    ReasonCode.WAITING_FOR_ROOM: "Every site that could run the job is full at the moment.",
    ReasonCode.NO_SITE_FITS: "No site can run the job as it is asked for.",
    ReasonCode.RETRYING: "The last attempt ended badly and the job is tried again.",
    ReasonCode.WAITING_FOR_AUTHORISATION: "The auth service cannot be asked at the moment; the job waits.",
    ReasonCode.WAITING_FOR_SITE: "The site of the job cannot be reached; the job waits for it, as it asked.",
    ReasonCode.CEILING_REACHED: "A ceiling over all jobs of the user or of the VO is reached; the job waits.",
    ReasonCode.SUSPENDED: "The owner, the VO or what the job was handed in with is suspended; the job waits.",
    ReasonCode.COMPLETED: "Every task ended with exit code 0.",
    ReasonCode.TASK_ERROR: "The task ended with an exit code other than 0.",
    ReasonCode.OUT_OF_MEMORY: "The task used more memory than it asked for and was killed.",
    ReasonCode.START_FAILURE: "The task could not be started at the site.",
    ReasonCode.IMAGE_OR_ARTIFACT: "The image or an input could not be fetched at the site.",
    ReasonCode.MAX_RUNTIME_EXCEEDED: "The job ran longer than its max_runtime and was stopped.",
    ReasonCode.DRAINED: "The node was drained by its operator.",
    ReasonCode.EVICTED: "The site evicted the job for another one.",
    ReasonCode.STOPPED: "The attempt was stopped.",
    ReasonCode.NODE_LOST: "The node of the attempt is gone.",
    ReasonCode.SITE_LOST: "The site of the attempt is gone.",
    ReasonCode.VANISHED: "The site no longer knows the attempt, although nobody told us that it ended.",
    ReasonCode.START_DEADLINE_PASSED: "The site had not started the attempt by its start_deadline; it was withdrawn.",
    ReasonCode.NOT_PLACED_IN_TIME: "No site could take the job within its max_wait.",
    ReasonCode.REFUSED_BY_SITE: "The site refused the job.",
    ReasonCode.CANCELLED_BY_USER: "The job was cancelled on request.",
    ReasonCode.AUTHORISATION_EXPIRED: "The authorisation had expired and a fresh decision said no.",
    ReasonCode.NOT_AUTHORISED: "The owner may not run this job.",
    ReasonCode.SECRET_MISSING: "A secret that the job names is not there any more.",
    ReasonCode.INVALID_REQUEST: "The request could not be understood.",
    ReasonCode.DEAD_LETTERED: "The request could not be handled and was set aside for an operator.",
    ReasonCode.UNKNOWN: "The cause is not known.",
}


class Reason(Value):
    """A closed code, a sentence for people, and figures behind it."""

    code: ReasonCode
    message: str
    details: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


def because(code: ReasonCode, message: str | None = None, **details: str | int | float | bool | None) -> Reason:
    """A reason with the code's own sentence unless a better one is given."""
    return Reason(code=code, message=message or REASON_SENTENCES[code], details=details)


class Verdict(Value):
    """What placement says of one site for one job.

    `score` counts only when `code` is `fits` (higher is better). `asked` and `free` are in the unit that the
    message names. `can_change` says whether waiting may help; `advice` what the user could change.
    """

    site: str
    code: VerdictCode
    message: str
    score: float | None = None
    asked: float | None = None
    free: float | None = None
    can_change: bool = False
    advice: str | None = None

    @property
    def fits(self) -> bool:
        return self.code is VerdictCode.FITS
