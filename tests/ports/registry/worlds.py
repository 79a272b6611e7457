"""A registry under test and what lies behind it: two sites, prague in dc1 and lyon in dc2, whose checks a test sets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx2

from shared.adapters.consul import ConsulAgent, ConsulRegistry, ConsulSettings, ListedSite
from shared.adapters.consul.throwaway import ThrowAwayConsul
from shared.adapters.memory_registry import MemoryRegistry
from shared.damping import Damping
from shared.errors import NotFound
from shared.ports import SiteRegistry
from shared.site import Site, SiteHealth
from tests.builders import a_site

RULES = Damping(worse_after_s=0.5, better_after_s=1.0, better_most_s=4.0, window_s=60)
"""Short, because real servers have real clocks."""
VO = "vo.climate.example"


class Behind(Protocol):
    """What a test does to the world behind a registry. Each call returns when it is done there."""

    async def check(self, site: str, well: bool) -> None: ...

    async def invent(self, site: str) -> None:
        """Let a site appear that settings do not list."""


class World:
    """`registry` runs; `views` are all that it showed to one reader from the beginning."""

    def __init__(self, registry: SiteRegistry, behind: Behind) -> None:
        self.registry = registry
        self.behind = behind
        self.views: list[dict[str, Site]] = []
        self._news = asyncio.Condition()

    async def read(self) -> None:
        async for view in self.registry.changes():
            async with self._news:
                self.views.append({site.name: site for site in view})
                self._news.notify_all()

    async def until(self, good: Callable[[dict[str, Site]], bool], within_s: float = 60) -> dict[str, Site]:
        """The newest view, once it is as asked."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: bool(self.views) and good(self.views[-1]))
            return self.views[-1]

    async def shows(self, site: str, *health: SiteHealth, within_s: float = 60) -> Site:
        return (await self.until(lambda view: view[site].health in health, within_s))[site]

    async def all_well(self) -> None:
        await self.until(lambda view: all(site.health is SiteHealth.PASSING for site in view.values()))

    def shown(self, site: str) -> list[SiteHealth]:
        """Each health that the site was shown with, in order, from the first passing one on."""
        told = [view[site].health for view in self.views]
        start = told.index(SiteHealth.PASSING)
        return [health for at, health in enumerate(told) if at >= start and (at == start or told[at - 1] is not health)]


@asynccontextmanager
async def reading(world: World, run: Callable[[], Any]) -> AsyncIterator[World]:
    """The world while its registry runs and one reader listens."""
    tasks = [asyncio.create_task(run(), name="registry"), asyncio.create_task(world.read(), name="reader")]
    try:
        yield world
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- in memory ----------------------------------------------------------------------------------------------------


class Probed:
    """Nomad servers that answer as told; `check` returns when every site was probed since."""

    def __init__(self) -> None:
        self.well = {"prague": True, "lyon": True}
        self.registry: MemoryRegistry | None = None

    async def probe(self, url: str) -> bool:
        return self.well[url.removeprefix("http://").split(".")[0]]

    async def check(self, site: str, well: bool) -> None:
        assert self.registry is not None
        self.well[site] = well
        await self.registry.probe_all()

    async def invent(self, site: str) -> None:
        assert self.registry is not None
        try:
            self.registry.set_health(site, SiteHealth.PASSING)
        except NotFound:
            return
        raise AssertionError("a site appeared that is not listed")


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    behind = Probed()
    sites = [a_site(name, address=f"http://{name}.example:4646") for name in ("prague", "lyon")]
    behind.registry = MemoryRegistry(sites, probe=behind.probe, interval_s=0.05, rules=RULES)
    async with reading(World(behind.registry, behind), behind.registry.run) as world:
        yield world


# -- on Consul ----------------------------------------------------------------------------------------------------


def meta_of(site: str, **more: str) -> dict[str, str]:
    given = {"site": site, "country": "CZ", "vos": VO, "nomad_address": f"https://nomad.{site}.example:4646"}
    return given | more


