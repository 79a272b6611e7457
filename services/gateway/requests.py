"""The job file as people write it, and how it becomes a `JobSpec`. Pure.

The published JSON Schema (`schema()`) is made from these models and accepts what they accept; what a schema cannot
say is listed in `BEYOND_SCHEMA`. Used by every route that takes a job.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from services.gateway import input_errors, units
from services.gateway.input_errors import InputError
from shared.errors import Refused
from shared.job import (
    HEALTH_PATTERN,
    MOST_ENV_BYTES,
    RESERVED_ENV_NAMES,
    RESERVED_ENV_PREFIXES,
    RESERVED_ENV_WORDS,
    SECRET_FILE_PATTERN,
    SECRET_PATTERN,
    JobSpec,
    env_bytes,
    is_reserved_env,
)

M = TypeVar("M", bound=BaseModel)

BEYOND_SCHEMA: Final = (
    "names in 'files', 'outputs' and 'endpoints', and the files of 'secrets', are given once",
    "a secret whose name is one of the files that Nomad itself makes (nomad_..., vault_..., api.sock) needs a 'file'",
    "'image' is a reference, `registry/repository:tag` or `...@sha256:digest`, in lower case up to the tag",
    f"'env' has at most {MOST_ENV_BYTES} bytes in all",
    "the value of a size or duration written with units lies within the bounds given for plain numbers",
)
"""What the API checks and the JSON Schema cannot express."""

_NO_NUL: Final = r"^[^\x00]*$"
_PATH: Final = r"^(?!/)(?!.*//)(?!.*/$)(?!(.*/)?\.\.(/|$))[^\x00\n]+$"
_RESERVED: Final = "|".join((*RESERVED_ENV_PREFIXES, *(f"{name}$" for name in RESERVED_ENV_NAMES)))
_ENV_NAME: Final = rf"^(?!{_RESERVED})[A-Za-z_][A-Za-z0-9_]{{0,127}}$"
_LABEL_NAME: Final = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
LABEL_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?:"
"""A label as queries name it: its name, a colon, and any value."""
VO_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9])?$"
_SITE: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def _whole(value: object) -> object:
    """3.0 is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _inside_task(path: str) -> str:
    if not re.fullmatch(_PATH, path):
        raise ValueError("must be a relative path inside the job's own folder, without '..' or empty parts")
    return path


def _secret_file(file: str) -> str:
    if not re.fullmatch(SECRET_FILE_PATTERN, file):
        raise ValueError("must be one name of letters, digits, '.', '_', '-', and none of Nomad's own (nomad_..., ...)")
    return file


def _env_name(name: str) -> str:
    if is_reserved_env(name):
        raise ValueError(f"{name[:80]!r} {RESERVED_ENV_WORDS}")
    if not re.fullmatch(_ENV_NAME, name):
        raise ValueError(f"{name[:80]!r} is not a name for an environment variable (letters, digits, _)")
    return name


def _size_schema(least: int, most: int) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": least - 1, "maximum": most},
            {"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["512MiB", "1.5GiB"]},
        ]
    }


def _duration_schema(most: int) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": most},
            {"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["90s", "2h", "1h30m"]},
        ]
    }


_DAY, _YEAR, _MOST_MIB = 86_400, 31_536_000, 16_777_216
_MIB, _S = BeforeValidator(units.mebibytes), BeforeValidator(units.seconds)

