"""What one process stands on: its door, its database, the bus, the other services, the collector of spans.

Each service's `process.py` opens one `Backing`, assembles the service by its own `wiring.assemble`, and serves it.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_settings import BaseSettings

from shared.adapters.consul import ConsulAgent, ConsulServices, Copy
from shared.adapters.rabbitmq import AmqpBus, declare
from shared.adapters.stores import open_store_at
from shared.contracts.routes import ACCESS
from shared.ports import MessageBus, Store
from shared.processes.door import Door
from shared.processes.settings import ProcessSettings, read_file, read_settings
from shared.runtime import garbage, logs
from shared.runtime.clock import system_clock
from shared.runtime.questions import Questions
from shared.runtime.service import Service, drain, run_services, supervise
from shared.runtime.service_identity import Door as ServiceDoor
from shared.runtime.serving import HttpServer
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantVerifier, keys_of
from shared.runtime.trust_watch import TrustWatch
from shared.runtime.ways import AnyCopy

log = logs.get("processes.backing")

T = TypeVar("T")
S = TypeVar("S", bound=BaseSettings)


FOLLOWED: Final[dict[str, tuple[str, ...]]] = {
    "gateway": ("auth", "scheduler", "monitor"), "scheduler": ("auth",), "monitor": ("auth", "scheduler"), "auth": (),
}  # fmt: skip
"""Whom each service asks."""


@dataclass(slots=True)
class Backing:
    """Opened by `backing`; everything in it is closed by the stack that opened it, last first."""

    service: str
    settings: ProcessSettings
    file: dict[str, dict[str, Any]]
    door: Door
    stack: contextlib.AsyncExitStack
    stopping: asyncio.Event
    server: HttpServer
    consul: ConsulAgent | None = None
    services: ConsulServices | None = None
    tracer: Tracer = field(default_factory=lambda: Tracer("", None, system_clock))
    started: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)

    def read(self, kind: type[S], **given: Any) -> S:
        """The service's own settings."""
        given.setdefault("service_token", self.settings.service_key)
        return read_settings(kind, self.file.get(self.service, {}), **given)

    async def store(self, migrations: str) -> Store:
        """The service's database, migrated; waits for it."""
        url = self.settings.database(self.service)
        store = await self.door.until("database", partial(open_store_at, url, migrations))
        self.stack.push_async_callback(store.close)
        return store

    async def bus(self) -> MessageBus:
        """The bus with its topology; waits for it."""
        url = self.settings.amqp_url.get_secret_value()

        async def connected() -> AmqpBus:
            if self.settings.amqp_declare:
                await declare(url)
            return await AmqpBus.open(url, access=ACCESS[self.service])

        bus = await self.door.until("bus", connected)
        self.stack.push_async_callback(bus.close)
        return bus

    def ask(self, service: str) -> Questions:
        """A client of another service. The assembled service closes it."""
        identity = self.settings.identity(self.service)
        where = self.settings.addresses if self.services is None else self.services.addresses
        return Questions(f"http://{service}", service, identity, way=AnyCopy(partial(where, service), service))

    def guard(self) -> ServiceDoor:
        """How this service knows the others."""
        return self.settings.door(self.service)

    def verifier(self) -> GrantVerifier:
        """Checks what auth signed; fetches auth's keys when it needs them."""
        asking = self.ask("auth")
        self.stack.push_async_callback(asking.close)
        return GrantVerifier(keys_of(asking), system_clock, trust=TrustWatch(asking, system_clock))

    def start(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run an endless task from now on, before the service is assembled; `serve` watches over it."""
        self.started[name] = asyncio.create_task(supervise(name, task), name=name)
        self.stack.callback(self.started[name].cancel)

    async def serve(self, service: Service) -> None:
        """Answer and work until told to stop; then end requests first and tasks after. Raises a task's failure."""
        if self.services is not None:
            copy = Copy(self.service, self.settings.own_name(self.service), self.settings.own_url(self.service))
            service.tasks["consul.register"] = partial(self.services.keep, copy)
            service.drains.insert(0, partial(self.services.withdraw, copy))
        for name, task in self.started.items():
            service.tasks[name] = partial(asyncio.shield, task)
        self.door.open(service.app)
        log.info("serving", service=self.service)
        garbage.settle()
        requests_ended = asyncio.Event()
        ending = asyncio.create_task(self._end_requests(service, requests_ended), name="end-requests")
        try:
            await run_services([service], requests_ended, drain_s=self.settings.drain_s)
        finally:
            ending.cancel()
            if not requests_ended.is_set():  # a task failed: what goes on for ever must not hold up the new start
                await drain([service])

    async def _end_requests(self, service: Service, ended: asyncio.Event) -> None:
        await self.stopping.wait()
        log.info("stopping", service=self.service)
        await drain([service])
        await self.server.stop()
        ended.set()


@contextlib.asynccontextmanager
async def backing(service: str) -> AsyncIterator[Backing]:
    """The ground of one process: settings read, signals taken, the door open. Raises Misconfigured, Unavailable."""
    file = read_file()
    settings = read_settings(ProcessSettings, file.get("process", {}))
    logs.configure(settings.log_level)
    async with contextlib.AsyncExitStack() as stack:
        door = Door(service)
        server = HttpServer(
            door, settings.host, settings.listen_port(service), drain_s=settings.drain_s, edge=settings.edge
        )
        server.known_as(settings.own_url(service))
        made = Backing(service, settings, file, door, stack, asyncio.Event(), server)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, made.stopping.set)
        if settings.consul is not None:
            made.consul = ConsulAgent(settings.consul)
            stack.push_async_callback(made.consul.aclose)
            made.services = ConsulServices(made.consul, follow=FOLLOWED[service])
            made.start("consul.services", made.services.run)
        made.tracer = _tracer(service, settings, stack.callback)
        await server.start()
        stack.push_async_callback(server.stop)
        log.info("listening", service=service, address=server.address)
        yield made


async def run(service: str, work: Callable[[Backing], Any]) -> None:
    """Run `work(backing)` until it ends or a signal comes, whichever is first: also while it waits to start."""
    async with backing(service) as ground:
        working = asyncio.create_task(work(ground), name=service)
        told = asyncio.create_task(ground.stopping.wait(), name="told-to-stop")
        await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and ground.door.waiting:
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        told.cancel()


def _tracer(service: str, settings: ProcessSettings, at_end: Callable[[Callable[[], None]], Any]) -> Tracer:
    if not settings.otlp_endpoint:
        return Tracer(service, None, system_clock)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces", timeout=5)
    processor = BatchSpanProcessor(exporter)
    at_end(processor.shutdown)
    return Tracer(service, processor, system_clock)
