"""Which site fits a job, and why the others do not. Pure over one immutable snapshot of all sites.

`decide` gives one verdict per site, best first. The order of the checks is the order of what a user can do about it:
first what the request and the site's rules forbid, then what the site does not have at all, then its present state,
then what is only busy. Called by `placing.py`, `sweeping.py` and `api.py`.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from services.scheduler.records import Avoid, Need
from shared.contracts.reasons import Verdict, VerdictCode
from shared.job import JobSpec
from shared.site import GpuStock, Site, SiteHealth

Hindrance = tuple[VerdictCode, str]
"""Why one site is closed to one job, as the caller knows it (policy), with a sentence."""

MOCK_KEY: Final = "serai.mock"
"""Metadata key by which load tests ask for work without a process (shared/adapters/nomad/mock.py)."""

_PREFERRED_SITE, _PREFERRED_COUNTRY, _SPARE, _CARBON = 100.0, 50.0, 30.0, 5.0
_DIRTIEST_G = 1000.0


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """One usable node: what it has, and what neither others nor our own attempts use of it. MHz and MiB."""

    name: str
    cpu_mhz: int
    memory_mib: int
    disk_mib: int
    cpu_free: int
    memory_free: int
    disk_free: int
    drivers: frozenset[str] = frozenset()
    gpus: tuple[GpuStock, ...] = ()
    gpus_free: tuple[GpuStock, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site at one moment. `nodes` is None while nothing has been observed, `namespaces` while not known."""

    site: Site
    nodes: tuple[NodeRoom, ...] | None = None
    reachable: bool = True
    suspect: bool = False
    cordoned: str | None = None
    """Why, '' for no reason given; None = not cordoned."""
    namespaces: frozenset[str] | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All sites at one moment, by name."""

    sites: Mapping[str, SiteView] = field(default_factory=dict)

    def with_attempt(self, site: str, need: Need) -> "Snapshot":
        """The same moment with one more attempt of ours at a site, on the node that it fills best."""
        view = self.sites[site]
        return replace(self, sites={**self.sites, site: occupied(view, need)})


def need_of(spec: JobSpec, site: Site) -> Need:
    """The room that a job takes at a site; cores become MHz as the Nomad adapter makes them."""
    asked = spec.resources
    cpu = max(1, round(asked.cpu_cores * site.mhz_per_core))
    return Need(cpu, asked.memory_mib, asked.disk_mib, asked.gpus.count, asked.gpus.model)


def drivers_of(spec: JobSpec, site: Site) -> tuple[str, ...]:
    """Drivers of which a node needs one: docker for an image, raw_exec or exec for a bare command."""
    if MOCK_KEY in spec.metadata or "mock" in site.hardware:
        return ("mock_driver",)
    return ("docker",) if spec.image is not None else ("raw_exec", "exec")


def decide(
    spec: JobSpec,
    snapshot: Snapshot,
    *,
    namespace: str = "default",
    avoid: Mapping[str, Avoid] | None = None,
    forbidden: Mapping[str, Hindrance] | None = None,
    salt: str = "",
) -> tuple[Verdict, ...]:
    """A verdict for each site: those that fit by score, then those that may fit later, then the hopeless.

    `avoid` are sites that this job keeps away from now, `forbidden` sites that policy closes to its owner, for good or
    (`ceiling_reached`) as long as other jobs are there. Equal scores are ordered by `salt`, so that jobs spread and one
    job always goes the same way.
    """
    avoid, forbidden = avoid or {}, forbidden or {}
    verdicts = [_verdict(spec, view, namespace, avoid, forbidden) for view in snapshot.sites.values()]
    verdicts.sort(key=lambda verdict: _rank(verdict, salt))
    return tuple(verdicts)


def _rank(verdict: Verdict, salt: str) -> tuple[int, float, int]:
    group = 0 if verdict.fits else 1 if verdict.can_change else 2
    return group, -(verdict.score or 0.0), zlib.crc32(f"{salt}/{verdict.site}".encode())


def _verdict(
    spec: JobSpec, view: SiteView, namespace: str, avoid: Mapping[str, Avoid], forbidden: Mapping[str, Hindrance]
) -> Verdict:
    need = need_of(spec, view.site)
    return (
        _unheard(view)
        or _rules(spec, view, avoid, forbidden)
        or _hardware(spec, view, need)
        or _state(view, avoid)
        or _namespace(spec, view, namespace)
        or _room(view, need)
        or Verdict(
            site=view.site.name, code=VerdictCode.FITS, message=f"{view.site.name} can take the job now.",
            score=_score(spec, view, need),
        )
    )  # fmt: skip


def _unheard(view: SiteView) -> Verdict | None:
    """Of a site that never told which VOs it serves, nothing can be ruled out: its state is all there is to say."""
    away = view.site.health in (SiteHealth.UNREACHABLE, SiteHealth.MISCONFIGURED)
    return _state(view, {}) if away and not view.site.vos else None


# -- what the request and the site's rules say --------------------------------------------------------------------


def _rules(
    spec: JobSpec, view: SiteView, avoid: Mapping[str, Avoid], forbidden: Mapping[str, Hindrance]
) -> Verdict | None:  # fmt: skip
    site, wishes = view.site, spec.placement
    name = site.name
    if spec.vo not in site.vos:
        return _no(name, VerdictCode.VO_NOT_SERVED, f"{name} does not serve the VO {spec.vo}.")
    if (wishes.allow_sites and name not in wishes.allow_sites) or name in wishes.deny_sites:
        return _no(name, VerdictCode.SITE_NOT_ALLOWED, f"The job's placement wishes leave out {name}.",
                   advice="change placement.sites.allow or placement.sites.deny")  # fmt: skip
    if (wishes.allow_countries and site.country not in wishes.allow_countries) or (
        site.country in wishes.deny_countries
    ):
        return _no(name, VerdictCode.COUNTRY_NOT_ALLOWED, f"The job's placement wishes leave out {site.country}.",
                   advice="change placement.countries.allow or placement.countries.deny")  # fmt: skip
    if name in forbidden:
        code, why = forbidden[name]
        words = why or f"Policy does not allow the owner at {name}."
        return Verdict(site=name, code=code, message=words, can_change=code is VerdictCode.CEILING_REACHED)
    if name in avoid and avoid[name].code is VerdictCode.REFUSED_BY_SITE:
        return _no(name, VerdictCode.REFUSED_BY_SITE, f"{name} refused the job: {avoid[name].message}")
    return None


# -- what the site has at all -------------------------------------------------------------------------------------


def _hardware(spec: JobSpec, view: SiteView, need: Need) -> Verdict | None:
    """Against whole nodes, as if they were empty: waiting cannot change any of this."""
    if not view.nodes:
        return None
    name, wanted = view.site.name, drivers_of(spec, view.site)
    nodes = [node for node in view.nodes if not node.drivers.isdisjoint(wanted)]
    if not nodes:
        return _no(name, VerdictCode.DRIVER_MISSING, f"No node of {name} has the driver {' or '.join(wanted)}.")
    if need.gpus and (gpus := _gpus_missing(name, nodes, need)):
        return gpus
    return _too_small(name, nodes, need)


def _gpus_missing(name: str, nodes: Sequence[NodeRoom], need: Need) -> Verdict | None:
    most_of_any = max(_gpus(node.gpus, None) for node in nodes)
    most = max(_gpus(node.gpus, need.gpu_model) for node in nodes)
    if most >= need.gpus:
        return None
    asked = f"{need.gpus} GPU{'s' if need.gpus > 1 else ''} {need.gpu_model or 'of any model'}"
    if need.gpu_model and most == 0 and most_of_any >= need.gpus:
        models = ", ".join(sorted({gpu.model for node in nodes for gpu in node.gpus}))
        return _no(name, VerdictCode.GPU_MODEL_MISSING, f"{name} has no {need.gpu_model}; it has {models}.",
                   need.gpus, most, advice=f"ask for one of: {models}")  # fmt: skip
    return _no(name, VerdictCode.GPU_MISSING, f"The job asks for {asked} on one node; {name} has at most {most}.",
               need.gpus, most, advice="lower resources.gpus.count" if most else None)  # fmt: skip


def _too_small(name: str, nodes: Sequence[NodeRoom], need: Need) -> Verdict | None:
    for code, what, unit, asked, most in (
        (VerdictCode.CPU_TOO_SMALL, "cpu", "MHz of CPU", need.cpu_mhz, max(n.cpu_mhz for n in nodes)),
        (VerdictCode.MEMORY_TOO_SMALL, "memory", "MiB of memory", need.memory_mib, max(n.memory_mib for n in nodes)),
        (VerdictCode.DISK_TOO_SMALL, "disk", "MiB of disk", need.disk_mib, max(n.disk_mib for n in nodes)),
    ):
        if asked > most:
            return _no(name, code, f"The job asks for {asked} {unit}; the largest node of {name} has {most}.",
                       asked, most, advice=f"lower resources.{what}")  # fmt: skip
    if not any(_has(node, need) for node in nodes):
        return _no(name, VerdictCode.NO_ROOM_ON_ONE_NODE, f"No single node of {name} has all that the job asks for.")
    return None


def _has(node: NodeRoom, need: Need) -> bool:
    return (
        node.cpu_mhz >= need.cpu_mhz
        and node.memory_mib >= need.memory_mib
        and node.disk_mib >= need.disk_mib
        and (not need.gpus or _gpus(node.gpus, need.gpu_model) >= need.gpus)
    )


# -- how the site is ----------------------------------------------------------------------------------------------


def _state(view: SiteView, avoid: Mapping[str, Avoid]) -> Verdict | None:
    name = view.site.name
    if view.cordoned is not None:
        why = f": {view.cordoned}" if view.cordoned else "."
        return _later(name, VerdictCode.CORDONED, f"{name} is cordoned by an operator{why}")
    if not view.reachable or view.site.health is SiteHealth.UNREACHABLE:
        return _later(name, VerdictCode.SITE_UNREACHABLE, f"{name} cannot be reached at the moment.")
    if view.site.health is SiteHealth.CRITICAL:
        return _later(name, VerdictCode.SITE_CRITICAL, f"The health checks of {name} are critical.")
    if view.site.health is SiteHealth.MISCONFIGURED:
        return _later(name, VerdictCode.SITE_CRITICAL, f"{name} is not set up rightly; its operators have to mend it.")
    if view.suspect:
        return _later(name, VerdictCode.SITE_SUSPECT, f"What {name} shows cannot be believed at the moment.")
    if not view.nodes:
        why = "has not been observed yet" if view.nodes is None else "has no usable node at the moment"
        return _later(name, VerdictCode.NOT_OBSERVED, f"{name} {why}.")
    if name in avoid:
        return _later(name, VerdictCode.TRIED_BEFORE, f"{name} {avoid[name].message}; others come first for a while.")
    return None


def _namespace(spec: JobSpec, view: SiteView, namespace: str) -> Verdict | None:
    """Nomad refuses work in a namespace that is not there; its operator may make it at any time."""
    if view.namespaces is None or namespace in view.namespaces:
        return None
    words = f"{view.site.name} has no Nomad namespace {namespace!r} for the VO {spec.vo} yet."
    return _later(view.site.name, VerdictCode.NAMESPACE_MISSING, words)


# -- what is free -------------------------------------------------------------------------------------------------


def _room(view: SiteView, need: Need) -> Verdict | None:
    """Called when at least one node would do if it were empty."""
    assert view.nodes is not None
    if best_node(view.nodes, need) is not None:
        return None
    name, nodes = view.site.name, view.nodes
    for code, unit, asked, free in (
        (VerdictCode.CPU_BUSY, "MHz of CPU", need.cpu_mhz, max(n.cpu_free for n in nodes)),
        (VerdictCode.MEMORY_BUSY, "MiB of memory", need.memory_mib, max(n.memory_free for n in nodes)),
        (VerdictCode.DISK_BUSY, "MiB of disk", need.disk_mib, max(n.disk_free for n in nodes)),
        (VerdictCode.GPUS_BUSY, "GPUs", need.gpus, max(_gpus(n.gpus_free, need.gpu_model) for n in nodes)),
    ):
        if asked > free:
            return _later(name, code, f"The job asks for {asked} {unit}; {name} has {max(free, 0)} free on one node.",
                          asked, max(free, 0))  # fmt: skip
    return _later(name, VerdictCode.NO_ROOM_ON_ONE_NODE, f"No single node of {name} has enough of everything free.")


def best_node(nodes: Sequence[NodeRoom], need: Need) -> int | None:
    """The index of the node that the attempt fills best (Nomad packs too), None when it fits on none."""
    fitting = [(node.cpu_free + node.memory_free, index) for index, node in enumerate(nodes) if _free(node, need)]
    return min(fitting)[1] if fitting else None


def _free(node: NodeRoom, need: Need) -> bool:
    return (
        node.cpu_free >= need.cpu_mhz
        and node.memory_free >= need.memory_mib
        and node.disk_free >= need.disk_mib
        and (not need.gpus or _gpus(node.gpus_free, need.gpu_model) >= need.gpus)
    )


def occupied(view: SiteView, need: Need, node: str | None = None) -> SiteView:
    """The site with one attempt more: on `node` where that is known, else on the node that it fills best."""
    if view.nodes is None:
        return replace(view, attempts=view.attempts + 1)
    index = _index(view.nodes, node) if node is not None else best_node(view.nodes, need)
    if index is None:
        return replace(view, attempts=view.attempts + 1)
    taken = _taken(view.nodes[index], need)
    return replace(view, nodes=(*view.nodes[:index], taken, *view.nodes[index + 1 :]), attempts=view.attempts + 1)


def _index(nodes: Sequence[NodeRoom], name: str) -> int | None:
    return next((index for index, node in enumerate(nodes) if node.name == name), None)


def _taken(node: NodeRoom, need: Need) -> NodeRoom:
    return replace(
        node,
        cpu_free=node.cpu_free - need.cpu_mhz,
        memory_free=node.memory_free - need.memory_mib,
        disk_free=node.disk_free - need.disk_mib,
        gpus_free=tuple(_fewer(node.gpus_free, need)) if need.gpus else node.gpus_free,
    )


def _fewer(stock: Sequence[GpuStock], need: Need) -> Iterator[GpuStock]:
    left = need.gpus
    for gpu in stock:
        taken = min(left, gpu.count) if is_model(gpu.model, need.gpu_model) else 0
        left -= taken
        yield GpuStock(model=gpu.model, count=gpu.count - taken)


def _gpus(stock: Sequence[GpuStock], model: str | None) -> int:
    return sum(gpu.count for gpu in stock if is_model(gpu.model, model))


@lru_cache(maxsize=1024)
def is_model(full: str, asked: str | None) -> bool:
    """Whether `vendor/type/name` is what was asked for: as Nomad's device names match, or the bare model name."""
    if asked is None:
        return True
    if "/" in asked:
        return full == asked or full.startswith(asked + "/")
    return full.rsplit("/", 1)[-1] == asked