class Registered:
    """Services with checks at the agents of two datacenters, registered as a site's operators do."""

    def __init__(self, agents: dict[str, str], headers: dict[str, str] | None = None) -> None:
        self._agents = agents
        self._headers = headers or {}
        self._made: list[tuple[str, str]] = []

    async def register(self, dc: str, site: str, status: str = "passing", **service: Any) -> None:
        instance = service.pop("ID", f"serai-site-{site}")
        meta = service.pop("Meta", meta_of(site))
        check = {"CheckID": f"check-{instance}", "Name": "Nomad", "TTL": "600s", "Status": status}
        await self.put(dc, "/v1/agent/service/register", {
            "ID": instance, "Name": "serai-site", "Address": "192.0.2.7", "Port": 4646, "Meta": meta, "Check": check,
        } | service)  # fmt: skip
        self._made.append((dc, instance))

    async def check(self, site: str, well: bool) -> None:
        await self.say({"prague": "dc1", "lyon": "dc2"}[site], f"serai-site-{site}", "passing" if well else "critical")

    async def say(self, dc: str, instance: str, status: str, output: str = "") -> None:
        await self.put(dc, f"/v1/agent/check/update/check-{instance}", {"Status": status, "Output": output})

    async def invent(self, site: str) -> None:
        await self.register("dc2", site)

    async def deregister(self, dc: str, instance: str) -> None:
        await self.put(dc, f"/v1/agent/service/deregister/{instance}", None)
        self._made = [made for made in self._made if made != (dc, instance)]

    async def put(self, dc: str, path: str, body: Any) -> Any:
        async with httpx2.AsyncClient(base_url=self._agents[dc], trust_env=False, headers=self._headers) as client:
            answer = await client.put(path, json=body)
            assert answer.status_code == 200, (path, answer.status_code, answer.text)
            return answer.json() if answer.content else None

    async def get(self, dc: str, path: str) -> Any:
        async with httpx2.AsyncClient(base_url=self._agents[dc], trust_env=False, headers=self._headers) as client:
            return (await client.get(path)).raise_for_status().json()

    async def delete(self, dc: str, path: str) -> None:
        async with httpx2.AsyncClient(base_url=self._agents[dc], trust_env=False, headers=self._headers) as client:
            answer = await client.delete(path)
            assert answer.status_code == 200, (path, answer.status_code, answer.text)

    async def make_noise(self, dc: str, count: int) -> None:
        """That many copies of a thousand other services, on a node that is not."""

        async def register(client: httpx2.AsyncClient, number: int) -> None:
            service = {"ID": f"noise-{number}", "Service": f"noise-{number % 1000}"}
            told = {"Node": "noise", "Address": "192.0.2.9", "SkipNodeUpdate": True, "Service": service}
            assert (await client.put("/v1/catalog/register", json=told)).status_code == 200

        limits = httpx2.Limits(max_connections=8)
        async with httpx2.AsyncClient(base_url=self._agents[dc], trust_env=False, timeout=60, limits=limits) as client:
            await asyncio.gather(*(register(client, number) for number in range(count)))

    async def clean(self) -> None:
        for dc, instance in list(dict.fromkeys(self._made)):
            await self.put(dc, f"/v1/agent/service/deregister/{instance}", None)


PRAGUE = ListedSite(name="prague", datacenter="dc1", allowed_hosts=(".prague.example",))
LYON = ListedSite(name="lyon", datacenter="dc2", allowed_hosts=(".lyon.example",))


def settings(address: str, **more: Any) -> ConsulSettings:
    return ConsulSettings.model_validate(
        {"address": address, "wait_s": 5, "pace_s": 0.02, "retry_first_s": 0.1, "retry_most_s": 0.5,
         "call_timeout_s": 3, "worse_after_s": RULES.worse_after_s, "better_after_s": RULES.better_after_s,
         "better_most_s": RULES.better_most_s, "flap_window_s": RULES.window_s} | more
    )  # fmt: skip


@asynccontextmanager
async def on_consul(
    agents: dict[str, str], listed: Sequence[ListedSite] = (PRAGUE, LYON), **more: Any
) -> AsyncIterator[World]:
    """Over an agent of dc1; both sites are registered, each in its datacenter."""
    behind = Registered(agents)
    agent = ConsulAgent(settings(agents["dc1"], **more))
    registry = ConsulRegistry(agent, listed)
    await behind.register("dc1", "prague")
    await behind.register("dc2", "lyon")
    try:
        async with reading(World(registry, behind), registry.run) as world:
            yield world
    finally:
        await agent.aclose()
        await behind.clean()


def addresses(agents: dict[str, ThrowAwayConsul]) -> dict[str, str]:
    return {name: agent.address for name, agent in agents.items()}
