"""The composition root of the monitor: every part of the service, put together in one visible function."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from services.monitor import api
from services.monitor import store as tables
from services.monitor.changes import Changes
from services.monitor.collecting import Collector
from services.monitor.folding import Folding
from services.monitor.janitor import Janitor
from services.monitor.log_reading import LogReader
from services.monitor.probing import Prober
from services.monitor.reconciling import Reconciler
from services.monitor.settings import MonitorSettings
from services.monitor.site_health import Hysteresis
from services.monitor.sites import SiteBook, SiteDesk
from services.monitor.watcher import Watcher
from shared.ports import Clock, EngineWatch, MessageBus, SiteRegistry, Store
from shared.runtime.http import install_health
from shared.runtime.leadership import Leadership
from shared.runtime.questions import Questions
from shared.runtime.relay import Relay
from shared.runtime.service import Service
from shared.runtime.service_identity import Door
from shared.runtime.telemetry import Tracer
from shared.runtime.transactions import Transactions

SOURCE = "serai-monitor"
LEASE = "monitor.watching"


async def assemble(
    settings: MonitorSettings,
    *,
    store: Store,
    bus: MessageBus,
    watches: Mapping[str, EngineWatch],
    sites: SiteRegistry,
    scheduler: Questions,
    verifier: api.ReadVerifier,
    clock: Clock,
    tracer: Tracer,
    rng: random.Random | None = None,
    door: Door | None = None,
) -> Service:
    """The monitor, ready to run. `watches` are by cluster name, as sites name their cluster; the caller closes what
    it handed in. `door` knows the other services; none = by the secret that all share."""
    transactions = Transactions(store, tables.runtime, SOURCE, clock)
    relay = Relay(transactions, bus)
    leadership = Leadership(
        store, clock, lease=LEASE, instance=settings.instance, ttl_s=settings.lease_ttl_s
    )  # fmt: skip
    book, changes, owed = SiteBook(sites), Changes(), asyncio.Event()
    tasks: dict[str, Callable[[], Awaitable[None]]] = {
        "relay": relay.run, "lease": leadership.run, "sites": book.follow,
        "collector": Collector(watches, transactions, leadership, changes, settings, owed).run,
        "janitor": Janitor(transactions, leadership, settings).run,
    }  # fmt: skip
    desks: list[SiteDesk] = []
    for cluster, watch in watches.items():
        desk = SiteDesk(
            cluster, book, transactions, leadership, Hysteresis(settings.unreachable_after, settings.reachable_after)
        )
        desks.append(desk)
        folding = Folding(cluster, watch, transactions, leadership, book, changes, tracer, owed)
        reconciler = Reconciler(cluster, watch, store, folding, desk, scheduler, clock, settings)
        watcher = Watcher(
            cluster, watch, store, folding, reconciler, desk, book, leadership, settings, rng or random.Random()
        )
        tasks[f"watch.{cluster}"] = watcher.run
        tasks[f"probe.{cluster}"] = Prober(watch, desk, book, leadership, settings).run
    reader = LogReader(store, watches, changes, settings)
    answers = api.Answers(transactions, reader, changes, verifier, settings)
    service = Service(
        name="monitor",
        app=api.make_app(answers, door or Door("monitor", {}, shared=settings.service_token.get_secret_value())),
        tasks=tasks,
        checks={"bus": bus.ready, "sites": book.answers, "store": _answers(store)},
        sites=lambda: {site: trouble for desk in desks for site, trouble in desk.troubles().items()},
        closers=[relay.note, leadership.give_back],
    )
    install_health(service.app, service)
    return service


def _answers(store: Store) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        await store.read(lambda connection: tables.checkpoint(connection, ""))

    return check
