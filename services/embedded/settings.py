"""What the embedded platform can be told. Read once, by `services.__main__`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbeddedSettings(BaseSettings):
    """The whole platform in one process on one machine."""

    model_config = SettingsConfigDict(env_prefix="SERAI_UP_", frozen=True, extra="forbid")

    port: int = Field(8080, ge=1, le=65535, description="TCP port of the gateway; the next free one if it is taken.")
    data: Path = Field(Path(".serai"), description="Folder for databases, keys, logs and the sites' own state.")
    sites: Path | None = Field(
        None, description="YAML file of sites instead of the three built-in ones; `docs/sites.md` has its form."
    )
    bus: Literal["embedded", "amqp"] = Field(
        "embedded", description="`amqp` uses a RabbitMQ: at AMQP_URL, or Debian's started for the purpose."
    )
    amqp_url: str = Field(
        "", description="Address of a RabbitMQ, amqp://user:password@host:port/vhost; AMQP_URL does the same."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="Least level that is logged."
    )
    client_tick_s: float = Field(
        0.0, ge=0, le=5, description="Seconds between status updates of the embedded agents; a real Nomad needs 0.2."
    )
    nomad: str = Field(
        "embedded", description="`embedded` agents, or `auto`: a real Nomad region for each site where a `nomad` is on "
        "PATH (or NOMAD_BIN), or the path of one."
    )  # fmt: skip
    token_life_s: int = Field(
        28_800, ge=10, le=86_400, description="Seconds that a demo user's token is good; a working day, so that nobody "
        "who looks around has to sign in again and again. Other issuers give an hour or less."
    )  # fmt: skip
    mock: bool = Field(False, description="Sites offer Nomad's mock_driver, which starts no process: for load tests.")
    health_interval_s: float = Field(
        5.0, gt=0, description="Seconds between looks at a site's health, as Consul's checks of Nomad servers have."
    )
    end_tasks: bool = Field(False, description="End the sites' tasks at the end; otherwise they run on, as with Nomad.")
    ready_within_s: float = Field(40.0, gt=0, description="Seconds until a start that is not ready is given up.")