Memory = Annotated[int, Field(ge=16, le=_MOST_MIB), _MIB, WithJsonSchema(_size_schema(16, _MOST_MIB))]
Disk = Annotated[int, Field(ge=10, le=_MOST_MIB), _MIB, WithJsonSchema(_size_schema(10, _MOST_MIB))]
Long = Annotated[float, Field(gt=0, le=_YEAR, allow_inf_nan=False), _S, WithJsonSchema(_duration_schema(_YEAR))]
Short = Annotated[float, Field(gt=0, le=_DAY, allow_inf_nan=False), _S, WithJsonSchema(_duration_schema(_DAY))]
JobName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]
OutputName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
VoName = Annotated[str, StringConstraints(pattern=VO_PATTERN)]
LabelName = Annotated[str, StringConstraints(pattern=_LABEL_NAME)]
LabelValue = Annotated[str, StringConstraints(pattern=_NO_NUL, max_length=255)]
Word = Annotated[str, StringConstraints(pattern=_NO_NUL)]
Note = Annotated[str, StringConstraints(pattern=_NO_NUL, max_length=1024)]
Site = Annotated[str, StringConstraints(pattern=_SITE)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Path = Annotated[
    str, StringConstraints(max_length=255), AfterValidator(_inside_task),
    WithJsonSchema({"type": "string", "maxLength": 255, "pattern": _PATH}),
]  # fmt: skip
SecretFileName = Annotated[
    str, AfterValidator(_secret_file), WithJsonSchema({"type": "string", "pattern": SECRET_FILE_PATTERN})
]  # fmt: skip
EnvName = Annotated[str, AfterValidator(_env_name), WithJsonSchema({"type": "string", "pattern": _ENV_NAME})]
Whole = BeforeValidator(_whole)
_CLOSED: Final[JsonDict] = {"additionalProperties": False}
Failure = Literal[
    "task_error", "out_of_memory", "start_failure", "image_or_artifact", "timeout", "drained", "evicted", "unknown"
]


class Input(BaseModel):
    """Base of what people send: closed and strict, so that a slip is told and not guessed away."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: nobody changes it. Pydantic would copy every default of every input, half of what reading costs."""
        return self


class FileInput(Input):
    """A small file put into the working folder before the job starts."""

    path: Path = Field(description="Relative to the job's working folder, without '..'.")
    content: Annotated[str, StringConstraints(max_length=262_144)] = Field(description="The text of the file.")
    executable: bool = False


class OutputInput(Input):
    """A file kept after the end, at most 1 MiB."""

    name: OutputName = Field(description="Its name at `/outputs/{name}`.")
    path: Path = Field(description="Relative to the job's working folder, without '..'.")


class SecretFileInput(Input):
    """A secret of yours, given to the job as a file. The value is never in the job: set it with `serai secrets set`."""

    name: Annotated[str, StringConstraints(pattern=SECRET_PATTERN)] = Field(description="As you have set it in the VO.")
    file: SecretFileName | None = Field(
        default=None, description="Its file in the folder `NOMAD_SECRETS_DIR`; its name when left out."
    )


class GpusInput(Input):
    count: Annotated[int, Field(ge=0, le=64), Whole] = 0
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}$")] | None = Field(
        default=None, description="Part of the model's name, as sites list it."
    )


class ResourcesInput(Input):
    """What one attempt needs."""

    cpu: Annotated[float, Field(ge=0.01, le=1024, allow_inf_nan=False)] = Field(default=1.0, description="Cores.")
    memory: Memory = Field(default=256, description="A plain number is MiB.")
    disk: Disk = Field(default=300, description="A plain number is MiB.")
    gpus: GpusInput = GpusInput()


class SitesInput(Input):
    """Names of sites; an empty `allow` allows all."""

    allow: list[Site] = Field(default=[], max_length=100)
    deny: list[Site] = Field(default=[], max_length=100)
    prefer: list[Site] = Field(default=[], max_length=100)


class CountriesInput(Input):
    """ISO 3166 codes of two capital letters; an empty `allow` allows all."""

    allow: list[Country] = Field(default=[], max_length=100)
    deny: list[Country] = Field(default=[], max_length=100)
    prefer: list[Country] = Field(default=[], max_length=100)


class PlacementInput(Input):
    """Where the job may run, must not run, and would rather run."""

    sites: SitesInput = SitesInput()
    countries: CountriesInput = CountriesInput()


