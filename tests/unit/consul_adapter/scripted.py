"""A Consul that does as it is told: health of services by blocking query, at the far end of the adapter's own HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from shared.adapters.consul import ConsulAgent, ConsulRegistry, ConsulSettings, ListedSite
from shared.site import Site, SiteHealth

META = {"site": "lyon", "country": "FR", "vos": "vo.bio.example", "nomad_address": "https://nomad.lyon.example:4646"}


def an_entry(status: str = "passing", output: str = "", **meta: str) -> dict[str, Any]:
    return {
        "Node": {"Node": "n1", "Address": "192.0.2.1"},
        "Service": {"ID": "serai-site-1", "Address": "192.0.2.7", "Port": 4646, "Tags": [], "Meta": META | meta},
        "Checks": [{"Name": "Nomad", "Status": status, "Output": output}],
    }


class ScriptedConsul:
    """`say` sets what a service is; `fails` may answer instead, and `is_silent_for` leaves a request without answer."""

    def __init__(self) -> None:
        self.index = 10
        self.seen: list[httpx2.Request] = []
        self.fails: Callable[[httpx2.Request], httpx2.Response | None] = lambda request: None
        self.is_silent_for: Callable[[httpx2.Request], bool] = lambda request: False
        self._entries: dict[tuple[str, str], tuple[int, Sequence[Any]]] = {}
        self._changed = asyncio.Condition()

    def agent(self, **settings: Any) -> ConsulAgent:
        return ConsulAgent(ConsulSettings.model_validate(settings), httpx2.MockTransport(self._answer))

    async def say(self, *entries: Any, service: str = "serai-site", dc: str = "dc2", index: int | None = None) -> None:
        self.index = self.index + 1 if index is None else index
        async with self._changed:
            self._entries[dc, service] = (self.index, entries)
            self._changed.notify_all()

    async def hang_up(self) -> None:
        """End the queries that wait, so that the next ones meet `fails`."""
        for (dc, service), (_, entries) in list(self._entries.items()):
            await self.say(*entries, service=service, dc=dc)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        if self.is_silent_for(request):
            await asyncio.Event().wait()
        if (failure := self.fails(request)) is not None:
            return failure
        if request.url.path == "/v1/status/leader":
            return httpx2.Response(200, json="127.0.0.1:8300")
        key = (request.url.params.get("dc", ""), request.url.path.removeprefix("/v1/health/service/"))
        asked, wait = int(request.url.params.get("index", 0)), float(request.url.params.get("wait", "0s")[:-1])
        async with self._changed:
            try:
                async with asyncio.timeout(wait if asked else 0):
                    await self._changed.wait_for(lambda: not asked or self._now(key)[0] != asked)
            except TimeoutError:
                pass
            index, entries = self._now(key)
        return httpx2.Response(200, content=json.dumps(list(entries)), headers={"X-Consul-Index": str(index)})

    def _now(self, key: tuple[str, str]) -> tuple[int, Sequence[Any]]:
        return self._entries.get(key, (1, ()))


class Seen:
    """A registry that runs, and the views that it showed."""

    def __init__(self, registry: ConsulRegistry) -> None:
        self.registry = registry
        self.views: list[Sequence[Site]] = []
        self._news = asyncio.Condition()

    async def read(self) -> None:
        async for view in self.registry.changes():
            async with self._news:
                self.views.append(view)
                self._news.notify_all()

    async def until(self, good: Callable[[Site], bool], within_s: float = 1000) -> Site:
        """The first site of the view, once it is as asked."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: bool(self.views) and good(self.views[-1][0]))
            return self.views[-1][0]

    async def healthy(self) -> Site:
        return await self.until(lambda site: site.health is SiteHealth.PASSING)


@asynccontextmanager
async def running(agent: ConsulAgent, *listed: ListedSite) -> AsyncIterator[Seen]:
    sites = listed or (ListedSite(name="lyon", datacenter="dc2"),)
    seen = Seen(ConsulRegistry(agent, sites))
    tasks = [asyncio.create_task(seen.registry.run()), asyncio.create_task(seen.read())]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await agent.aclose()
