"""The wiring of the embedded platform: four services, their sites, one process, nothing to install.

The services are assembled by their own `wiring.assemble`, exactly as when each runs alone; only the adapters differ.
Questions between them are HTTP without a socket. Used by `serai-platform up`, `run` and the scenario tests.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from services.auth import dev_issuer, dev_tokens
from services.auth import wiring as auth_wiring
from services.auth.settings import AuthSettings
from services.embedded.agents import HOST, MHZ_PER_CORE, Agent, GuardedAgent, open_agents
from services.embedded.buses import open_bus
from services.embedded.folder import DataFolder, open_folder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import EmbeddedSite, clusters_of, read_sites
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.gateway.settings import Issuer as NamedIssuer
from services.monitor import wiring as monitor_wiring
from services.monitor.settings import MonitorSettings
from services.scheduler import wiring as scheduler_wiring
from services.scheduler.settings import SchedulerSettings
from shared.adapters.memory_registry import MemoryRegistry
from shared.adapters.nomad import ClusterSettings, NomadCluster
from shared.adapters.nomad.health import health_probe
from shared.adapters.span_store import SpanStore
from shared.adapters.sqlite import open_store
from shared.errors import Unavailable
from shared.ports import MessageBus, Store
from shared.runtime.clock import system_clock
from shared.runtime.in_process import InProcessTransport
from shared.runtime.questions import Questions
from shared.runtime.service import Service, drain, run_services
from shared.runtime.serving import HttpServer
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantVerifier, keys_of
from shared.runtime.trust_watch import TrustWatch
from shared.site import Site

CALLS: Final = 16
"""Calls of a service to a site's agent at a time. Agents are near and count nobody's connections, but where one
loop does everybody's work a call takes several of its turns: a few at a time would set the rate of the platform.
"""

T = TypeVar("T")
Around = Callable[[str, Any], Any]
"""Handed every port under its name before a service gets it: tests put faults between service and port."""
Overrides = Mapping[str, Mapping[str, Any]]
"""Settings of a service, by its name, that are not as the environment and the defaults say: tests shorten times."""


def as_it_is(name: str, port: Any) -> Any:
    """The usual `Around`: nothing in between."""
    return port


@dataclass(slots=True)
class Platform:
    """A running platform and where it is."""

    gateway: str
    issuer: str
    agents: Mapping[str, Agent]
    """By cluster."""
    sites: Mapping[str, str]
    """Address of each site's agent."""
    services: list[Service]
    running: "asyncio.Task[None]"

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
        found: dict[str, str] = {}
        for service in self.services:
            found |= {f"{service.name}.{check}": why for check, why in (await service.not_ready()).items()}
        return found


