"""What the copies of a service say about one listed site. Pure. Called at every change of the service.

A copy that may not speak for the site (another name, missing tags, an address that is not allowed) is ignored; of the
others the healthiest one stands for the site, since one server with a leader is enough to use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.adapters.consul.answers import one_line
from shared.adapters.consul.meta import NAME_KEY, BadAddress, BadMeta, site_of
from shared.adapters.consul.reading import WORST_LAST, Instance
from shared.adapters.consul.settings import ListedSite
from shared.site import UNKNOWN_COUNTRY, Site, SiteHealth


@dataclass(frozen=True, slots=True)
class Judged:
    """`site` without its health, None where nothing usable is registered; `wrong` says why then.

    `ignored` are sentences about copies that were left out, for the log.
    """

    health: SiteHealth
    reason: str = ""
    site: Site | None = None
    wrong: str = ""
    ignored: tuple[str, ...] = ()


def judge(listed: ListedSite, instances: Sequence[Instance], present: str = "") -> Judged:
    """The site now. `present` is the address in use: it is kept while a copy as healthy as any other has it."""
    ours = [instance for instance in instances if speaks_for(listed, instance)]
    if not ours:
        return Judged(SiteHealth.CRITICAL, _nothing_registered(listed))
    usable: list[tuple[Instance, Site]] = []
    wrong, ignored = [], []
    for instance in ours:
        try:
            usable.append((instance, site_of(listed, instance)))
        except BadMeta as bad:
            wrong.append(str(bad))
            if isinstance(bad, BadAddress):
                ignored.append(str(bad))
    if not usable:
        return Judged(SiteHealth.CRITICAL, wrong[0], wrong=wrong[0], ignored=tuple(ignored))
    best = min(WORST_LAST.index(instance.health) for instance, _ in usable)
    healthiest = [(instance, site) for instance, site in usable if instance.health is WORST_LAST[best]]
    instance, site = min(healthiest, key=lambda pair: (pair[1].address != present, pair[1].address, pair[0].id))
    return Judged(instance.health, instance.says, site, ignored=tuple(ignored or wrong))


def speaks_for(listed: ListedSite, instance: Instance) -> bool:
    """Whether a copy is one of the listed site's."""
    named = not listed.by_name or instance.meta.get(NAME_KEY) == listed.name
    return named and listed.wanted_tags <= instance.tags


def strangers(listed: Sequence[ListedSite], instances: Sequence[Instance]) -> tuple[str, ...]:
    """Names of sites that are registered but not listed, of copies that say a name."""
    known = {site.name for site in listed}
    named = {instance.meta.get(NAME_KEY, "") for instance in instances if any(site.by_name for site in listed)}
    return tuple(sorted(one_line(name, 80) for name in named - known if name))


def unheard(listed: ListedSite) -> Site:
    """A site of which nothing but the settings is known yet."""
    return Site(
        name=listed.name,
        country=listed.country or UNKNOWN_COUNTRY,
        vos=listed.vos or (),
        cluster=listed.cluster or listed.name,
        address=listed.address or "",
        region=listed.region or "global",
        datacenters=listed.datacenters or ("dc1",),
        node_pool=listed.node_pool or "default",
        hardware=listed.hardware or (),
        mhz_per_core=listed.mhz_per_core or 1000,
        carbon_g_per_kwh=listed.carbon_g_per_kwh,
        cost_per_core_hour=listed.cost_per_core_hour,
        health=SiteHealth.UNREACHABLE,
        health_reason="Consul has not been heard about it yet",
    )


def _nothing_registered(listed: ListedSite) -> str:
    what = (
        f"with the meta `{NAME_KEY}` = {listed.name}"
        if listed.by_name
        else f"with the tags {sorted(listed.wanted_tags)}"
    )
    return (
        f"Consul's datacenter {listed.datacenter} has no service {listed.service} {what}: register it, or let our "
        "token read it"
    )