class RetriesInput(Input):
    """Further tries after the first one."""

    attempts: Annotated[int, Field(ge=0, le=20), Whole] = 0
    on: list[Failure] = Field(
        default=["task_error", "out_of_memory", "start_failure", "image_or_artifact", "unknown"],
        max_length=8, description="The failures after which to try again.",
    )  # fmt: skip


class EndpointInput(Input):
    """A port where a service answers."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    port: Annotated[int, Field(ge=0, le=65_535), Whole] = Field(default=0, description="0 = the site chooses.")
    protocol: Literal["http", "https", "tcp"] = "http"
    health_path: Annotated[str, StringConstraints(pattern=HEALTH_PATTERN, max_length=255)] | None = None
    access: Literal["private", "vo", "public"] = "private"


_RULES: Final[dict[str, Any]] = {
    "allOf": [
        {"anyOf": [
            {"required": ["command"], "properties": {"command": {"minItems": 1}}},
            {"required": ["image"], "properties": {"image": {"type": "string"}}},
        ]},
        {"if": {"required": ["endpoints"], "properties": {"endpoints": {"minItems": 1}}},
         "then": {"required": ["kind"], "properties": {"kind": {"const": "service"}}}},
    ]
}  # fmt: skip


class JobFile(Input):
    """A job as its author writes it, in YAML or JSON."""

    model_config = ConfigDict(title="Serai job file", json_schema_extra=_RULES)

    name: JobName = Field(description="For people; need not be unique.")
    vo: VoName = Field(description="The virtual organisation that the job runs for.")
    kind: Literal["batch", "service"] = Field(default="batch", description="A batch job ends; a service runs on.")
    command: list[Annotated[str, StringConstraints(pattern=_NO_NUL, max_length=65_536)]] = Field(
        default=[], max_length=1024, description="Program and arguments, a list of words; no shell is in between."
    )
    image: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")] | None = Field(
        default=None, description="Container image; without it the command runs as a process of the site."
    )
    env: dict[EnvName, Annotated[str, StringConstraints(pattern=_NO_NUL, max_length=32_768)]] = Field(
        default={}, max_length=256, json_schema_extra=_CLOSED
    )
    files: list[FileInput] = Field(default=[], max_length=64)
    outputs: list[OutputInput] = Field(default=[], max_length=64)
    resources: ResourcesInput = ResourcesInput()
    placement: PlacementInput = PlacementInput()
    priority: Annotated[int, Field(ge=1, le=100), Whole] = Field(default=50, description="100 is served first.")
    max_runtime: Long = Field(default=86_400.0, description="Stopped after this long; a plain number is seconds.")
    max_wait: Long = Field(default=604_800.0, description="Given up when not placed by then; seconds.")
    start_deadline: Short = Field(
        default=120.0, description="Tried elsewhere when a site has not begun by then; seconds."
    )
    on_lost: Literal["retry", "wait", "fail"] = Field(default="retry", description="When its node or site is gone.")
    retries: RetriesInput = RetriesInput()
    labels: dict[LabelName, LabelValue] = Field(
        default={}, max_length=32, json_schema_extra=_CLOSED, description="To find jobs by: `label=key:value`."
    )
    metadata: dict[Word, Note] = Field(
        default={}, max_length=64, json_schema_extra=_CLOSED, description="Kept with the job, not searched."
    )
    endpoints: list[EndpointInput] = Field(default=[], max_length=16)
    secrets: list[SecretFileInput] = Field(default=[], max_length=16)

    def to_spec(self) -> JobSpec:
        """The same in the platform's own names and units."""
        wishes = {
            f"{wish}_{what}": getattr(getattr(self.placement, what), wish)
            for what in ("sites", "countries")
            for wish in ("allow", "deny", "prefer")
        }
        resources = self.resources
        plain = self.model_dump(
            exclude={"resources", "placement", "max_runtime", "max_wait", "start_deadline", "secrets"},
            exclude_unset=True,
        )
        return JobSpec.model_validate(
            plain
            | {
                "resources": {
                    "cpu_cores": resources.cpu, "memory_mib": resources.memory, "disk_mib": resources.disk,
                    "gpus": resources.gpus.model_dump(),
                },
                "placement": wishes, "max_runtime_s": self.max_runtime, "max_wait_s": self.max_wait,
                "start_deadline_s": self.start_deadline,
                "secrets": [{"name": each.name, "file": each.file or each.name} for each in self.secrets],
            }
        )  # fmt: skip