@contextlib.asynccontextmanager
async def platform(
    settings: EmbeddedSettings, around: Around = as_it_is, overrides: Overrides | None = None,
    agents: Mapping[str, Agent] | None = None, apps: Around = as_it_is,
) -> AsyncIterator[Platform]:  # fmt: skip
    """The platform, running and ready; stopped in order at the end. Tasks at the sites run on, as with Nomad.

    `agents` that are handed in, one for each cluster, run already and outlive the platform. `apps` is handed what every
    service answers the others over HTTP, under the service's name.
    """
    folder = open_folder(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        parts = await _Parts.open(settings, folder, stack, around, overrides or {}, agents)
        parts.apps = apps
        issuer, auth = await parts.auth()
        scheduler = await parts.scheduler(auth)
        monitor = await parts.monitor(auth, scheduler)
        gateway = await parts.gateway(issuer, auth, scheduler, monitor)
        services = [auth, scheduler, monitor, gateway]
        stopping = asyncio.Event()
        running = asyncio.create_task(run_services(services, stopping), name="services")
        stack.push_async_callback(_stop, stopping, running)
        address = await parts.serve(gateway.app, "gateway", settings.port)
        stack.push_async_callback(drain, services)
        up = Platform(address, issuer, parts.agents, parts.places(), services, running)
        await up.wait_until_ready(settings.ready_within_s)
        yield up


async def _stop(stopping: asyncio.Event, running: "asyncio.Task[None]") -> None:
    stopping.set()
    await asyncio.wait([running], timeout=30)


@dataclass(slots=True)
class _Parts:
    """The adapters, opened, and how each service is assembled from them."""

    settings: EmbeddedSettings
    folder: DataFolder
    stack: contextlib.AsyncExitStack
    around: Around
    overrides: Overrides
    sites: Sequence[EmbeddedSite]
    agents: Mapping[str, Agent]
    clusters: dict[str, NomadCluster]
    registry: MemoryRegistry
    bus: MessageBus
    spans: SpanStore
    for_subscribers: Mapping[str, SecretStr]
    apps: Around = as_it_is

    @classmethod
    async def open(
        cls, settings: EmbeddedSettings, folder: DataFolder, stack: contextlib.AsyncExitStack, around: Around,
        overrides: Overrides, running: Mapping[str, Agent] | None,
    ) -> "_Parts":  # fmt: skip
        sites = read_sites(settings.sites)
        agents = running or await open_agents(sites, folder, settings, stack)
        gateway = f"http://{HOST}:{folder.port('gateway', settings.port)}"
        clusters = {name: NomadCluster(_cluster(name, agent, settings, gateway)) for name, agent in agents.items()}
        for cluster in clusters.values():
            stack.push_async_callback(cluster.aclose)
        registry = MemoryRegistry(
            [_site(site, agents[site.cluster_name], settings) for site in sites],
            probe=health_probe(clusters.values()), interval_s=settings.health_interval_s,
        )  # fmt: skip
        opened = await stack.enter_async_context(open_bus(settings, folder))
        spans = SpanStore(folder.path / "spans.sqlite")
        stack.callback(spans.close)
        bus = around("bus", opened.bus)
        return cls(
            settings, folder, stack, around, overrides, sites, agents, clusters, registry, bus, spans,
            opened.for_subscribers,
        )  # fmt: skip

    def places(self) -> Mapping[str, str]:
        """Address of each site's agent."""
        return {site.name: self.agents[site.cluster_name].address for site in self.sites}

    async def auth(self) -> tuple[str, Service]:
        """The development issuer, serving, and auth, which trusts it."""
        port = self.folder.issuer_port(self.settings.port + 1)
        url = f"http://{HOST}:{port}"
        issuer_settings = dev_issuer.DevIssuerSettings(
            url=url, key_file=self.folder.path / "dev-issuer-key.json", token_life_s=self.settings.token_life_s
        )
        await self.serve(dev_issuer.assemble(issuer_settings, clock=system_clock).app, "issuer", port)
        clusters = [
            dev_tokens.cluster_trusted_as(
                self.agents[name].address, (site.name for site in sites), _trusting(self.agents[name]).get("ca_file")
            )
            for name, sites in clusters_of(self.sites).items()
        ]
        settings = self.told(
            AuthSettings, "auth", issuers=(dev_issuer.trusted_as(url, issuer_settings.mode), *clusters), dev_mode=True
        )
        auth = await auth_wiring.assemble(
            settings, store=await self.store("auth"), clock=system_clock, tracer=self.tracer("auth"),
            door=self.folder.door("auth"),
        )  # fmt: skip
        await self.serve(auth.app, "auth", port + 1)
        return url, auth

    async def scheduler(self, auth: Service) -> Service:
        """The scheduler, and with it the registry's look at its sites (Consul's work elsewhere)."""
        service = await scheduler_wiring.assemble(
            self.told(SchedulerSettings, "scheduler", instance="embedded", calls_per_cluster=CALLS),
            store=await self.store("scheduler"), bus=self.bus,
            registry=self.around("registry", self.registry), auth=self.ask("scheduler", auth),
            verifier=self.verifier("scheduler", auth), clock=system_clock, door=self.folder.door("scheduler"),
            engines={name: self.around("engine", cluster.engine) for name, cluster in self.clusters.items()},
            tracer=self.tracer("scheduler"), rng=random.Random(),
        )  # fmt: skip
        service.tasks["registry"] = self.registry.run
        return service

    async def monitor(self, auth: Service, scheduler: Service) -> Service:
        return await monitor_wiring.assemble(
            self.told(MonitorSettings, "monitor", instance="embedded"), store=await self.store("monitor"), bus=self.bus,
            watches={name: self.around("watch", cluster.watch) for name, cluster in self.clusters.items()},
            sites=self.around("registry", self.registry), scheduler=self.ask("monitor", scheduler),
            verifier=self.verifier("monitor", auth), clock=system_clock, tracer=self.tracer("monitor"),
            door=self.folder.door("monitor"),
        )  # fmt: skip

    async def gateway(self, issuer: str, auth: Service, scheduler: Service, monitor: Service) -> Service:
        named = NamedIssuer(
            issuer=issuer, name="Development issuer (demo users)", client_id=dev_issuer.CLI,
            demo_token_endpoint=f"{issuer}/demo/token",
        )  # fmt: skip
        settings = self.told(GatewaySettings, "gateway", instance="embedded", **self.for_subscribers)
        subscribers = gateway_wiring.subscribers_of(settings)
        if subscribers is not None:
            self.stack.push_async_callback(subscribers.close)
        return await gateway_wiring.assemble(
            settings, store=await self.store("gateway"), bus=self.bus,
            auth=self.ask("gateway", auth), scheduler=self.ask("gateway", scheduler),
            monitor=self.ask("gateway", monitor), clock=system_clock,
            tracer=self.tracer("gateway"), spans=self.spans.spans_of, issuers=(named, *settings.issuers),
            subscribers=subscribers,
        )  # fmt: skip

    def told(self, kind: Callable[..., T], service: str, **given: Any) -> T:
        """The settings of a service."""
        told = {"service_token": SecretStr(self.folder.service_token)} | given | dict(self.overrides.get(service, {}))
        return kind(**told)

    async def store(self, service: str) -> Store:
        opened = await open_store(self.folder.path / f"{service}.sqlite", f"services.{service}.migrations")
        self.stack.push_async_callback(opened.close)
        store: Store = self.around(f"{service}.store", opened)
        return store

    def tracer(self, service: str) -> Tracer:
        processor = self.spans.processor()
        self.stack.callback(processor.shutdown)
        return Tracer(service, processor, system_clock)

    def ask(self, asker: str, service: Service) -> Questions:
        """A client of another service of this process."""
        transport = InProcessTransport(self.apps(service.name, service.app))
        return Questions(f"http://{service.name}", service.name, self.folder.identity(asker), transport=transport)

    def verifier(self, asker: str, auth: Service) -> GrantVerifier:
        asking = self.ask(asker, auth)
        return GrantVerifier(keys_of(asking), system_clock, trust=TrustWatch(asking, system_clock))

    async def serve(self, app: Any, name: str, first_port: int) -> str:
        """Serve an app on loopback at the next free port; its address."""
        server = HttpServer(app, HOST, self.folder.port(name, first_port))
        await server.start()
        self.stack.push_async_callback(server.stop)
        return server.address


def _site(site: EmbeddedSite, agent: Agent, settings: EmbeddedSettings) -> Site:
    hardware = (*site.hardware, "mock") if settings.mock else site.hardware
    return Site(
        name=site.name, country=site.country, vos=site.vos, cluster=site.cluster_name, address=agent.address,
        region=site.cluster_name, datacenters=(site.datacenter,), node_pool=site.node_pool, hardware=hardware,
        mhz_per_core=MHZ_PER_CORE, carbon_g_per_kwh=site.carbon_g_per_kwh,
        cost_per_core_hour=site.cost_per_core_hour,
    )  # fmt: skip


def _cluster(name: str, agent: Agent, settings: EmbeddedSettings, gateway: str) -> ClusterSettings:
    told = {"connections": 2 * (CALLS + 1)} | _trusting(agent)
    return ClusterSettings(
        name=name, address=agent.address, region=name, allow_mock=settings.mock, platform_url=gateway, **told
    )  # fmt: skip


def _trusting(agent: Agent) -> dict[str, Any]:
    return dict(agent.trusting()) if isinstance(agent, GuardedAgent) else {}
