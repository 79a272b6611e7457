"""What a job is, as plain frozen values. No behaviour beyond validation; no I/O.

Units are fixed here: seconds, MiB, cores. People's units (`2h`, `512MiB`) are read at the gateway's edge only.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from shared.contracts import images

VO_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?$"
SITE_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
RESERVED_ENV_PREFIXES = ("NOMAD_", "SERAI_", "DOCKER_")
RESERVED_ENV_NAMES = (
    "VAULT_TOKEN", "CONSUL_TOKEN", "CONSUL_HTTP_TOKEN", "LD_PRELOAD", "LD_AUDIT", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip
"""Credentials that a site may give to a task, what is loaded into every process of it, and which GPUs it sees."""
MOST_ENV_BYTES = 131_072
"""Of all names and values together: Linux hands a process arguments and environment in one bounded piece."""

RESERVED_ENV_WORDS = (
    f"is reserved: {', '.join(RESERVED_ENV_NAMES)} and names beginning {', '.join(RESERVED_ENV_PREFIXES)} are set by "
    "the platform and its sites"
)
HEALTH_PATTERN = r"^/([^/\\\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*)?$"
"""A path at the job itself. With a second slash it would name a host, for those who join it to an address (RFC 3986,
section 4.2). No control characters: it is put into requests."""
ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
"""Words that people write for people: they end up in tables, terminals and logs."""
SECRET_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"
SECRET_FILE_PATTERN = r"^(?![Nn][Oo][Mm][Aa][Dd]_|[Vv][Aa][Uu][Ll][Tt]_|api\.sock$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""A file beside those that Nomad itself puts into a task's secrets folder."""

VoName = Annotated[str, StringConstraints(pattern=VO_PATTERN)]
SiteName = Annotated[str, StringConstraints(pattern=SITE_PATTERN)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Text = Annotated[str, StringConstraints(max_length=1024)]
SecretName = Annotated[str, StringConstraints(pattern=SECRET_PATTERN)]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Value(BaseModel):
    """Base of all values and messages: frozen, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobState(StrEnum):
    """The states of a job (architecture, section 3)."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


FINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED})


class AttemptStatus(StrEnum):
    """What is true about one attempt at its site (architecture, section 3)."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    DISCONNECTED = "disconnected"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


ATTEMPT_OUTCOMES = frozenset({AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.STOPPED, AttemptStatus.LOST})


class FailureClass(StrEnum):
    """Why an attempt failed; the retry policy speaks of these."""

    TASK_ERROR = "task_error"
    OUT_OF_MEMORY = "out_of_memory"
    START_FAILURE = "start_failure"
    IMAGE_OR_ARTIFACT = "image_or_artifact"
    TIMEOUT = "timeout"
    DRAINED = "drained"
    EVICTED = "evicted"
    UNKNOWN = "unknown"


class JobKind(StrEnum):
    BATCH = "batch"
    SERVICE = "service"


class OnLost(StrEnum):
    """What to do when the node or site of an attempt is gone."""

    RETRY = "retry"
    WAIT = "wait"
    FAIL = "fail"


def _inside_task(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts or "\0" in path:
        raise ValueError("must be a relative path inside the job's own folder, without '..' or empty parts")
    return path


class InputFile(Value):
    """A small file put into the job's working folder before it starts."""

    path: RelativePath
    content: Annotated[str, StringConstraints(max_length=262_144)]
    executable: bool = False

    _path = field_validator("path")(_inside_task)


class OutputFile(Value):
    """A file kept after the end, at most 1 MiB; `path` is relative to the working folder."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    path: RelativePath

    _path = field_validator("path")(_inside_task)


class SecretFile(Value):
    """A secret of the owner's, put into `file` of the task's secrets folder. A job holds its name, never its value."""

    name: SecretName
    file: str

    @field_validator("file")
    @classmethod
    def _free(cls, file: str) -> str:
        if not re.fullmatch(SECRET_FILE_PATTERN, file):
            raise ValueError(
                f"{file[:80]!r} cannot be the file of a secret: letters, digits, '.', '_', '-', one name without a "
                "folder, and none of Nomad's own (nomad_..., vault_..., api.sock)"
            )
        return file


class Gpus(Value):
    count: Annotated[int, Field(ge=0, le=64)] = 0
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}$")] | None = None


class Resources(Value):
    """What one attempt needs: cores (may be fractional), memory and disk in MiB, GPUs."""

    cpu_cores: Annotated[float, Field(ge=0.01, le=1024)] = 1.0
    memory_mib: Annotated[int, Field(ge=16, le=16_777_216)] = 256
    disk_mib: Annotated[int, Field(ge=10, le=16_777_216)] = 300
    gpus: Gpus = Gpus()


class PlacementWishes(Value):
    """Empty tuple = no restriction; `prefer_*` only raises a score."""

    allow_sites: tuple[SiteName, ...] = ()
    deny_sites: tuple[SiteName, ...] = ()
    prefer_sites: tuple[SiteName, ...] = ()
    allow_countries: tuple[Country, ...] = ()
    deny_countries: tuple[Country, ...] = ()
    prefer_countries: tuple[Country, ...] = ()


class Retries(Value):
    """`attempts` further tries after the first, for failures of the named classes."""

    attempts: Annotated[int, Field(ge=0, le=20)] = 0
    on: tuple[FailureClass, ...] = (
        FailureClass.TASK_ERROR,
        FailureClass.OUT_OF_MEMORY,
        FailureClass.START_FAILURE,
        FailureClass.IMAGE_OR_ARTIFACT,
        FailureClass.UNKNOWN,
    )


class Endpoint(Value):
    """A port where a service job answers; the site chooses the outside port number."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    protocol: Literal["http", "https", "tcp"] = "http"
    health_path: Annotated[str, StringConstraints(pattern=HEALTH_PATTERN, max_length=255)] | None = None
    access: Literal["private", "vo", "public"] = "private"


