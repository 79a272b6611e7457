"""The one place where the gateway is put together. Used by the embedded platform, the process and the tests."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

from fastapi import FastAPI
from pydantic import SecretStr

from services.gateway import event_log
from services.gateway.access import Access, CacheTimes
from services.gateway.api.about import AboutRoutes
from services.gateway.api.app import create_app
from services.gateway.api.events import EventRoutes
from services.gateway.api.files import FileRoutes
from services.gateway.api.jobs import JobRoutes
from services.gateway.api.secrets import SecretRoutes
from services.gateway.api.sites import SiteRoutes
from services.gateway.api.views import ViewRoutes
from services.gateway.backlog import Backlog
from services.gateway.changes import Changes
from services.gateway.commanding import Commanding
from services.gateway.front import Front
from services.gateway.granting import Granting
from services.gateway.lookup import Lookup
from services.gateway.pacing import Limits, Pace
from services.gateway.projection import Holes, Janitor, Projection, Retention
from services.gateway.rates import read_limit
from services.gateway.settings import GatewaySettings, Issuer
from services.gateway.sse import Streams
from services.gateway.store import runtime
from services.gateway.submission import SOURCE, Submission
from services.gateway.timeline import Timelines
from shared import ids
from shared.contracts.questions import Answer
from shared.ports import Clock, MessageBus, Store
from shared.runtime.clock import system_clock
from shared.runtime.http import install_health
from shared.runtime.questions import Questions
from shared.runtime.relay import Relay
from shared.runtime.service import Service
from shared.runtime.telemetry import SpanReader, Tracer
from shared.runtime.transactions import Transactions


class Parts:
    """Everything the gateway consists of, wired; no I/O happens here."""

    def __init__(
        self, settings: GatewaySettings, *, store: Store, bus: MessageBus, auth: Questions, scheduler: Questions,
        monitor: Questions, clock: Clock, tracer: Tracer, spans: SpanReader | None, issuers: Sequence[Issuer],
        new_id: Callable[[], UUID],
    ) -> None:  # fmt: skip
        self.changes = Changes()
        self.transactions = Transactions(store, runtime, SOURCE, clock)
        self.relay = Relay(self.transactions, bus)
        times = CacheTimes(settings.context_cache_s, settings.stale_context_s, settings.refused_cache_s)
        pace = Pace(_limits(settings), clock)
        access = self.access = Access(auth, clock, times, settings.context_cache_size, pace)
        granting, lookup = Granting(auth), Lookup(store)
        backlog = Backlog(self.relay, clock, settings.outbox_limit_s)
        submission = Submission(self.transactions, granting, backlog, pace, clock, new_id)
        commanding = Commanding(self.transactions, granting, lookup, self.changes, clock)
        streams = Streams(
            store, self.changes, access, clock, heartbeat_s=settings.heartbeat_s, limit=settings.stream_limit
        )
        timelines = Timelines(store, scheduler, monitor)
        self.holes = Holes(store, scheduler, monitor, self.changes, clock)
        self.projection = Projection(store, bus, self.changes, self.holes, clock, settings.fold_batch)
        self.janitor = Janitor(store, self.relay, _retention(settings), clock)
        self.app: FastAPI = create_app(
            [
                AboutRoutes(settings, tuple(issuers), access),
                JobRoutes(settings, access, submission, commanding, scheduler, tracer),
                ViewRoutes(settings, access, lookup, store, self.changes, scheduler, timelines, spans),
                FileRoutes(access, lookup, self.changes, monitor),
                EventRoutes(access, lookup, streams),
                SiteRoutes(access, commanding, scheduler, clock),
                SecretRoutes(access, auth),
            ],
            settings.public_url,
        )
        self.front = Front(self.app, access, store, pace, tracer, clock, span_every=settings.read_span_every)


async def assemble(
    settings: GatewaySettings, *, store: Store, bus: MessageBus, auth: Questions, scheduler: Questions,
    monitor: Questions, clock: Clock, tracer: Tracer, spans: SpanReader | None = None,
    issuers: Sequence[Issuer] | None = None, new_id: Callable[[], UUID] = ids.new_job_id,
) -> Service:  # fmt: skip
    """The gateway as a service. `issuers` are named by `GET /v1` in place of those in the settings."""
    parts = Parts(
        settings, store=store, bus=bus, auth=auth, scheduler=scheduler, monitor=monitor, clock=clock, tracer=tracer,
        spans=spans, issuers=settings.issuers if issuers is None else issuers, new_id=new_id,
    )  # fmt: skip
    epoch = secrets.token_hex(4)
    await store.transact(lambda connection: event_log.prepare(connection, epoch))
    parts.changes.head = (await store.read(event_log.state)).head

    async def close_streams() -> None:
        parts.changes.close()

    service = Service(
        name="gateway",
        app=parts.front,
        tasks={
            "relay": parts.relay.run, "projection": parts.projection.run, "holes": parts.holes.run,
            "janitor": parts.janitor.run,
        },
        checks={"store": _store_check(store), "bus": bus.ready, "auth": _health_check(auth)},
        drains=[close_streams],
        closers=[auth.close, scheduler.close, monitor.close],
    )  # fmt: skip
    install_health(parts.app, service)
    return service


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, made without anything to talk to."""
    nothing = cast(Any, None)
    away = Questions("http://service.invalid", "nobody", "")
    parts = Parts(
        GatewaySettings(service_token=SecretStr("")), store=nothing, bus=nothing, auth=away, scheduler=away,
        monitor=away, clock=system_clock, tracer=Tracer("gateway", None, system_clock), spans=None, issuers=(),
        new_id=ids.new_job_id,
    )  # fmt: skip
    return parts.app.openapi()


def _retention(settings: GatewaySettings) -> Retention:
    return Retention(
        settings.log_retention_s, settings.key_retention_s, settings.job_retention_s, settings.janitor_interval_s
    )


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        reads=read_limit("reads", settings.rate_reads), changes=read_limit("changes", settings.rate_changes),
        vo_jobs=read_limit("vo-jobs", settings.rate_vo_jobs),
        strangers=read_limit("strangers", settings.rate_strangers),
    )  # fmt: skip


def _store_check(store: Store) -> Any:
    async def check() -> None:
        await store.read(event_log.state)

    return check


def _health_check(service: Questions) -> Any:
    async def check() -> None:
        await service.ask("GET", "/healthz", Answer)

    return check
