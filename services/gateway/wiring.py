"""The one place where the gateway is put together. Used by the embedded platform, the process and the tests."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
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
from services.gateway.api.progress import ProgressRoutes
from services.gateway.api.secrets import SecretRoutes
from services.gateway.api.sites import SiteRoutes
from services.gateway.api.subscriptions import SubscriptionRoutes
from services.gateway.api.views import ViewRoutes
from services.gateway.backlog import Backlog
from services.gateway.changes import Changes
from services.gateway.commanding import Commanding
from services.gateway.feeding import Feeding, Times
from services.gateway.front import Front
from services.gateway.granting import Granting
from services.gateway.lookup import Lookup
from services.gateway.pacing import Limits, Pace
from services.gateway.projection import Holes, Janitor, Projection, Retention
from services.gateway.rates import read_limit
from services.gateway.reporting import Reporting
from services.gateway.room import Room
from services.gateway.settings import GatewaySettings, Issuer
from services.gateway.sse import Streams
from services.gateway.store import runtime
from services.gateway.submission import SOURCE, Submission
from services.gateway.subscribing import Ceilings, Subscribing
from services.gateway.timeline import Timelines
from shared import ids
from shared.contracts.questions import Answer
from shared.errors import Misconfigured
from shared.ports import Clock, MessageBus, Store, SubscriberBroker
from shared.runtime.clock import system_clock
from shared.runtime.http import install_health
from shared.runtime.leadership import Leadership
from shared.runtime.questions import Questions
from shared.runtime.relay import Relay
from shared.runtime.service import Service
from shared.runtime.telemetry import SpanReader, Tracer
from shared.runtime.transactions import Transactions

LEASE: Final = "gateway.subscriptions"


class Parts:
    """Everything the gateway consists of, wired; no I/O happens here."""

    def __init__(
        self, settings: GatewaySettings, *, store: Store, bus: MessageBus, auth: Questions, scheduler: Questions,
        monitor: Questions, clock: Clock, tracer: Tracer, spans: SpanReader | None, issuers: Sequence[Issuer],
        new_id: Callable[[], UUID], subscribers: SubscriberBroker | None,
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
        room = Room(settings.stream_limit)
        streams = Streams(store, self.changes, access, clock, heartbeat_s=settings.heartbeat_s, room=room)
        timelines = Timelines(store, scheduler, monitor)
        reporting = Reporting(self.transactions, granting, scheduler, clock, settings.progress_every_s)
        self.holes = Holes(store, scheduler, monitor, self.changes, clock)
        self.projection = Projection(store, bus, self.changes, self.holes, clock, settings.fold_batch)
        self.leadership = Leadership(store, clock, lease=LEASE, instance=settings.instance, ttl_s=settings.lease_s)
        self.feeding = _feeding(settings, store, self.changes, subscribers, auth, self.leadership, clock)
        subscribing = Subscribing(store, subscribers, clock, _ceilings(settings), new_id, self.feeding.wake)
        self.janitor = Janitor(store, self.relay, _retention(settings), clock)
        job_routes = JobRoutes(settings, access, submission, commanding, scheduler, tracer)
        self.app: FastAPI = create_app(
            [
                AboutRoutes(settings, tuple(issuers), access),
                job_routes,
                ViewRoutes(settings, access, reporting, lookup, store, self.changes, scheduler, timelines, spans),
                FileRoutes(access, lookup, self.changes, monitor, room),
                EventRoutes(access, lookup, streams),
                SiteRoutes(access, commanding, scheduler, clock),
                SecretRoutes(access, auth),
                SubscriptionRoutes(access, subscribing, store, self.feeding),
                ProgressRoutes(access, reporting),
            ],
            access.anybody,
            settings.public_url,
        )
        self.front = Front(
            self.app, job_routes.submit_job, access, store, pace, tracer, clock, span_every=settings.read_span_every,
            problem_base=settings.public_url,
        )  # fmt: skip


async def assemble(
    settings: GatewaySettings, *, store: Store, bus: MessageBus, auth: Questions, scheduler: Questions,
    monitor: Questions, clock: Clock, tracer: Tracer, spans: SpanReader | None = None,
    issuers: Sequence[Issuer] | None = None, new_id: Callable[[], UUID] = ids.new_job_id,
    subscribers: SubscriberBroker | None = None,
) -> Service:  # fmt: skip
    """The gateway as a service. `issuers` are named by `GET /v1` in place of those in the settings.

    `subscribers` None = no subscriptions: the routes say so. The caller closes it.
    """
    parts = Parts(
        settings, store=store, bus=bus, auth=auth, scheduler=scheduler, monitor=monitor, clock=clock, tracer=tracer,
        spans=spans, issuers=settings.issuers if issuers is None else issuers, new_id=new_id,
        subscribers=subscribers,
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
        closers=[parts.relay.note, auth.close, scheduler.close, monitor.close],
    )  # fmt: skip
    if subscribers is not None:
        service.tasks |= {"lease": parts.leadership.run, "subscriptions": parts.feeding.run}
        service.closers.insert(0, parts.leadership.give_back)
    install_health(parts.app, service)
    return service


def subscribers_of(settings: GatewaySettings) -> SubscriberBroker | None:
    """The broker for readers outside that the settings name, if any; nothing is contacted. Raises Misconfigured."""
    amqp_url = settings.subscribers_amqp_url.get_secret_value()
    management_url = settings.subscribers_management_url.get_secret_value()
    if not amqp_url and not management_url:
        return None
    if not amqp_url or not management_url:
        raise Misconfigured(
            "subscriptions need both SERAI_GATEWAY_SUBSCRIBERS_AMQP_URL and SERAI_GATEWAY_SUBSCRIBERS_MANAGEMENT_URL, "
            "or neither (docs/rabbitmq.md)"
        )
    from shared.adapters.rabbitmq.subscribers import RabbitSubscribers  # not paid for without a broker

    return RabbitSubscribers(
        amqp_url, management_url, public_url=settings.subscribers_public_url, length=2 * settings.subscription_length,
        expires_s=settings.subscription_idle_s + 86_400, lag_s=settings.subscription_lag_s,
    )  # fmt: skip


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, made without anything to talk to."""
    nothing = cast(Any, None)
    away = Questions("http://service.invalid", "nobody", "")
    parts = Parts(
        GatewaySettings(service_token=SecretStr("")), store=nothing, bus=nothing, auth=away, scheduler=away,
        monitor=away, clock=system_clock, tracer=Tracer("gateway", None, system_clock), spans=None, issuers=(),
        new_id=ids.new_job_id, subscribers=None,
    )  # fmt: skip
    return parts.app.openapi()


def _ceilings(settings: GatewaySettings) -> Ceilings:
    return Ceilings(settings.subscriptions_of_user, settings.subscriptions_of_vo, settings.subscription_credentials_s)


def _feeding(
    settings: GatewaySettings, store: Store, changes: Changes, broker: SubscriberBroker | None, auth: Questions,
    leadership: Leadership, clock: Clock,
) -> Feeding:  # fmt: skip
    times = Times(settings.subscription_recheck_s, settings.subscription_idle_s, settings.stale_context_s)
    there = cast(SubscriberBroker, broker)  # without one, it is never run
    return Feeding(store, changes, there, auth, leadership, clock, times, settings.subscription_length)


def _retention(settings: GatewaySettings) -> Retention:
    return Retention(
        settings.log_retention_s,
        settings.key_retention_s,
        settings.job_retention_s,
        settings.subscription_retention_s,
        settings.janitor_interval_s,
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
