"""Settings of the gateway, read once from `SERAI_GATEWAY_*`; frozen."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway import rates


class Issuer(BaseModel):
    """An identity provider whose tokens are accepted, as `GET /v1` names it to clients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(description="Issuer URL as in the tokens' `iss`; its discovery document lies under it.")
    name: str = Field(default="", description="Name for people.")
    client_id: str | None = Field(default=None, description="Public client that command-line tools may use.")
    scopes: tuple[str, ...] = Field(
        default=("openid", "profile", "offline_access"),
        description="Scopes to ask for; most issuers give refresh tokens for `offline_access` only.",
    )
    audience: str | None = Field(
        default=None, description="Audience to ask for, where an issuer puts one into its tokens only when asked "
        "(INDIGO IAM, WLCG, RFC 8707)."
    )  # fmt: skip
    join_url: str | None = Field(
        default=None, description="Page where people ask for membership of a VO, e.g. of the VO's registry."
    )
    demo_token_endpoint: str | None = Field(
        default=None, description="Only of a development issuer: where demo users get tokens without a browser."
    )


class GatewaySettings(BaseSettings):
    """Every limit and time of the public API."""

    model_config = SettingsConfigDict(env_prefix="SERAI_GATEWAY_", frozen=True, extra="forbid")

    service_token: SecretStr = Field(
        description="The service's own secret: keys the MAC of list cursors. The same at all its copies."
    )
    public_url: str = Field(
        default="", description="URL under which users reach the gateway, without a slash at the end. Empty = links "
        "and problem types are relative, which is right behind any proxy."
    )  # fmt: skip
    issuers: tuple[Issuer, ...] = Field(
        default=(), description="Issuers that `GET /v1` names; auth decides whom to trust."
    )
    progress_every_s: float = Field(
        default=2, gt=0, description="Seconds between two reports of progress that an attempt may make; old attempts "
        "make them more seldom, one in a five hundredth of their age."
    )  # fmt: skip
    context_cache_s: float = Field(
        default=50, gt=0, le=55,
        description="Seconds that a verified token's context is reused. Under 60, the life of the read grant in it.",
    )  # fmt: skip
    stale_context_s: float = Field(
        default=600, ge=0, le=3600,
        description="Seconds that reads go on with a known context while auth is away; the token's life at most.",
    )  # fmt: skip
    refused_cache_s: float = Field(
        default=5, ge=0, le=60, description="Seconds that a refused token stays refused unasked: spares auth a flood."
    )
    context_cache_size: int = Field(default=10_000, ge=1, description="Contexts kept; the longest unused goes first.")
    body_limit: int = Field(default=1_048_576, ge=1024, description="Bytes of one job file; more is 413.")
    batch_body_limit: int = Field(default=16_777_216, ge=1024, description="Bytes of one batch; more is 413.")
    batch_limit: int = Field(
        default=1_000, ge=1, le=1_000, description="Jobs of one batch: one grant question's worth."
    )
    wait_limit_s: float = Field(
        default=60, gt=0, le=300, description="Most seconds that `Prefer: wait` holds an answer; proxies cut at 60."
    )
    heartbeat_s: float = Field(
        default=15, gt=0, le=60, description="Seconds between comments on a quiet event stream; proxies cut idle ones."
    )
    stream_limit: int = Field(
        default=500, ge=1, description="Open event streams and followed logs of this copy; more get 503."
    )
    rate_reads: str = Field(
        default="300000/minute", description="Reads of one principal, as `100/second`; empty = no limit. All of it may "
        "come at once; then it flows back evenly. More get 429. Each copy of the gateway counts for itself."
    )  # fmt: skip
    rate_changes: str = Field(
        default="60000/minute", description="Changes of one principal: requests that are no reads, and each job of a "
        "batch; as above."
    )  # fmt: skip
    rate_vo_jobs: str = Field(
        default="120000/minute", description="Jobs handed in for one VO, by all of its members; as above."
    )
    rate_strangers: str = Field(
        default="6000/minute", description="Requests without a good token from one address; as above. Behind a proxy "
        "set SERAI_EDGE__TRUSTED_PROXIES, else all come from the proxy's."
    )  # fmt: skip
    outbox_limit_s: float = Field(
        default=300, gt=0, description="Age in seconds of the oldest unsent command from which new work gets 503."
    )
    log_retention_s: float = Field(
        default=30 * 86_400, gt=0, description="Seconds that the event log is kept: as long as the bus's stream."
    )
    key_retention_s: float = Field(default=14 * 86_400, gt=0, description="Seconds that idempotency keys are kept.")
    job_retention_s: float = Field(default=365 * 86_400, gt=0, description="Seconds that ended jobs are shown.")
    janitor_interval_s: float = Field(default=3_600, gt=0, description="Seconds between rounds of the janitor.")
    fold_batch: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="Events folded in one transaction at most: one commit carries many, and "
        "nobody else is served meanwhile.",
    )
    read_span_every: int = Field(
        default=100, ge=0, description="One span for every so many `GET /v1/jobs/{id}` (0 = none): a span costs more "
        "than the read itself."
    )  # fmt: skip
    instance: str = Field(
        default="", description="Name of this copy of the gateway; empty = a new one at each start. With a name of its "
        "own, a copy that was killed feeds subscriptions again at once and not after `lease_s`."
    )  # fmt: skip
    lease_s: float = Field(
        default=10,
        gt=0,
        le=60,
        description="Seconds after which another copy feeds the subscriptions of one that died.",
    )
    subscribers_amqp_url: SecretStr = Field(
        default=SecretStr(""), description="RabbitMQ for readers outside the platform, with our user and the virtual "
        "host `public`: `amqp(s)://user:password@host:port/public`. Empty = no subscriptions."
    )  # fmt: skip
    subscribers_management_url: SecretStr = Field(
        default=SecretStr(""), description="The same broker's management API, with an administrator: "
        "`http(s)://user:password@host:15672`. `docs/rabbitmq.md` says why it should be a broker of its own."
    )  # fmt: skip
    subscribers_public_url: str = Field(
        default="",
        description="Where readers reach that broker, `amqps://host:5671/public`; empty = the address above.",
    )
    subscription_length: int = Field(
        default=10_000, ge=10, le=1_000_000, description="Most messages that wait in one subscriber's queue; what "
        "comes later waits in the event log."
    )  # fmt: skip
    subscription_lag_s: float = Field(
        default=10, gt=0, le=60, description="Seconds that the broker's figures about a queue may be old: RabbitMQ's "
        "tick of 5 s, twice."
    )  # fmt: skip
    subscriptions_of_user: int = Field(default=10, ge=1, description="Most subscriptions of one user.")
    subscriptions_of_vo: int = Field(default=200, ge=1, description="Most subscriptions to one VO.")
    subscription_credentials_s: float = Field(
        default=3_600, ge=10, le=86_400, description="Seconds that a subscription's login is good before it must be "
        "renewed with a valid token: the longest that somebody hears on who never comes again."
    )  # fmt: skip
    subscription_idle_s: float = Field(
        default=3 * 86_400, ge=10, le=30 * 86_400, description="Seconds without a reader until a subscription ends."
    )
    subscription_recheck_s: float = Field(
        default=2, gt=0, le=30, description="Seconds between looks whether a subscription's owner may still hear."
    )
    subscription_retention_s: float = Field(
        default=7 * 86_400, gt=0, description="Seconds that a subscription is shown to its owner after its end."
    )

    @field_validator("rate_reads", "rate_changes", "rate_vo_jobs", "rate_strangers")
    @classmethod
    def _are_rates(cls, told: str) -> str:
        try:
            rates.read_limit("", told)
        except ValueError as error:
            raise ValueError(f"{told!r} is no rate; write 100/second, 6000/minute, or nothing for no limit") from error
        return told

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        for name in ("rate_changes", "rate_vo_jobs"):
            limit = rates.read_limit(name, getattr(self, name))
            if limit is not None and limit.amount < self.batch_limit:
                raise ValueError(f"{name}: a batch of batch_limit ({self.batch_limit}) jobs would never be let in")
        return self
