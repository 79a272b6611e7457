"""What a policy can say of a job, and what a job asks for. Pure values; the same rules serve auth and scheduler.

A policy only ever takes away: `None` is no restriction of this kind, and policies are joined by intersection (`meet`),
so no layer (platform, VO, site) can widen another. Auth decides with it when a job is handed in, the scheduler when
it is placed. Resources are in cores, MiB and seconds, as in the job.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property, reduce
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, field_validator

from shared.contracts import images
from shared.job import JobSpec, SiteName, Value

Driver = Literal["docker", "exec", "raw_exec", "mock_driver"]
Network = Literal["host", "bridge"]
Access = Literal["private", "vo", "public"]

_COMMAND_DRIVERS: Final[frozenset[Driver]] = frozenset({"exec", "raw_exec"})
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Ceiling(Value):
    """The most of each kind, of one job or of all jobs together that are at sites; None = no restriction."""

    cpu_cores: Amount | None = None
    memory_mib: Amount | None = None
    disk_mib: Amount | None = None
    gpus: Amount | None = None
    jobs: Annotated[int, Field(ge=0)] | None = None


class Policy(Value):
    """What one layer, or all together, allow. Sets that are there but empty allow nothing of their kind.

    `job`, `user`, `vo`: ceilings for one job, for all of one owner in the VO, for all of the VO. `assurance`: values
    of `eduperson_assurance` that the owner must have, all of them. `on_suspension`: what becomes of running jobs when
    the VO is suspended.
    """

    sites: frozenset[SiteName] | None = None
    images: frozenset[str] | None = None
    drivers: frozenset[Driver] | None = None
    networks: frozenset[Network] | None = None
    access: frozenset[Access] | None = None
    job: Ceiling = Ceiling()
    user: Ceiling = Ceiling()
    vo: Ceiling = Ceiling()
    max_runtime_s: Amount | None = None
    max_wait_s: Amount | None = None
    assurance: frozenset[Annotated[str, Field(min_length=1, max_length=255)]] = frozenset()
    on_suspension: Literal["let_run", "stop"] = "let_run"

    @field_validator("images")
    @classmethod
    def _rules(cls, texts: frozenset[str] | None) -> frozenset[str] | None:
        return None if texts is None else frozenset(str(images.rule(text)) for text in texts)

    @cached_property
    def limits(self) -> tuple["Limit", ...]:
        """Every figure that bounds one job by itself."""
        bounds = {**self.job.model_dump(), "max_runtime_s": self.max_runtime_s, "max_wait_s": self.max_wait_s}
        return tuple(Limit(of, "job", bounds[of]) for of in _FIGURES if bounds.get(of) is not None and of != "jobs")

    @cached_property
    def all_limits(self) -> tuple["Limit", ...]:
        """Those, and every figure that bounds all jobs of a user, or of the VO, together."""
        found = [(whose, of, getattr(ceiling, of)) for whose, ceiling in (("user", self.user), ("vo", self.vo))
                 for of in Ceiling.model_fields]  # fmt: skip
        return (*self.limits, *(Limit(of, whose, most) for whose, of, most in found if most is not None))

    @cached_property
    def names_ways(self) -> bool:
        """Whether it restricts how jobs run or are reached."""
        return any(each is not None for each in (self.drivers, self.networks, self.access))

    @cached_property
    def about_jobs(self) -> bool:
        """Whether it restricts what a job may ask for: then nobody may hand one in without saying what it asks."""
        named = self.images, self.drivers, self.networks, self.access, self.max_runtime_s, self.max_wait_s
        ceilings = self.job, self.user, self.vo
        return any(each is not None for each in named) or any(each != Ceiling() for each in ceilings)


class Demand(Value):
    """What a job asks for, as far as policies speak of it. It is one job."""

    jobs: ClassVar[int] = 1
    cpu_cores: float
    memory_mib: int
    disk_mib: int
    gpus: int
    image: str | None
    access: tuple[Access, ...]
    max_runtime_s: float
    max_wait_s: float
    mock: bool = False
    secrets: Annotated[tuple[str, ...], Field(exclude_if=lambda named: not named)] = ()
    """Names of the owner's secrets, each once and in order; left out where there are none (`JobSpec.secrets`)."""

    @property
    def network(self) -> Network:
        """A container has a network of its own, a command that of its node."""
        return "host" if self.image is None else "bridge"

    def digest(self) -> str:
        """SHA-256 (hex): what a grant says of it, so that its receiver can hold it against the job itself."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Objection(Value):
    """Why a policy does not allow something: a closed code and a sentence for people."""

    code: str
    message: str


def demand_of(spec: JobSpec) -> Demand:
    """What a job asks for."""
    resources = spec.resources
    return Demand(
        cpu_cores=resources.cpu_cores, memory_mib=resources.memory_mib, disk_mib=resources.disk_mib,
        gpus=resources.gpus.count, image=spec.image, access=tuple(sorted({each.access for each in spec.endpoints})),
        max_runtime_s=spec.max_runtime_s, max_wait_s=spec.max_wait_s, mock="serai.mock" in spec.metadata,
        secrets=tuple(sorted({each.name for each in spec.secrets})),
    )  # fmt: skip


# -- joining ------------------------------------------------------------------------------------------------------


def meet(one: Policy, other: Policy) -> Policy:
    """What both allow. Associative and commutative; never more than either."""
    return Policy(
        sites=_both(one.sites, other.sites),
        images=_both_images(one.images, other.images),
        drivers=_both(one.drivers, other.drivers),
        networks=_both(one.networks, other.networks),
        access=_both(one.access, other.access),
        job=_lower(one.job, other.job),
        user=_lower(one.user, other.user),
        vo=_lower(one.vo, other.vo),
        max_runtime_s=_least(one.max_runtime_s, other.max_runtime_s),
        max_wait_s=_least(one.max_wait_s, other.max_wait_s),
        assurance=one.assurance | other.assurance,
        on_suspension="stop" if "stop" in (one.on_suspension, other.on_suspension) else "let_run",
    )


def effective(layers: Iterable[Policy]) -> Policy:
    """What all layers allow."""
    return reduce(meet, layers, Policy())


def _both(one: frozenset[Any] | None, other: frozenset[Any] | None) -> frozenset[Any] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _both_images(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    pairs = (images.both(images.rule(a), images.rule(b)) for a in one for b in other)
    return frozenset(str(rule) for rule in pairs if rule is not None)


def _least(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _lower(one: Ceiling, other: Ceiling) -> Ceiling:
    return Ceiling(**{name: _least(getattr(one, name), getattr(other, name)) for name in Ceiling.model_fields})


# -- judging ------------------------------------------------------------------------------------------------------


def objections(demand: Demand, policy: Policy, whose: str, *, handed_in: bool = False) -> list[Objection]:
    """Everything that a policy has against what a job asks for. `whose` begins the sentences: `VO vo.x`, `site y`.

    `handed_in`: also where it alone asks for more than all jobs of its owner, or of its VO, may have together. A queued
    job is not asked that: it waits, for what was narrowed can be widened again.
    """
    limits = policy.all_limits if handed_in else policy.limits
    found = [
        limit.objection(asked, whose) for limit in limits if not (asked := getattr(demand, limit.of)) <= limit.most
    ]
    if policy.names_ways:
        found += _not_among(demand, policy, whose)
    return [*found, *_image(demand, policy, whose)] if policy.images is not None else found


class Limit(NamedTuple):
    """The most of one figure of a demand: for one `job`, for all of a `user` or for all of a `vo`."""

    of: str
    whose: str
    most: float

    def objection(self, asked: float, whose: str) -> Objection:
        """What is said of a demand above it."""
        name, unit, where = _FIGURES[self.of]
        lower = f"lower `{where}` in the job file, or " if where else ""
        if self.whose == "job":
            message = (
                f"{whose} allows at most {self.most:g} {unit} for one job, this one asks for {asked:g}: {lower}"
                "ask a manager of the VO for more"
            )
            return Objection(code=f"{name}_above_ceiling", message=message)
        all_jobs = "all jobs of one user" if self.whose == "user" else "all jobs of a VO"
        message = (
            f"{whose} lets {all_jobs} together have at most {self.most:g} {unit}, this one alone asks for {asked:g} "
            f"and could never be placed: {lower}ask a manager of the VO for more"
        )
        return Objection(code=f"{name}_above_{self.whose}_ceiling", message=message)


_FIGURES: Final = {
    "cpu_cores": ("cpu", "cores", "resources.cpu"),
    "memory_mib": ("memory", "MiB of memory", "resources.memory"),
    "disk_mib": ("disk", "MiB of disk", "resources.disk"),
    "gpus": ("gpus", "GPUs", "resources.gpus"),
    "jobs": ("jobs", "jobs", ""),
    "max_runtime_s": ("runtime", "seconds of running", "max_runtime"),
    "max_wait_s": ("wait", "seconds of waiting", "max_wait"),
}
"""Figures of a demand: the word in their codes, their unit, where the job file says them."""


def site_objection(site: str, policy: Policy, whose: str) -> Objection | None:
    """What a policy has against a site."""
    if policy.sites is None or site in policy.sites:
        return None
    return Objection(code="site_not_allowed", message=f"{whose} does not allow the site {site}")


def driver_objection(demand: Demand, hardware: tuple[str, ...], policy: Policy, whose: str) -> Objection | None:
    """What a policy has against the driver that would run a job at a site with this hardware.

    A site that does not say how it runs commands may run them with either driver: then both must be allowed.
    """
    if policy.drivers is None:
        return None
    needed = _drivers_at(demand, hardware)
    if needed <= policy.drivers:
        return None
    words = " or ".join(sorted(needed - policy.drivers))
    return Objection(code="driver_not_allowed", message=f"{whose} does not allow the driver {words}")


def _drivers_at(demand: Demand, hardware: tuple[str, ...]) -> frozenset[Driver]:
    if demand.mock or "mock" in hardware:
        return frozenset({"mock_driver"})
    if demand.image is not None:
        return frozenset({"docker"})
    for driver in ("exec", "raw_exec"):
        if driver in hardware:
            return frozenset({driver})
    return _COMMAND_DRIVERS


def _not_among(demand: Demand, policy: Policy, whose: str) -> list[Objection]:
    found = []
    drivers = policy.drivers
    needed = {"docker"} if demand.image is not None else _COMMAND_DRIVERS
    if drivers is not None and not demand.mock and not drivers & needed:
        what = "container images" if demand.image is not None else "commands without an image"
        words = f"{whose} does not allow {what}: it allows the drivers {', '.join(sorted(drivers)) or 'none'}"
        found.append(Objection(code="driver_not_allowed", message=words))
    if policy.networks is not None and demand.network not in policy.networks:
        words = f"{whose} does not allow jobs on the network `{demand.network}`"
        found.append(Objection(code="network_not_allowed", message=words))
    for access in demand.access:
        if policy.access is not None and access not in policy.access:
            words = f"{whose} does not allow endpoints with `access: {access}`"
            found.append(Objection(code="access_not_allowed", message=words))
    return found


def _image(demand: Demand, policy: Policy, whose: str) -> list[Objection]:
    if demand.image is None or policy.images is None:
        return []
    reference, rules = images.parse(demand.image), [images.rule(text) for text in policy.images]
    if reference is None:
        words = f"{demand.image[:200]!r} is not an image reference: write registry/repository:tag or @sha256:digest"
        return [Objection(code="image_invalid", message=words)]
    if images.allowed(reference, rules):
        return []
    if images.needs_digest(reference, rules):
        words = f"{whose} allows {demand.image[:200]} by its digest only: name it as ...@sha256:<digest>"
        return [Objection(code="image_needs_digest", message=words)]
    words = (
        f"{whose} does not allow the image {demand.image[:200]}: it allows {', '.join(sorted(policy.images)) or 'none'}"
    )
    return [Objection(code="image_not_allowed", message=words)]