# -- how good a fit -----------------------------------------------------------------------------------------------


def _score(spec: JobSpec, view: SiteView, need: Need) -> float:
    """Wishes first, then spare room (a queue forms last where most is free), carbon as a light touch."""
    site, wishes = view.site, spec.placement
    score = _wish(site.name, wishes.prefer_sites) * _PREFERRED_SITE
    score += _wish(site.country, wishes.prefer_countries) * _PREFERRED_COUNTRY
    score += _SPARE * _spare(view, need)
    if site.carbon_g_per_kwh is not None:
        score -= _CARBON * min(site.carbon_g_per_kwh / _DIRTIEST_G, 1.0)
    return round(score, 3)


def _wish(name: str, preferred: Sequence[str]) -> float:
    """1 for the first wish, less for the later ones, 0 for none."""
    return 1.0 - preferred.index(name) / (2 * len(preferred)) if name in preferred else 0.0


def _spare(view: SiteView, need: Need) -> float:
    """The share of the scarcer of CPU and memory that stays free at the site with the attempt on it."""
    nodes = view.nodes or ()
    cpu, memory = sum(n.cpu_mhz for n in nodes), sum(n.memory_mib for n in nodes)
    cpu_left = sum(n.cpu_free for n in nodes) - need.cpu_mhz
    memory_left = sum(n.memory_free for n in nodes) - need.memory_mib
    return max(0.0, min(cpu_left / max(cpu, 1), memory_left / max(memory, 1)))


def _no(
    site: str, code: VerdictCode, message: str, asked: float | None = None, free: float | None = None,
    advice: str | None = None,
) -> Verdict:  # fmt: skip
    return Verdict(site=site, code=code, message=message, asked=asked, free=free, advice=advice)


def _later(
    site: str, code: VerdictCode, message: str, asked: float | None = None, free: float | None = None
) -> Verdict:
    return Verdict(site=site, code=code, message=message, asked=asked, free=free, can_change=True)
