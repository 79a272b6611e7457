"""The wiring of the embedded platform: four services, their sites, one process, nothing to install.

The services are assembled by their own `wiring.assemble`, exactly as when each runs alone; only the adapters differ.
Questions between them are HTTP without a socket. Used by `serai-platform up`, `run` and the scenario tests.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from services.auth import wiring as auth_wiring
from services.auth.settings import AuthSettings
from services.embedded.agent import AgentSettings, EmbeddedAgent
from services.embedded.buses import open_bus
from services.embedded.folder import FIRST_AGENT_PORT, DataFolder, open_folder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import EmbeddedSite, read_sites
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.monitor import wiring as monitor_wiring
from services.monitor.settings import MonitorSettings
from services.scheduler import wiring as scheduler_wiring
from services.scheduler.settings import SchedulerSettings
from shared.adapters.memory_registry import MemoryRegistry
from shared.adapters.nomad import ClusterSettings, NomadCluster
from shared.adapters.span_store import SpanStore
from shared.adapters.sqlite import SqliteStore, open_store
from shared.errors import Unavailable
from shared.ports import MessageBus
from shared.runtime import logs
from shared.runtime.clock import system_clock
from shared.runtime.questions import Questions
from shared.runtime.service import Service, close, run_services
from shared.runtime.serving import HttpServer
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantVerifier
from shared.site import Site

log = logs.get("embedded.platform")

HOST = "127.0.0.1"
SERVICES = ("gateway", "scheduler", "monitor", "auth")


@dataclass(slots=True)
class Platform:
    """A running platform and where it is."""

    gateway: str
    issuer: str
    agents: dict[str, EmbeddedAgent]
    services: list[Service]
    stopping: asyncio.Event
    running: "asyncio.Task[None]"

    @property
    def sites(self) -> dict[str, str]:
        """Address of each site's agent."""
        return {name: agent.address for name, agent in self.agents.items()}

    async def wait_until_ready(self, deadline_s: float) -> None:
        """Return when every service can do its work. Raises Unavailable naming the culprits, or a task's failure."""
        culprits: dict[str, str] = {}
        try:
            async with asyncio.timeout(deadline_s):
                while culprits := await self._culprits():
                    await asyncio.wait([self.running], timeout=0.02)
                    if self.running.done():
                        self.running.result()
        except TimeoutError:
            words = "; ".join(f"{name}: {culprit}" for name, culprit in culprits.items())
            raise Unavailable(f"not ready within {deadline_s:g} s: {words}") from None

    async def _culprits(self) -> dict[str, str]:
        found = {}
        for service in self.services:
            found |= {f"{service.name}.{check}": why for check, why in (await service.not_ready()).items()}
        return found


@contextlib.asynccontextmanager
async def platform(settings: EmbeddedSettings) -> AsyncIterator[Platform]:
    """The platform, running and ready; stopped in order at the end, tasks of the sites included."""
    folder = open_folder(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        sites = read_sites(settings.sites)
        agents = {site.name: await _agent(site, folder, settings, stack) for site in sites}
        bus = await stack.enter_async_context(open_bus(settings, folder))
        spans = SpanStore(folder.path / "spans.sqlite")
        stack.callback(spans.shutdown)
        built = await _services(settings, folder, sites, agents, bus, spans, stack)
        stopping = asyncio.Event()
        running = asyncio.create_task(run_services(built.services, stopping), name="services")
        stack.push_async_callback(_stop, stopping, running)
        up = Platform(built.gateway, built.issuer, agents, built.services, stopping, running)
        await up.wait_until_ready(settings.ready_within_s)
        yield up


async def _stop(stopping: asyncio.Event, running: "asyncio.Task[None]") -> None:
    stopping.set()
    await asyncio.wait([running], timeout=30)
