"""What every process is told: where its database, the bus, the other services and the sites are.

Settings come from the environment and from one YAML file (`SERAI_SETTINGS`), the environment first. The file has a
section for the process and one for each service: `process: {amqp_url: ...}`, `gateway: {heartbeat_s: 10}`.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.adapters.consul.settings import ConsulSettings
from shared.errors import Misconfigured
from shared.runtime.edge import EdgeSettings
from shared.runtime.service_identity import Door, Identity, private_key, public_keys

FILE_VARIABLE: Final = "SERAI_SETTINGS"
SECTIONS: Final = ("process", "gateway", "scheduler", "monitor", "auth")
PORTS: Final = {"gateway": 8080, "auth": 8081, "scheduler": 8082, "monitor": 8083}
"""Where a service listens when nothing else is said."""

S = TypeVar("S", bound=BaseSettings)


class ProcessSettings(BaseSettings):
    """One process with one service."""

    model_config = SettingsConfigDict(
        env_prefix="SERAI_", frozen=True, extra="forbid", env_nested_delimiter="__", env_nested_max_split=1
    )

    service_key: SecretStr = Field(
        SecretStr(""), description="Needed. This service's own private key, by which the others know it "
        "(`serai-platform service-keys` makes one for each)."
    )  # fmt: skip
    service_keys: str = Field(
        "", description="Needed. Public keys of all services, the same everywhere: "
        "`gateway=<key>,scheduler=<key>,...`. A service may stand there twice while its key is being replaced."
    )  # fmt: skip
    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` in a container.")
    port: int = Field(
        0, ge=0, le=65535,
        description="TCP port. 0 = the service's own: gateway 8080, auth 8081, scheduler 8082, monitor 8083.",
    )  # fmt: skip
    advertise: str = Field(
        "", description="URL under which other services reach this process; empty = `http://host:port`."
    )
    database_url: SecretStr = Field(
        description="The service's own database, with its password: `postgresql://user:password@host:5432/name`, or "
        "`sqlite:///path` for one copy. `{service}` in it becomes the service's name."
    )  # fmt: skip
    amqp_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="RabbitMQ, with user and password: `amqp://` or `amqps://user:password@host:port/vhost`.",
    )
    amqp_declare: bool = Field(
        True, description="Make the exchanges and queues at start. False where the service's user may not configure: "
        "then an administrator runs `serai-platform rabbitmq declare`."
    )  # fmt: skip
    consul: ConsulSettings | None = Field(
        None, description="Our Consul agent, see below. It tells where sites and services are and how healthy; empty = "
        "no Consul: addresses stand in settings, and we look at the sites' health ourselves."
    )  # fmt: skip
    edge: EdgeSettings = Field(EdgeSettings(), description="What is refused before it is looked at, see below.")
    instance: str = Field("", description="Name of this copy in Consul; empty = the service, host and port.")
    auth_url: str = Field(
        "http://127.0.0.1:8081", description="Where auth answers, unless Consul tells it; several copies with commas."
    )
    scheduler_url: str = Field("http://127.0.0.1:8082", description="Where the scheduler answers; as above.")
    monitor_url: str = Field("http://127.0.0.1:8083", description="Where the monitor answers; as above.")
    sites: Path | None = Field(
        None, description="YAML file of clusters and sites (scheduler and monitor); `docs/processes.md` has its form. "
        "Only what stands there is ever contacted."
    )  # fmt: skip
    site_health_interval_s: float = Field(
        5, gt=0, description="Seconds between looks at each site's health, where Consul does not do it."
    )
    otlp_endpoint: str = Field(
        "", description="URL of an OpenTelemetry collector (OTLP over HTTP), as `http://collector:4318`; empty = spans "
        "are not sent. One that wants a token is given it by OpenTelemetry's own `OTEL_EXPORTER_OTLP_HEADERS`, as "
        "`Authorization=Bearer%20...`."
    )  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    drain_s: float = Field(
        10, gt=0, le=120, description="Seconds for requests and tasks to end after SIGTERM; then they are cut."
    )

    @field_validator("advertise", "auth_url", "scheduler_url", "monitor_url")
    @classmethod
    def _are_urls(cls, told: str) -> str:
        for url in _split(told):
            if not re.fullmatch(r"https?://[^\s/@]+/?", url):
                raise ValueError(f"write http(s)://host:port without a path, not {url!r}")
        return told

    @model_validator(mode="after")
    def _services_know_each_other(self) -> Self:
        if not self.service_key.get_secret_value() or not self.service_keys:
            raise ValueError(
                "SERAI_SERVICE_KEY and SERAI_SERVICE_KEYS: both are needed, this service's own and those of all, so "
                "that services know each other: `serai-platform service-keys` makes them"
            )
        return self

    def identity(self, service: str) -> Identity:
        """What this process shows to others. Raises Misconfigured for a key that is not the one that they know."""
        key, known = private_key(self.service_key.get_secret_value()), public_keys(self.service_keys).get(service, ())
        if key.thumbprint() not in {each.thumbprint() for each in known}:
            raise Misconfigured(
                f"SERAI_SERVICE_KEY: its public half is not among those of {service} in SERAI_SERVICE_KEYS"
            )
        return Identity(service, key)

    def door(self, service: str) -> Door:
        """How this process knows others."""
        return Door(service, public_keys(self.service_keys))

    @model_validator(mode="after")
    def _others_can_reach_us(self) -> Self:
        if self.consul is not None and not self.advertise and self.host in ("0.0.0.0", "::"):
            raise ValueError(
                f"SERAI_ADVERTISE: needed with Consul where SERAI_HOST is {self.host}: say at which URL others "
                "reach this process"
            )
        return self

    def database(self, service: str) -> str:
        """The database address of a service."""
        return self.database_url.get_secret_value().replace("{service}", service)

    def listen_port(self, service: str) -> int:
        return self.port or PORTS[service]

    def own_url(self, service: str) -> str:
        """Where others reach this process."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.advertise.rstrip("/") or f"http://{host}:{self.listen_port(service)}"

    def own_name(self, service: str) -> str:
        """This copy's name among the copies of its service."""
        return self.instance or f"{service}-{socket.gethostname()}-{self.listen_port(service)}"

    def addresses(self, service: str) -> tuple[str, ...]:
        """Where the copies of another service answer, by these settings."""
        return _split({"auth": self.auth_url, "scheduler": self.scheduler_url, "monitor": self.monitor_url}[service])


