"""Ceilings over all jobs of a user or a VO together: what is in use, and whether one more job would go over. Pure.

In use is what current attempts take, of jobs that are placed, starting, running or being stopped; an attempt that was
given up with its site or node counts no more, else a lost site would hold up the job that it lost. Amounts of cores
are thousandths, so that sums are exact. The one leader places (`placing.py`), each batch over a moment that holds
everything placed before it: between reading and writing the use can only fall, so no ceiling is overshot.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from services.scheduler.records import Job
from shared.contracts.commands import Principal
from shared.contracts.policies import Ceiling, Policy
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import JobSpec

Whose = Literal["user", "vo"]
THOUSANDTHS: Final = 1000


class Amounts(NamedTuple):
    """What jobs take together."""

    millicores: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpus: int = 0
    jobs: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Share:
    """What the current attempts of one owner in one VO take at one site."""

    vo: str
    issuer: str
    subject: str
    site: str
    amounts: Amounts


_KINDS: Final = (
    ("cpu_cores", "cores", THOUSANDTHS, "resources.cpu"),
    ("memory_mib", "MiB of memory", 1, "resources.memory"),
    ("disk_mib", "MiB of disk", 1, "resources.disk"),
    ("gpus", "GPUs", 1, "resources.gpus"),
    ("jobs", "jobs", 1, ""),
)
"""In the order of `Amounts`: the ceiling's name, its unit, how many of the sum's units that is, where a job asks it."""


def amounts_of(spec: JobSpec) -> Amounts:
    """What one job takes."""
    asked = spec.resources
    return Amounts(millicores(spec), asked.memory_mib, asked.disk_mib, asked.gpus.count, 1)


def millicores(spec: JobSpec) -> int:
    """Cores in thousandths."""
    return round(spec.resources.cpu_cores * THOUSANDTHS)


_Key = tuple[str, str, str, str]
"""VO, issuer and subject of the owner (both empty for all owners), site (empty for all sites)."""


class InUse:
    """The sums of one moment, by VO and by owner, everywhere and at each site. A round adds what it places."""

    def __init__(self, shares: Iterable[Share] = ()) -> None:
        self._sums: dict[_Key, Amounts] = {}
        for share in shares:
            self._add(share.vo, share.issuer, share.subject, share.site, share.amounts)

    def with_job(self, job: Job, site: str) -> "InUse":
        """The same moment with one more job at a site."""
        more = InUse()
        more._sums = dict(self._sums)
        more._add(job.spec.vo, job.owner.issuer, job.owner.subject, site, amounts_of(job.spec))
        return more

    def of(self, vo: str, owner: Principal | None = None, site: str = "") -> Amounts:
        """What a VO, or one owner in it, has everywhere, or at one site."""
        who = ("", "") if owner is None else (owner.issuer, owner.subject)
        return self._sums.get((vo, *who, site), Amounts())

    def _add(self, vo: str, issuer: str, subject: str, site: str, amounts: Amounts) -> None:
        for who in (("", ""), (issuer, subject)):
            for where in ("", site):
                key = (vo, *who, where)
                self._sums[key] = self._sums.get(key, Amounts()).plus(amounts)


# -- judging ------------------------------------------------------------------------------------------------------


def restricts(policy: Policy | None) -> bool:
    """Whether a policy has a ceiling over jobs together."""
    return policy is not None and (policy.user != Ceiling() or policy.vo != Ceiling())


def reached(job: Job, policy: Policy | None, in_use: InUse, site: str = "") -> Reason | None:
    """The first ceiling that the job would go over now: of its owner, then of its VO; at a site, of that site's rules.

    What the platform and the VO allow is held against the use of all sites together, what a site allows against the
    use at that site. A job that just fills a ceiling fits.
    """
    if policy is None:
        return None
    found = (*_over("user", policy.user, job, in_use, site), *_over("vo", policy.vo, job, in_use, site))
    return found[0] if found else None


def shares(amounts: Amounts, ceiling: Ceiling) -> list[float]:
    """What part of each thing that a ceiling bounds these amounts are."""
    bounds = [
        (have, getattr(ceiling, name), per_unit) for have, (name, _, per_unit, _) in zip(amounts, _KINDS, strict=True)
    ]
    return [have / (most * per_unit) for have, most, per_unit in bounds if most]


def _over(whose: Whose, ceiling: Ceiling, job: Job, in_use: InUse, site: str) -> Iterator[Reason]:
    if ceiling == Ceiling():
        return
    used = in_use.of(job.spec.vo, job.owner if whose == "user" else None, site)
    for (name, unit, per_unit, where), have, asked in zip(_KINDS, used, amounts_of(job.spec), strict=True):
        most = getattr(ceiling, name)
        if most is not None and asked and have + asked > round(most * per_unit):
            yield _reason(whose, job.spec.vo, name, unit, where, most, have / per_unit, asked / per_unit, site)


def _reason(
    whose: Whose, vo: str, name: str, unit: str, where: str, most: float, have: float, asked: float, site: str
) -> Reason:
    """Names the ceiling, what is in use, what would help and whom to ask."""
    jobs = "all jobs of one user" if whose == "user" else "all its jobs"
    place = f" at {site}" if site else ""
    this = "this is one more" if name == "jobs" else f"this job asks for {asked:g}"
    words = f"The VO {vo} lets {jobs} together have {most:g} {unit} at a time{place}: {have:g} in use, {this}."
    if asked > most:
        lower = f"lower `{where}` in the job file, or " if where else ""
        words += f" It cannot be placed as long as that holds: {lower}ask a manager of the VO for more."
    else:
        words += " It is placed when enough of them have ended; for more at a time ask a manager of the VO."
    return because(
        ReasonCode.CEILING_REACHED, words, ceiling=f"{whose}.{name}", most=most, in_use=have, asked=asked,
        site=site or None,
    )  # fmt: skip


def still_reached(told: Reason, job: Job, in_use: InUse) -> Reason | None:
    """The ceiling that a job was told of, with the use of this moment; None when the job would fit under it by now."""
    whose, _, name = str(told.details.get("ceiling", "")).partition(".")
    most, site = told.details.get("most"), str(told.details.get("site") or "")
    if whose not in ("user", "vo") or name not in Ceiling.model_fields or not isinstance(most, int | float):
        return told
    ceiling = Ceiling.model_validate({name: most})
    return reached(job, Policy.model_validate({whose: ceiling}), in_use, site)
