"""The one place where the scheduler is put together. Used by the embedded platform, the process and the tests."""

import random
from collections.abc import Mapping
from functools import partial

from services.scheduler import api, dead_letters, handlers, queue_store, retry
from services.scheduler.authorising import Authorising, Verifier
from services.scheduler.deadlines import Graces
from services.scheduler.handlers import Context
from services.scheduler.janitor import Janitor
from services.scheduler.jobs import Rules
from services.scheduler.keeping import Keeper
from services.scheduler.known_sites import KnownSites
from services.scheduler.leading import Leader
from services.scheduler.leftovers import Leftovers
from services.scheduler.performing import CallPace, Performer
from services.scheduler.placing import Pace, Placer
from services.scheduler.releasing import Releasing
from services.scheduler.settings import SchedulerSettings
from services.scheduler.stopping import StopPace, Stopper
from services.scheduler.store import runtime
from services.scheduler.sweeping import Sweeper, SweepPace
from services.scheduler.wakes import Wakes
from shared import namespaces
from shared.contracts.questions import Answer
from shared.contracts.routes import SCHEDULER_COMMANDS, SCHEDULER_REPORTS
from shared.ports import Clock, JobEngine, MessageBus, SiteRegistry, Store
from shared.runtime.consuming import Consumer
from shared.runtime.http import install_health
from shared.runtime.questions import Questions
from shared.runtime.relay import Relay
from shared.runtime.service import Service
from shared.runtime.service_identity import Door
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import granted_claims
from shared.runtime.transactions import Transactions
from shared.runtime.trust_watch import TrustWatch

__all__ = ["MIGRATIONS", "assemble"]

MIGRATIONS = "services.scheduler.migrations"
SOURCE = "scheduler"


async def assemble(
    settings: SchedulerSettings, *, store: Store, bus: MessageBus, registry: SiteRegistry,
    engines: Mapping[str, JobEngine], auth: Questions, verifier: Verifier, clock: Clock, tracer: Tracer,
    rng: random.Random | None = None, door: Door | None = None,
) -> Service:  # fmt: skip
    """The scheduler, ready to run. `engines` by cluster; `rng` makes nonces and jitter (none = the system's). `door`
    knows the other services; none = by the secret that all share.
    """
    door = door or Door("scheduler", {}, shared=settings.service_token.get_secret_value())
    dice = rng or random.SystemRandom()
    parts = Parts(settings, store, bus, registry, engines, auth, verifier, clock, tracer, dice, door)
    service = Service(
        name="scheduler",
        app=parts.app,
        tasks={
            "relay": parts.relay.run, "commands": parts.commands.run, "reports": parts.reports.run,
            "sites": parts.sites.follow, "namespaces": parts.sites.ask_namespaces, "leader": parts.lead,
            "janitor": parts.janitor.run,
        },
        checks={
            "store": partial(_store_answers, store), "bus": bus.ready, "registry": parts.sites.ready,
            "auth": partial(_service_answers, auth),
        },
        sites=parts.sites.troubles,
        closers=[parts.relay.note, auth.close],
    )  # fmt: skip
    install_health(parts.app, service)
    return service


class Parts:
    """Everything the scheduler consists of, wired; no I/O happens here."""

    def __init__(
        self, settings: SchedulerSettings, store: Store, bus: MessageBus, registry: SiteRegistry,
        engines: Mapping[str, JobEngine], auth: Questions, verifier: Verifier, clock: Clock, tracer: Tracer,
        rng: random.Random, door: Door,
    ) -> None:  # fmt: skip
        wakes = Wakes()
        self._namespaces = settings.namespaces
        self.transactions = Transactions(store, runtime, SOURCE, clock)
        self.relay = Relay(self.transactions, bus)
        self.keeper = Keeper(_rules(settings), _graces(settings), tracer, wakes, rng)
        self.sites = KnownSites(registry, engines, self.transactions, wakes, settings.namespaces_s)
        trust = TrustWatch(auth, clock)
        authorising = Authorising(
            auth, verifier, clock, trust, cache_s=settings.decision_cache_s, away_s=settings.auth_pause_s
        )
        self.context = Context(
            self.keeper, authorising.denial, granted_claims, lambda: self.sites.by_name,
            settings.stop_unknown_strays,
        )  # fmt: skip
        table = handlers.bound(self.context)
        self.commands = Consumer(
            bus, SCHEDULER_COMMANDS, self.transactions, table, prefetch=settings.prefetch,
            authorise=authorising.command, on_dead_letter=partial(dead_letters.reject, self.context),
        )  # fmt: skip
        self.reports = Consumer(bus, SCHEDULER_REPORTS, self.transactions, table, prefetch=settings.prefetch)
        self.leader = Leader(self.transactions, settings.instance, settings.lease_s)
        self.placer = Placer(
            store, self.leader, self.keeper, self.sites, authorising, clock, rng, self.namespace_of, _pace(settings)
        )
        self.performer = Performer(
            store, self.leader, self.keeper, self.sites, engines, Releasing(auth), clock, tracer, rng,
            _call_pace(settings),
        )  # fmt: skip
        self.leftovers = Leftovers(
            self.leader, self.keeper, engines, settings.leftovers_s, unknown=settings.stop_unknown_strays
        )
        sweep = SweepPace(settings.tick_s, settings.site_grace_s, settings.monitor_silence_s)
        self.sweeper = Sweeper(store, self.leader, self.keeper, self.sites, clock, self.namespace_of, sweep)
        self.stopper = Stopper(store, self.leader, self.keeper, trust, clock, StopPace(settings.tick_s))
        self.janitor = Janitor(
            self.transactions, self.relay, keep_s=settings.retention_s, inbox_s=settings.inbox_s,
            interval_s=settings.janitor_interval_s,
        )  # fmt: skip
        answers = api.Answers(self.transactions, self.sites, verifier, authorising, self.namespace_of)
        self.app = api.build(answers, door)

    async def lead(self) -> None:
        """The leader's loops, while this copy leads."""
        loops = (self.placer, self.performer, self.sweeper, self.stopper, self.leftovers)
        await self.leader.lead([loop.run for loop in loops])

    def namespace_of(self, vo: str) -> str:
        """The Nomad namespace of a VO's jobs."""
        return namespaces.namespace_of(vo, self._namespaces)


def _rules(settings: SchedulerSettings) -> Rules:
    limits = retry.Limits(settings.retry_first_s, settings.retry_most_s, settings.most_attempts)
    return Rules(limits, settings.tried_before_s, settings.outcome_s)


def _graces(settings: SchedulerSettings) -> Graces:
    return Graces(settings.node_grace_s, settings.cancel_grace_s, settings.register_limit_s, settings.wait_limit_s)


def _pace(settings: SchedulerSettings) -> Pace:
    return Pace(
        tick_s=settings.tick_s, recheck_s=settings.recheck_s, tell_after_s=settings.tell_after_s,
        retell_after_s=settings.retell_after_s, batch=settings.batch, auth_pause_s=settings.auth_pause_s,
        held_s=settings.decision_cache_s,
    )  # fmt: skip


def _call_pace(settings: SchedulerSettings) -> CallPace:
    return CallPace(
        per_cluster=settings.calls_per_cluster, first_s=settings.call_first_s, most_s=settings.call_most_s,
        poll_s=settings.stop_poll_s, register_s=settings.register_limit_s, tick_s=settings.tick_s,
    )  # fmt: skip


async def _store_answers(store: Store) -> None:
    await store.read(queue_store.read_cordons)


async def _service_answers(service: Questions) -> None:
    await service.ask("GET", "/healthz", Answer)
