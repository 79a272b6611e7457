"""What the platform on real parts on one machine can be told."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LocalSettings(BaseSettings):
    """Real parts in a folder of their own, and how many copies of each service."""

    model_config = SettingsConfigDict(env_prefix="SERAI_LOCAL_", frozen=True, extra="forbid")

    data: Path | None = Field(
        None, description="Folder for everything: databases, broker, agents, logs. Empty = a fresh one. It must be "
        "new: the parts in it are thrown away, unlike those of `serai-platform up`."
    )  # fmt: skip
    port: int = Field(8080, ge=1, le=65535, description="TCP port of the first gateway; the next free one if taken.")
    sites: Path | None = Field(None, description="YAML file of sites; see SERAI_UP_SITES.")
    nomad: str = Field("auto", description="`auto`, `embedded`, or the path of a nomad; see SERAI_UP_NOMAD.")
    copies: int = Field(1, ge=1, le=4, description="Copies of each of the four services.")
    store: Literal["auto", "postgres", "sqlite"] = Field(
        "auto", description="`auto` = PostgreSQL where it is installed. SQLite allows one copy of each service."
    )
    registry: Literal["auto", "consul", "file"] = Field(
        "auto", description="`auto` = Consul where it is installed; `file` = addresses in settings, health by looking."
    )
    amqp_url: str = Field("", description="A RabbitMQ that runs; empty = Debian's, started for the purpose.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    ready_within_s: float = Field(90.0, gt=0, description="Seconds until a start that is not ready is given up.")