def read_job(value: object, prefix: tuple[object, ...] = ()) -> JobSpec:
    """The job that a decoded JSON value asks for. Raises Refused (code `invalid_request`) naming every fault.

    `prefix` leads to the value in what was sent, e.g. `("jobs", 3)` in a batch.
    """
    errors: list[InputError] = _rule_errors(value) if isinstance(value, Mapping) else []
    try:
        spec = None if errors else JobFile.model_validate(value).to_spec()
        if spec is not None:
            return spec
        JobFile.model_validate(value)
    except ValidationError as invalid:
        errors = [*input_errors.from_pydantic(invalid.errors(include_url=False), JobFile), *errors]
    raise refused(errors, prefix)


def read(model: type[M], value: object) -> M:
    """Any other small input. Raises Refused as `read_job` does."""
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        raise refused(input_errors.from_pydantic(invalid.errors(include_url=False), model)) from invalid


def refused(errors: list[InputError], prefix: tuple[object, ...] = ()) -> Refused:
    """The refusal that tells all of them."""
    placed = [InputError(input_errors.pointer(prefix) + error.pointer, error.detail, error.hint) for error in errors]
    return Refused(
        input_errors.sentence(placed), code="invalid_request", details={"errors": input_errors.documents(placed)}
    )


def _rule_errors(job: Mapping[str, Any]) -> list[InputError]:
    """Faults that concern more than one field; told beside the others, whatever else is wrong."""
    errors = []
    if not job.get("command") and job.get("image") is None:
        errors.append(InputError("", "give 'command' (a list of words), 'image', or both"))
    if job.get("endpoints") and job.get("kind") != "service":
        hint = "set 'kind: service', or leave 'endpoints' out"
        errors.append(InputError("/endpoints", "only a service has endpoints", hint))
    if env_bytes(_texts(job.get("env"))) > MOST_ENV_BYTES:
        errors.append(InputError("/env", f"more than {MOST_ENV_BYTES} bytes in all", "put long texts into 'files'"))
    for what, name in (("files", "path"), ("outputs", "name"), ("endpoints", "name")):
        errors.extend(_doubled(what, name, job.get(what)))
    errors.extend(_doubled("secrets", "file", _with_files(job.get("secrets"))))
    return errors


def _texts(env: object) -> dict[str, str]:
    """The variables that are texts; others are told of by the model."""
    given = env.items() if isinstance(env, Mapping) else ()
    return {name: value for name, value in given if isinstance(name, str) and isinstance(value, str)}


def _with_files(secrets: object) -> list[object]:
    """Each secret with its file said aloud."""
    given = secrets if isinstance(secrets, list) else []
    return [{"file": each.get("name"), **each} if isinstance(each, Mapping) else each for each in given]


def _doubled(what: str, name: str, items: object) -> list[InputError]:
    seen: set[str] = set()
    errors = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        given = item.get(name) if isinstance(item, Mapping) else None
        if isinstance(given, str) and given in seen:
            errors.append(InputError(f"/{what}/{index}/{name}", f"{given[:80]!r} is there already; names are unique"))
        elif isinstance(given, str):
            seen.add(given)
    return errors


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the job file."""
    made = JobFile.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", **made,
        "$comment": "Checked beyond this schema: " + "; ".join(BEYOND_SCHEMA) + ".",
    }  # fmt: skip


def is_label(text: str) -> bool:
    """Whether `text` is the name of a label."""
    return re.match(_LABEL_NAME, text) is not None


def refused_parameter(name: str, detail: str) -> Refused:
    """The refusal of a query parameter's value."""
    return refused([InputError(f"/{name}", detail)])
