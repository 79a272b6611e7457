"""What the scheduler can be told. Read once, by whoever runs it; every default is meant for production."""

from itertools import pairwise
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.job import VoName
from shared.namespaces import DEFAULT, NamespaceName


class SchedulerSettings(BaseSettings):
    """Grace times, retries, the leader's loops, limits and retention."""

    model_config = SettingsConfigDict(env_prefix="SERAI_SCHEDULER_", frozen=True, extra="forbid")

    service_token: SecretStr = Field(
        description="The service's own secret: it derives from it what it seals with, and lets others in by it where "
        "services have no keys (`SERAI_SERVICE_KEYS`). The same at all its copies."
    )
    namespaces: dict[VoName, NamespaceName] = Field(
        default_factory=dict, description="Nomad namespaces of VOs that had one before, the same at every site. A VO "
        "not named has its own, made from its name (docs/sites.md)."
    )  # fmt: skip
    # -- grace times --
    node_grace_s: float = Field(
        120, ge=0, description="Seconds a batch attempt's node may be away before the attempt is given up (`on_lost`)."
    )
    site_grace_s: float = Field(
        300, ge=0, description="Seconds a site may be unreachable for the monitor and critical in the registry before "
        "its attempts are given up (`on_lost`). Longer than a restart of its servers takes."
    )  # fmt: skip
    cancel_grace_s: float = Field(
        900, gt=0, description="Seconds a site has to confirm a stop; then a cancel ends unconfirmed."
    )
    tried_before_s: float = Field(
        300, ge=0, description="Seconds for which a site that did not start a job in time is left out for that job."
    )
    outcome_s: float = Field(
        10, ge=0, description="Seconds the monitor has to tell how an attempt ended that its site says is over."
    )
    monitor_silence_s: float = Field(
        180, gt=0, description="Seconds without news of a site after which start_deadline and node_grace are not held "
        "against its attempts: the monitor's silence is not theirs."
    )  # fmt: skip
    register_limit_s: float = Field(
        3600, gt=0, le=3600, description="Seconds after which a register in doubt is never sent again: Nomad may have "
        "forgotten by then that the id was used."
    )  # fmt: skip
    wait_limit_s: float = Field(
        29 * 86_400, gt=0, description="Seconds that `on_lost: wait` waits for a node; below Nomad's `lost_after`."
    )
    # -- retries --
    retry_first_s: float = Field(1, ge=0, description="Seconds before the first retry; doubles with every further one.")
    retry_most_s: float = Field(300, ge=0, description="Longest pause in seconds before a retry.")
    most_attempts: int = Field(
        50, ge=1, le=900, description="Attempts of one job in all, those that cost no retry included: a loop must end."
    )
    # -- the leader --
    instance: str = Field(
        "",
        description="Name of this copy. With one that stays, the copy goes on at once after it was killed: it succeeds "
        "its own earlier life. Of two copies with one name the one that started last leads. Empty = none that stays."
    )  # fmt: skip
    lease_s: float = Field(
        10, gt=0, le=11, description="Seconds a leader's lease is good; failover takes this and a third more at most."
    )
    tick_s: float = Field(
        1, gt=0, le=10, description="Seconds between looks at the queue, deadlines and owed calls without being woken."
    )
    recheck_s: float = Field(
        0.1, ge=0, description="Least seconds between two looks at jobs that found no room, however much is freed."
    )
    tell_after_s: float = Field(
        1, ge=0, description="Seconds a job is queued before it is told why it is not placed: most are by then."
    )
    retell_after_s: float = Field(
        30, ge=0, description="Least seconds between two tellings that a job waits for another reason now."
    )
    batch: int = Field(32, ge=1, le=1000, description="Most placements in one transaction: longer ones hold up others.")
    decision_cache_s: float = Field(
        60, ge=0, le=60, description="Seconds auth's answer about an owner at a site is used for further jobs."
    )
    auth_pause_s: float = Field(
        2, gt=0, description="Seconds before auth is asked again when it did not answer; its jobs wait meanwhile."
    )
    # -- calls to the sites --
    calls_per_cluster: int = Field(
        4,
        ge=1,
        le=50,
        description="Calls to one Nomad cluster at a time. More than the scheduler has connections "
        "there (half of a cluster's `connections`, less one) wait for one, and time out while they wait.",
    )
    call_first_s: float = Field(
        0.5, gt=0, description="Seconds before a call that failed is made again; doubles with every failure."
    )
    call_most_s: float = Field(60, gt=0, description="Longest pause in seconds before a failed call is made again.")
    stop_poll_s: float = Field(
        2, gt=0, description="Seconds between looks whether a stopped attempt is over, where the monitor does not say."
    )
    leftovers_s: float = Field(
        300, gt=0, description="Seconds between looks at the clusters for secrets that outlived their attempt."
    )
    namespaces_s: float = Field(60, gt=0, description="Seconds between looks at which Nomad namespaces a cluster has.")
    stop_unknown_strays: bool = Field(
        True,
        description="Stop attempts of jobs that we have no record of. Turn off before restoring an old database, "
        "and where another platform uses the same cluster.",
    )
    # -- retention --
    retention_s: float = Field(
        365 * 86_400, gt=0, description="Seconds that ended jobs, their attempts and events are kept."
    )
    inbox_s: float = Field(
        14 * 86_400, gt=0, description="Seconds that ids of handled messages and cancels of unknown jobs are kept."
    )
    janitor_interval_s: float = Field(600, gt=0, description="Seconds between rounds of forgetting.")
    prefetch: int = Field(32, ge=1, le=1000, description="Messages of each queue in hand at a time.")

    @model_validator(mode="after")
    def _a_namespace_each(self) -> Self:
        names = sorted(self.namespaces.values())
        if doubled := [name for name, after in pairwise(names) if name == after]:
            raise ValueError(f"namespaces: {doubled[0]!r} is given to two VOs; each needs its own")
        if DEFAULT in names:
            raise ValueError(f"namespaces: {DEFAULT!r} is everybody's at a site; name another")
        return self
