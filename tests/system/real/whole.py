"""The whole platform on real parts for the tests of this folder, a TCP proxy before broker, database and Consul."""

import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from services.embedded.agent import EmbeddedAgent
from services.local.parts import Parts
from services.local.platform import LocalPlatform, local_platform
from services.local.settings import LocalSettings
from services.local.supervising import Kept
from shared.adapters.consul import throwaway as consul
from shared.adapters.postgres import throwaway as postgres
from shared.adapters.rabbitmq import throwaway as rabbitmq
from tests.proxy import Proxy
from tests.system.crash.load import Users

COPIES: Final = 2
READY_S: Final = 120.0
BROKER, DATABASE, CONSUL = "SERAI_AMQP_URL", "SERAI_DATABASE_URL", "SERAI_CONSUL__ADDRESS"
QUICK: Final = {
    "SERAI_SCHEDULER_TICK_S": "0.25",
    "SERAI_SCHEDULER_RETRY_FIRST_S": "0.1",
    "SERAI_SCHEDULER_CALL_FIRST_S": "0.1",
    "SERAI_SCHEDULER_STOP_POLL_S": "0.2",
    "SERAI_MONITOR_FIRST_LINE_S": "1",
}
"""Shorter pauses than in production, so that a fault costs less; leases are as in production."""

MISSING: Final = [
    name
    for name, found in (
        ("RabbitMQ", rabbitmq.installed()), ("PostgreSQL", postgres.installed()), ("Consul", consul.installed())
    )
    if found is None
]  # fmt: skip
needs_parts: Final = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")


@dataclass
class Whole:
    """A platform that runs, and what stands between it and its parts."""

    up: LocalPlatform
    broker: Proxy
    database: Proxy
    consul: Proxy
    folder: Path
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=10))

    renewed: list[EmbeddedAgent] = field(default_factory=list)
    """Agents that tests started in place of others."""

    @asynccontextmanager
    async def users(self, seed: int) -> AsyncIterator["Users[Entrance]"]:
        """Who hands in jobs, at the gateways in turn."""
        entrance = Entrance(self.up.issuer, itertools.cycle(self.up.addresses["gateway"]))
        marks = _marks(self.folder)
        users = Users(entrance, marks, random.Random(f"{seed}/{marks.name}"))
        try:
            yield users
        finally:
            await users.client.aclose()

    def copies(self, *services: str) -> list[Kept]:
        """The processes of some services, of all if none is named."""
        return [
            kept for name, kept in self.up.supervisor.kept.items()
            if not services or name.rpartition("-")[0] in services
        ]  # fmt: skip

    async def ready(self) -> None:
        """Return when every copy can do its work."""
        await self.up.wait_until_ready(READY_S)


def _marks(folder: Path) -> Path:
    """A folder in which tasks leave marks; those of a real Nomad are another user's."""
    made = Path(tempfile.mkdtemp(dir=folder))
    made.chmod(0o777)
    return made


@dataclass
class Entrance:
    """What a load balancer before the gateways is to users: another gateway at each look."""

    issuer: str
    gateways: Iterator[str]

    @property
    def addresses(self) -> Mapping[str, Any]:
        return {"issuer": self.issuer, "gateway": next(self.gateways)}


@asynccontextmanager
async def whole(
    folder: Path,
    *,
    copies: int = COPIES,
    nomad: str = "embedded",
    sites: Path | None = None,
    port: int = 18_080,
    **further: str,
) -> AsyncIterator[Whole]:
    """Two copies of each service unless told otherwise, ready; `further` is environment of the services."""
    proxies: dict[str, Proxy] = {}

    @asynccontextmanager
    async def told(parts: Parts) -> AsyncIterator[Mapping[str, str]]:
        async with AsyncExitStack() as stack:
            environment = dict(QUICK) | further
            for variable in (BROKER, DATABASE, CONSUL):
                proxy, url = await _between(parts.environment[variable], stack)
                proxies[variable], environment[variable] = proxy, url
            yield environment

    settings = LocalSettings(
        data=folder / "platform", port=port, nomad=nomad, sites=sites, copies=copies, store="postgres",
        registry="consul", ready_within_s=READY_S,
    )  # fmt: skip
    async with local_platform(settings, told) as up:
        made = Whole(up, proxies[BROKER], proxies[DATABASE], proxies[CONSUL], folder)
        yield made
        await made.http.aclose()
        for agent in made.renewed:
            await agent.stop(end_tasks=True)


async def _between(url: str, stack: AsyncExitStack) -> tuple[Proxy, str]:
    """A proxy before the server of a URL, and the URL through it."""
    port = urlsplit(url).port
    assert port is not None
    proxy = await stack.enter_async_context(Proxy(port))
    return proxy, url.replace(f":{port}", f":{proxy.port}", 1)
