"""A monitor at work over a cluster in memory, a database in a file and a bus that only listens."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import SecretStr
from sqlalchemy import Connection
from starlette.requests import Request

from services.monitor import wiring
from services.monitor.settings import MonitorSettings
from shared.adapters.memory_registry import MemoryRegistry
from shared.contracts import codec
from shared.contracts.commands import Principal
from shared.contracts.envelope import Message
from shared.contracts.events import AttemptEvent, Event
from shared.contracts.questions import StraysAnswer, StraysRequest
from shared.contracts.routes import EVENTS_EXCHANGE
from shared.ids import AttemptId
from shared.ports import MessageBus, Store
from shared.runtime.in_process import InProcessTransport
from shared.runtime.questions import Questions
from shared.runtime.service import Service, supervise
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantInvalid, ReadGrant
from shared.site import Site
from tests.builders import ALICE, NOON, VO, TestClock, a_site
from tests.doubles.answering import answering
from tests.stores import open_store
from tests.unit.monitor.cluster import Cluster

TOKEN = "service-token"
DEADLINE_S = 30.0
E = TypeVar("E", bound=Event)


class Ear:
    """A bus that keeps what was published."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._more = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> None:
        self.messages += messages
        self._more.set()

    async def ready(self) -> None:
        return None

    def events(self) -> list[Event]:
        told = (message for message in self.messages if message.exchange == EVENTS_EXCHANGE)
        return [cast(Event, codec.decode(message).content) for message in told]

    async def until(self, enough: Callable[[list[Event]], Any]) -> Any:
        """What `enough` finds in all events so far, as soon as it finds something."""
        async with asyncio.timeout(DEADLINE_S):
            while not (found := enough(self.events())):
                self._more.clear()
                await self._more.wait()
        return found

    async def hears(self, kind: type[E], **fields: Any) -> E:
        """The first event of this kind with these fields."""

        def find(events: list[Event]) -> E | None:
            for event in events:
                if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                    return event
            return None

        return cast(E, await self.until(find))


class Grants:
    """Stands in for the verifier of read grants: a grant is a word."""

    def __init__(self, known: Mapping[str, ReadGrant]) -> None:
        self._known = known

    async def verify_read(self, grant: str) -> ReadGrant:
        if grant not in self._known:
            raise GrantInvalid("not auth's")
        return self._known[grant]


def a_grant(verbs: Iterable[str] = ("job.logs_own",), vo: str = VO, principal: Principal = ALICE) -> ReadGrant:
    return ReadGrant(principal, {vo: frozenset(verbs)}, frozenset(), NOON + timedelta(seconds=60))


@dataclass
class World:
    """Everything around one monitor."""

    folder: Path
    cluster: Cluster = field(default_factory=Cluster)
    ear: Ear = field(default_factory=Ear)
    clock: TestClock = field(default_factory=TestClock)
    sites: tuple[Site, ...] = (a_site(),)
    strays: set[str] = field(default_factory=set)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, ReadGrant] = field(default_factory=lambda: {"good": a_grant()})

    @asynccontextmanager
    async def monitor(self, beside: "Running | None" = None, **settings: Any) -> AsyncIterator["Running"]:
        """A running monitor; what it knows survives in the folder. `beside` = a second copy on that one's database."""
        opened = None if beside else await self._open()
        store = beside.store if beside else cast(Store, opened)
        service = await wiring.assemble(
            self._settings(settings), store=store, bus=cast(MessageBus, self.ear), watches={"prague": self.cluster},
            sites=MemoryRegistry(self.sites), scheduler=self._scheduler(), verifier=Grants(self.grants),
            clock=self.clock, tracer=Tracer("monitor", None, self.clock), rng=random.Random(1),
        )  # fmt: skip
        tasks = [asyncio.create_task(supervise(name, task), name=name) for name, task in service.tasks.items()]
        running = Running(
            service, store, Questions("http://monitor", "monitor", TOKEN, transport=InProcessTransport(service.app))
        )
        try:
            yield running
            failed = [task for task in tasks if task.done()]
            assert not failed, failed[0].exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await running.ask.close()
            if opened is not None:
                await opened.close()

    async def _open(self) -> Store:
        return await open_store(self.folder / "monitor.sqlite", "services.monitor.migrations", synchronous="OFF")

    def timeline(self, attempt: AttemptId) -> list[str]:
        """The statuses told of an attempt, once each by sequence, which must have no holes."""
        told = {e.sequence: e for e in self.ear.events() if isinstance(e, AttemptEvent) and e.job_id == attempt.job_id
                and e.attempt == attempt.number}  # fmt: skip
        assert sorted(told) == list(range(1, len(told) + 1))
        return [told[number].status.value for number in sorted(told)]

    def _settings(self, settings: dict[str, Any]) -> MonitorSettings:
        quick = {
            "service_token": SecretStr(TOKEN), "instance": "test", "relist_interval_s": 60.0, "first_line_s": 0.05,
            "probe_interval_s": 0.02, "probe_timeout_s": 1.0, "settle_s": 2.0, "checkpoint_interval_s": 0.05,
            "quiet_s": 0.0,
        }  # fmt: skip
        return MonitorSettings(**(quick | self.settings | settings))

    def _scheduler(self) -> Questions:
        async def strays(request: Request) -> StraysAnswer:
            asked = StraysRequest.model_validate_json(await request.body())
            self.asked.append(asked.attempts)
            return StraysAnswer(strays=tuple(id for id in asked.attempts if id in self.strays))

        app = answering(("POST", "/internal/attempts:strays", strays))
        return Questions("http://scheduler", "scheduler", TOKEN, transport=InProcessTransport(app))


@dataclass
class Running:
    service: Service
    store: Store
    ask: Questions

    async def until(self, holds: Callable[[Connection], bool]) -> None:
        """Return once the store shows it; another process may have written it, so nobody could wake us."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self.store.read(holds):
                await asyncio.sleep(0)
