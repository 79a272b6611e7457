"""Settings of the monitor, read once from `SERAI_MONITOR_*`; frozen."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_DAY_S = 86_400.0


class MonitorSettings(BaseSettings):
    """Every limit and time of watching, judging and keeping. Clusters have settings of their own."""

    model_config = SettingsConfigDict(env_prefix="SERAI_MONITOR_", frozen=True, extra="forbid")

    service_token: SecretStr = Field(
        description="The service's own secret: it derives from it what it seals with, and lets others in by it where "
        "services have no keys (`SERAI_SERVICE_KEYS`). The same at all its copies."
    )
    instance: str = Field(
        default="",
        description="Name of this copy. With one that stays, the copy goes on at once after it was killed: it succeeds "
        "its own earlier life. Of two copies with one name the one that started last leads. Empty = none that stays."
    )  # fmt: skip
    lease_ttl_s: float = Field(
        default=10, ge=1, le=60,
        description="Seconds after which another copy takes over the watching when this one is silent. Under 15: "
        "the promise for failover.",
    )  # fmt: skip
    relist_interval_s: float = Field(
        default=120, gt=0, description="Seconds between re-listings of a cluster (times 0.8 to 1.2, so that clusters "
        "do not move in step): deletions and some status changes are silent on the stream."
    )  # fmt: skip
    namespaces_interval_s: float = Field(
        default=5, gt=0, description="Seconds between looks at a cluster's namespaces: a stream has only those "
        "that were there when it was opened, and is opened anew for another one."
    )  # fmt: skip
    first_line_s: float = Field(
        default=2, gt=0, description="Seconds to wait after a reconnect for the last line to come again; without it "
        "the buffer is new, and a re-listing is due."
    )  # fmt: skip
    fold_batch: int = Field(
        default=64, ge=1, le=1000, description="Stream lines folded in one transaction at most: one commit carries "
        "many, but a body holds up the event loop."
    )  # fmt: skip
    quiet_s: float = Field(
        default=0.1, ge=0, le=5, description="Seconds that stream lines without an allocation wait for one with an "
        "allocation, to be folded together: a job's registration and its placing need one commit then."
    )  # fmt: skip
    listing_batch: int = Field(
        default=100, ge=1, le=1000, description="Attempts of a re-listing folded in one transaction; between two of "
        "them others get their turn."
    )  # fmt: skip
    checkpoint_interval_s: float = Field(
        default=2, gt=0, description="Seconds after which a checkpoint is stored that covers only lines that are not "
        "ours. Longer = more is read again after a restart."
    )  # fmt: skip
    probe_interval_s: float = Field(default=5, gt=0, description="Seconds between two looks at a cluster's leader.")
    probe_timeout_s: float = Field(default=5, gt=0, description="Seconds within which a look must be answered.")
    unreachable_after: int = Field(
        default=3, ge=1, description="Looks without an answer, in a row, that make a site unreachable: one lost answer "
        "is no outage."
    )  # fmt: skip
    reachable_after: int = Field(
        default=2, ge=1, description="Answers in a row that make an unreachable site reachable again."
    )
    observe_interval_s: float = Field(
        default=30, gt=0, description="Seconds between tellings of a site's capacity when it does not change: the "
        "scheduler takes it as a sign of life of site and monitor."
    )  # fmt: skip
    vanish_few: int = Field(
        default=5,
        ge=0,
        description="Attempts of a site, and of all sites of its cluster together, that may vanish "
        "within `vanish_window_s` and be believed lost.",
    )
    vanish_share: float = Field(
        default=0.2, ge=0, le=1, description="Or this part of the live attempts there. More make the site suspect: a "
        "narrowed token must not look like a mass death."
    )  # fmt: skip
    vanish_window_s: float = Field(default=60, gt=0, description="Seconds in which vanished attempts count together.")
    log_bytes: int = Field(
        default=256 * 1024, ge=0, le=16 * 1024 * 1024, description="Bytes kept of the end of each log."
    )
    output_bytes: int = Field(
        default=1024 * 1024,
        ge=0,
        le=16 * 1024 * 1024,
        description="Most bytes of one kept output; larger ones are not kept.",
    )
    keep_concurrency: int = Field(
        default=8, ge=1, le=100, description="Ended attempts fetched from at a time, over all clusters; each holds one "
        "or two of a cluster's connections."
    )  # fmt: skip
    keep_timeout_s: float = Field(
        default=60, gt=0, description="Seconds for fetching logs and outputs of one attempt, each time it is tried."
    )
    keep_for_s: float = Field(
        default=_DAY_S, gt=0, description="Seconds for which fetching is tried again while a site does not answer; "
        "Nomad itself forgets ended allocations after some hours."
    )  # fmt: skip
    settle_s: float = Field(
        default=5, ge=0, description="Seconds that a question about logs or outputs waits for those of an attempt that "
        "has just ended."
    )  # fmt: skip
    log_patience_s: float = Field(
        default=30, ge=0, description="Seconds for which a followed log is tried again when its site does not answer."
    )
    retention_s: float = Field(
        default=365 * _DAY_S,
        gt=0,
        description="Seconds that ended attempts, their events, logs and outputs are kept: as long as their jobs.",
    )
    site_message_retention_s: float = Field(
        default=14 * _DAY_S, gt=0, description="Seconds that published site events stay in the outbox."
    )
    janitor_interval_s: float = Field(default=3600, gt=0, description="Seconds between rounds of the janitor.")