def _split(urls: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in urls.split(",") if url.strip())


def read_file(environment: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """The sections of the settings file, empty without one. Raises Misconfigured with file and place."""
    name = environment.get(FILE_VARIABLE)
    if not name:
        return {}
    found = _yaml(name)
    if not isinstance(found, dict) or not all(isinstance(section, dict | None) for section in found.values()):
        raise Misconfigured(f"{FILE_VARIABLE}={name}: write sections with settings in them: {', '.join(SECTIONS)}")
    if unknown := sorted(map(str, set(found) - set(SECTIONS))):
        raise Misconfigured(f"{FILE_VARIABLE}={name}: unknown section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return {
        section: {str(setting): value for setting, value in (told or {}).items()} for section, told in found.items()
    }


def _yaml(name: str) -> Any:
    """What the file says. Errors give the line and not its text: there may be a secret in it."""
    try:
        return yaml.safe_load(Path(name).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise Misconfigured(f"{FILE_VARIABLE}={name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{FILE_VARIABLE}={name}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise Misconfigured(f"{FILE_VARIABLE}={name}{line}: not YAML: {getattr(error, 'problem', '')}") from None


def read_settings(kind: type[S], section: Mapping[str, Any], **given: Any) -> S:
    """Settings of one kind: `given` first, then the environment, then the file's section, then defaults.

    Raises Misconfigured naming each wrong setting as the environment spells it.
    """
    prefix = kind.model_config.get("env_prefix", "")
    told = _left_to_file(section, prefix, kind.model_config.get("env_nested_delimiter"))
    try:
        return kind(**(told | given))
    except ValidationError as error:
        wrong = "; ".join(_words(kind, each) for each in error.errors(include_input=False))
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{prefix}{field.group(1)}".upper() if field else "the environment"
        wrong = f"{name}: is not JSON: {error.__cause__ or error}"
    raise Misconfigured(f"settings: {wrong} (docs/settings.md lists all)")


def _left_to_file(section: Mapping[str, Any], prefix: str, delimiter: str | None) -> dict[str, Any]:
    """What of a section the environment does not say: of a setting with parts (`consul`), part by part."""
    environment = {name.upper() for name in os.environ}
    left: dict[str, Any] = {}
    for name, value in section.items():
        variable = (prefix + name).upper()
        if variable in environment:
            continue
        if delimiter and isinstance(value, Mapping):
            value = {
                part: each for part, each in value.items() if f"{variable}{delimiter}{part}".upper() not in environment
            }
        left[name] = value
    return left


def _words(kind: type[BaseSettings], fault: Any) -> str:
    """One wrong setting, by the name of its variable."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    first, *parts = (str(part) for part in fault["loc"])
    prefix, delimiter = kind.model_config.get("env_prefix", ""), kind.model_config.get("env_nested_delimiter")
    if delimiter and parts:
        first, parts = f"{first}{delimiter}{parts[0]}", parts[1:]
    place = "".join(f"{part}: " for part in (".".join(parts),) if part)
    if fault["type"] == "extra_forbidden":
        message = "there is no such setting"
    return f"{(prefix + first).upper()}: {place}{message}"
