"""The SiteRegistry in memory: the sites of the settings, with health checks of their Nomad servers.

Used by `services/embedded`, by processes without a Consul, and by tests. Whoever passes a `probe` runs
`MemoryRegistry.run` as a named task; without one, sites are as healthy as `set_health` last said.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import httpx2

from shared import damping
from shared.adapters.published_view import PublishedView
from shared.damping import Damped, Damping
from shared.errors import NotFound
from shared.runtime import logs
from shared.site import Site, SiteHealth

Probe = Callable[[str], Awaitable[bool]]
"""Whether the URL answers well. It has its own deadline and may raise anything: that counts as no."""

HEALTH_PATH: Final = "/v1/agent/health?type=server"
"""Nomad's own health question, the one that it registers with Consul for its servers."""

log = logs.get("adapters.memory_registry")


class MemoryRegistry:
    """See `shared.ports.SiteRegistry`. `interval_s` is the time between two probes of a place, as in Consul's checks.

    What probes find is damped; by default it takes two equal probes in a row to show another health than before.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        probe: Probe | None = None,
        interval_s: float = 5.0,
        rules: Damping | None = None,
    ) -> None:
        self._sites = {site.name: site for site in sites}
        self._view = PublishedView(sites)
        self._probe = probe
        self._interval_s = interval_s
        self._rules = rules or Damping(worse_after_s=interval_s * 0.9, better_after_s=interval_s * 0.9)
        """A little less than the interval: the second of two probes decides, whether it comes early or late."""
        self._damped: dict[str, Damped] = {}

    async def sites(self) -> Sequence[Site]:
        return self._view.sites

    def changes(self) -> AsyncIterator[Sequence[Site]]:
        return self._view.changes()

    async def ready(self) -> None:
        return None

    def set_health(self, name: str, health: SiteHealth) -> None:
        """What is true of a site from now on, undamped. Raises NotFound for a site that settings do not name."""
        if name not in self._sites:
            raise NotFound(f"there is no site {name!r}")
        before = self._sites[name]
        if before.health is health:
            return
        log.info("site_health", site=name, health=health, before=before.health)
        self._sites[name] = before.model_copy(update={"health": health})
        self._view.publish(tuple(self._sites.values()))

    async def run(self) -> None:
        """Probe every address each interval, for ever."""
        while True:
            await self.probe_all()
            await asyncio.sleep(self._interval_s)

    async def probe_all(self) -> None:
        """One round: each address once, for all sites that are there; `passing` or `critical` by its answer."""
        addresses = sorted({site.address for site in self._sites.values()})
        await asyncio.gather(*(self._check(address) for address in addresses))

    async def _check(self, address: str) -> None:
        if self._probe is None:
            return
        try:
            well = await self._probe(address.rstrip("/") + HEALTH_PATH)
        except Exception as error:
            log.debug("probe_failed", address=address, error=repr(error))
            well = False
        seen = SiteHealth.PASSING if well else SiteHealth.CRITICAL
        for name in [site.name for site in self._sites.values() if site.address == address]:
            self.set_health(name, self._shown(name, seen))

    def _shown(self, name: str, seen: SiteHealth) -> SiteHealth:
        now = asyncio.get_running_loop().time()
        before = self._damped.get(name)
        state = damping.after(before, seen, now, self._rules) if before else damping.first(seen, now)
        self._damped[name] = state
        return state.shown


def http_probe(client: httpx2.AsyncClient, timeout_s: float = 3.0) -> Probe:
    """A probe over HTTP: 200 within `timeout_s` is well."""

    async def probe(url: str) -> bool:
        answer = await client.get(url, timeout=timeout_s)
        return answer.status_code == 200

    return probe