class JobSpec(Value):
    """What the user asked for, complete and checked: the content of SubmitJob."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]
    vo: VoName
    kind: JobKind = JobKind.BATCH
    command: Annotated[tuple[Annotated[str, StringConstraints(max_length=65_536)], ...], Field(max_length=1024)] = ()
    image: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")] | None = None
    env: Annotated[dict[str, Annotated[str, StringConstraints(max_length=32_768)]], Field(max_length=256)] = {}
    files: Annotated[tuple[InputFile, ...], Field(max_length=64)] = ()
    outputs: Annotated[tuple[OutputFile, ...], Field(max_length=64)] = ()
    resources: Resources = Resources()
    placement: PlacementWishes = PlacementWishes()
    priority: Annotated[int, Field(ge=1, le=100)] = 50
    max_runtime_s: Annotated[float, Field(gt=0, le=31_536_000)] = 86_400
    max_wait_s: Annotated[float, Field(gt=0, le=31_536_000)] = 604_800
    start_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 120
    on_lost: OnLost = OnLost.RETRY
    retries: Retries = Retries()
    labels: Annotated[dict[str, str], Field(max_length=32)] = {}
    metadata: Annotated[dict[str, Text], Field(max_length=64)] = {}
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=16)] = ()
    secrets: Annotated[tuple[SecretFile, ...], Field(max_length=16, exclude_if=lambda named: not named)] = ()
    """Left out where there are none: then a job is written as by releases that did not know them, which read it."""

    @field_validator("command", "env", "labels", "metadata")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        words = [*value, *value.values()] if isinstance(value, dict) else value
        if any("\0" in word for word in words):  # type: ignore[attr-defined]
            raise ValueError("must not contain NUL characters")
        return value

    @field_validator("env")
    @classmethod
    def _env_names(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if not ENV_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name for an environment variable (letters, digits, _)")
            if is_reserved_env(name):
                raise ValueError(f"{name!r} {RESERVED_ENV_WORDS}")
        if env_bytes(env) > MOST_ENV_BYTES:
            raise ValueError(f"'env' has more than {MOST_ENV_BYTES} bytes in all; put long texts into 'files'")
        return env

    @field_validator("image")
    @classmethod
    def _reference(cls, image: str | None) -> str | None:
        if image is not None and images.parse(image) is None:
            raise ValueError(f"{image!r} is not an image reference: write registry/repository:tag or ...@sha256:digest")
        return image

    @field_validator("labels")
    @classmethod
    def _label_names(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?", name):
                raise ValueError(f"label name {name[:80]!r} must be 1 to 63 letters, digits, '.', '_', '-', '/'")
            if len(value) > 255:
                raise ValueError(f"label {name!r} is longer than 255 characters")
        return labels

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.command and self.image is None:
            raise ValueError("give 'command' (a list of words), 'image', or both")
        if self.endpoints and self.kind is not JobKind.SERVICE:
            raise ValueError("'endpoints' belong to a service: set 'kind: service' or leave them out")
        _unique("files", [file.path for file in self.files])
        _unique("outputs", [output.name for output in self.outputs])
        _unique("endpoints", [endpoint.name for endpoint in self.endpoints])
        _unique("secrets", [secret.file for secret in self.secrets])
        return self


def is_reserved_env(name: str) -> bool:
    """Whether a variable of this name is for the platform or a site to set."""
    return name in RESERVED_ENV_NAMES or name.startswith(RESERVED_ENV_PREFIXES)


def env_bytes(env: Mapping[str, str]) -> int:
    """What an environment takes: names and values in UTF-8."""
    return sum(len(name.encode()) + len(value.encode(errors="replace")) for name, value in env.items())


def _unique(what: str, names: list[str]) -> None:
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"'{what}' names {sorted(doubled)[0]!r} twice")
