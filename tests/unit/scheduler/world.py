"""A whole scheduler with a real store and bus; doubles of its sites, of auth and of the monitor. Time stands still."""

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx2 as httpx
import orjson
from joserfc import jws
from joserfc.jwk import OKPKey
from pydantic import SecretStr
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import JSONResponse

from services.scheduler import store as statements
from services.scheduler import tables, wiring
from services.scheduler.records import Job
from services.scheduler.settings import SchedulerSettings
from shared import ids
from shared.adapters.embedded_bus import EmbeddedBus
from shared.adapters.memory_registry import MemoryRegistry
from shared.contracts import codec
from shared.contracts.commands import CancelJob, Command, CordonSite, Principal, SubmitJob, UncordonSite
from shared.contracts.envelope import Message
from shared.contracts.events import (
    AttemptDisconnected,
    AttemptEvent,
    AttemptFailed,
    AttemptLost,
    AttemptPending,
    AttemptRunning,
    AttemptStarting,
    AttemptStopped,
    AttemptSucceeded,
    Event,
    JobEvent,
    SiteEvent,
    SiteObserved,
)
from shared.contracts.questions import Decision, DecisionRequest, SecretsAnswer, SecretsRequest
from shared.contracts.routes import EVENT_LOG, SCHEDULER_COMMANDS, SCHEDULER_REPORTS
from shared.contracts.suspensions import Stops, Suspension, TrustState
from shared.errors import Unavailable
from shared.ids import AttemptId
from shared.job import AttemptStatus, FailureClass, JobState
from shared.ports import Store
from shared.runtime import tokens
from shared.runtime.in_process import InProcessTransport
from shared.runtime.questions import Questions
from shared.runtime.service import Service, close, supervise
from shared.runtime.telemetry import Tracer
from shared.runtime.tokens import GrantVerifier
from shared.site import Site, SiteCapacity
from tests.builders import NOON, TestClock, a_capacity
from tests.doubles.answering import answering
from tests.doubles.engine import EngineDouble
from tests.stores import open_store

T = TypeVar("T")
DEADLINE_S = 30.0
SERVICE_TOKEN = "between-services"
KEY = OKPKey.generate_key("Ed25519", {"kid": "k1"}, private=True)

_EVENTS: dict[AttemptStatus, type[AttemptEvent]] = {
    AttemptStatus.PENDING: AttemptPending,
    AttemptStatus.STARTING: AttemptStarting,
    AttemptStatus.RUNNING: AttemptRunning,
    AttemptStatus.DISCONNECTED: AttemptDisconnected,
    AttemptStatus.SUCCEEDED: AttemptSucceeded,
    AttemptStatus.FAILED: AttemptFailed,
    AttemptStatus.STOPPED: AttemptStopped,
    AttemptStatus.LOST: AttemptLost,
}


def grant_for(
    body: bytes, kind: type[Command], principal: Principal, vo: str | None, *, at: datetime = NOON, own: bool = True,
    **claims: Any,
) -> str:  # fmt: skip
    """A grant as auth signs it."""
    payload = {
        "iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "jti": "grant-1", "iat": at.timestamp(),
        "exp": (at + timedelta(minutes=15)).timestamp(), "verb": kind.verb, "vo": vo, "own": own,
        "sub_id": {"format": "iss_sub", "iss": principal.issuer, "sub": principal.subject}, "name": principal.name,
        "message_type": codec.type_of(kind), "content_type": codec.COMMAND_CONTENT_TYPE,
        "body_sha256": hashlib.sha256(body).hexdigest(), **claims,
    }  # fmt: skip
    return signed(payload, tokens.COMMAND_GRANT)


def read_grant(principal: Principal, memberships: Mapping[str, list[str]], at: datetime = NOON) -> str:
    """A read grant as auth signs it."""
    payload = {
        "iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "iat": at.timestamp(),
        "exp": (at + timedelta(hours=1)).timestamp(), "memberships": dict(memberships), "platform_verbs": [],
        "sub_id": {"format": "iss_sub", "iss": principal.issuer, "sub": principal.subject}, "name": principal.name,
    }  # fmt: skip
    return signed(payload, tokens.READ_GRANT)


def signed(payload: dict[str, Any], kind: str) -> str:
    header = {"alg": tokens.ALGORITHM, "kid": "k1", "typ": kind}
    return jws.serialize_compact(header, orjson.dumps(payload), KEY, algorithms=[tokens.ALGORITHM])


class AuthDouble:
    """Says yes unless told otherwise; counts what it is asked."""

    def __init__(self) -> None:
        self.away = False
        self.decide: Callable[[DecisionRequest], Decision] = lambda asked: Decision(allowed=True)
        self.asked: list[DecisionRequest] = []
        self.trust = TrustState(version=1)
        self.secrets: dict[str, bytes] = {}
        self.release_away = False
        self.gone_after: int | None = None
        """After so many releases the secrets are deleted."""
        self.released: list[SecretsRequest] = []
        self.app = answering(
            ("POST", "/internal/decisions", self.decisions), ("GET", "/internal/trust", self.trusted),
            ("POST", "/internal/secrets:release", self.release), ("GET", "/healthz", self.health),
        )  # fmt: skip

    async def health(self, request: Request) -> JSONResponse:
        return JSONResponse({})

    async def trusted(self, request: Request) -> TrustState:
        if self.away:
            raise Unavailable("auth is away")
        return self.trust

    def suspend(self, *suspensions: Suspension, stops: Stops = Stops()) -> None:  # noqa: B008
        """From now on exactly these suspensions hold."""
        self.trust = TrustState(version=self.trust.version + 1, suspensions=suspensions, stops=stops)

    async def decisions(self, request: Request) -> Decision:
        if self.away:
            raise Unavailable("auth is away")
        asked = DecisionRequest.model_validate_json(await request.body())
        self.asked.append(asked)
        return self.decide(asked)

    async def release(self, request: Request) -> SecretsAnswer:
        if self.release_away:
            raise Unavailable("auth is away")
        asked = SecretsRequest.model_validate_json(await request.body())
        self.released.append(asked)
        gone = self.gone_after is not None and len(self.released) > self.gone_after
        missing = [name for name in asked.names if gone or name not in self.secrets]
        if missing:
            return SecretsAnswer(code="secret_missing", message=f"the owner has no secret named {missing[0]!r}")
        return SecretsAnswer(values={name: base64.b64encode(self.secrets[name]).decode() for name in asked.names})


class World:
    """Tells the scheduler things and watches what it says."""

    def __init__(
        self, clock: TestClock, store: Store, bus: EmbeddedBus, registry: MemoryRegistry,
        engines: dict[str, EngineDouble], auth: AuthDouble, settings: SchedulerSettings,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.store = store
        self.bus = bus
        self.registry = registry
        self.engines = engines
        self.auth = auth
        self.settings = settings
        self.events: list[Event] = []
        self.sequences: dict[tuple[UUID, int], int] = {}
        self.occurrence = 0
        self.service: Service | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._starts = 0

    # -- running --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """A copy of the service comes up."""
        transport = InProcessTransport(self.auth.app)
        self._starts += 1  # another life draws other nonces

        async def keys() -> dict[str, Any]:
            return {"keys": [KEY.as_dict(private=False) | {"kid": "k1"}]}

        self.service = await wiring.assemble(
            self.settings, store=self.store, bus=self.bus, registry=self.registry, engines=self.engines,
            auth=Questions("http://auth", "auth", SERVICE_TOKEN, transport=transport),
            verifier=GrantVerifier(keys, self.clock), clock=self.clock, tracer=Tracer("scheduler", None, self.clock),
            rng=random.Random(self._starts),
        )  # fmt: skip
        self._tasks = [
            asyncio.create_task(supervise(f"scheduler.{name}", task), name=name)
            for name, task in self.service.tasks.items()
        ]

    async def stop(self) -> None:
        """It goes down; what it had is in the store and on the bus."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=DEADLINE_S)
        if self.service is not None:
            await close([self.service])

    async def listen(self) -> None:
        """Read the event log for ever."""
        async for _, message in self.bus.read(EVENT_LOG, after=None):
            content = codec.decode(message).content
            assert isinstance(content, Event)
            self.events.append(content)
            async with self._changed:
                self._changed.notify_all()

    # -- telling --------------------------------------------------------------------------------------------------

    async def submit(self, command: SubmitJob, **claims: Any) -> None:
        await self.command(command, command.owner, command.spec.vo, str(command.job_id), **claims)

    async def cancel(self, job_id: UUID, by: Principal, vo: str, **claims: Any) -> None:
        command = CancelJob(job_id=job_id, vo=vo, requested_by=by, requested_at=self.clock())
        await self.command(command, by, vo, str(job_id), **claims)

    async def cordon(self, site: str, by: Principal) -> None:
        await self.command(
            CordonSite(site=site, reason="repairs", requested_by=by, requested_at=self.clock()), by, None, site
        )

    async def uncordon(self, site: str, by: Principal) -> None:
        await self.command(UncordonSite(site=site, requested_by=by, requested_at=self.clock()), by, None, site)

    async def command(self, command: Command, by: Principal, vo: str | None, subject: str, **claims: Any) -> None:
        await self.bus.publish([self.message(command, by, vo, subject, **claims)])

    def message(self, command: Command, by: Principal, vo: str | None, subject: str, **claims: Any) -> Message:
        kind, body = type(command), codec.command_body(command)
        at = claims.pop("at", self.clock())
        return codec.command_message(
            kind, body, id=str(ids.command_id(kind.kind, subject, repr(claims) + str(self.clock()))),
            source="gateway", time=self.clock(), subject=subject,
            grant=grant_for(body, kind, by, vo, at=at, **claims),
        )  # fmt: skip

    async def attempt(
        self, job: SubmitJob, status: AttemptStatus, *, number: int = 1, site: str = "prague", **fields: Any
    ) -> None:
        """The monitor tells the next thing about an attempt."""
        key = (job.job_id, number)
        self.sequences[key] = self.sequences.get(key, 0) + 1
        event = _EVENTS[status](
            job_id=job.job_id, attempt=number, vo=job.spec.vo, site=site, sequence=self.sequences[key], **fields
        )
        await self.report(event)

    async def fails(self, job: SubmitJob, failure: FailureClass, *, number: int = 1, exit_code: int = 3) -> None:
        await self.attempt(job, AttemptStatus.FAILED, number=number, failure=failure, exit_code=exit_code)

    async def observed(self, site: str, capacity: SiteCapacity | None = None) -> None:
        await self.tell_site(SiteObserved, site, capacity=capacity or a_capacity())

    async def tell_site(self, kind: type[SiteEvent], site: str, **fields: Any) -> None:
        self.occurrence += 1
        await self.report(kind(site=site, occurrence=self.occurrence, **fields))

    async def report(self, event: Event) -> None:
        await self.bus.publish(codec.event_messages(event, source="monitor", time=self.clock()))

    # -- watching -------------------------------------------------------------------------------------------------

    def told(self, job_id: UUID) -> list[JobEvent]:
        """The job's own events in the order of the log, each once."""
        found = {e.sequence: e for e in self.events if isinstance(e, JobEvent) and e.job_id == job_id}
        return [found[sequence] for sequence in sorted(found)]

    def states(self, job_id: UUID) -> list[str]:
        return [event.state.value for event in self.told(job_id)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the events seen so far make `condition` true."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_state(self, job_id: UUID, *states: JobState, times: int = 1) -> JobEvent:
        """The job's newest event, once it has been told `times` times that it is in one of these states."""
        await self.until(lambda: sum(event.state in states for event in self.told(job_id)) >= times)
        return [event for event in self.told(job_id) if event.state in states][-1]

    async def until_kept(self, condition: Callable[[Any], bool]) -> None:
        """Return when the store, read by `condition(connection)`, is as it should be."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self.store.read(condition):
                await asyncio.sleep(0)

    async def until_tried(self, job_id: UUID, times: int) -> None:
        """Return when a call for the job has been made and noted this often."""
        query = select(tables.owed.c.tries).where(tables.owed.c.job_id == str(job_id))

        def tried(connection: Connection) -> bool:
            made = connection.execute(query).scalar()
            return made is not None and made >= times

        await self.until_kept(tried)

    async def job(self, job_id: UUID) -> Job:
        found = await self.store.read(lambda connection: statements.load(connection, job_id))
        assert found is not None
        return found

    async def owed(self) -> list[tuple[str, int, str]]:
        query = select(tables.owed.c.job_id, tables.owed.c.number, tables.owed.c.call)
        return await self.store.read(lambda connection: [tuple(row) for row in connection.execute(query)])

    async def settled(self) -> None:
        """Return when every message published so far has been handled."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.bus.depth(SCHEDULER_COMMANDS) or await self.bus.depth(SCHEDULER_REPORTS):
                await asyncio.sleep(0)

    def ask(self) -> httpx.AsyncClient:
        """A client of the scheduler's own questions."""
        assert self.service is not None
        return httpx.AsyncClient(
            transport=InProcessTransport(self.service.app), base_url="http://scheduler",
            headers={"Authorization": f"Bearer {SERVICE_TOKEN}"},
        )  # fmt: skip


@asynccontextmanager
async def a_world(
    folder: Path, *sites: Site, capacities: Mapping[str, SiteCapacity] | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A scheduler that runs, with sites that have been observed once."""
    clock = TestClock()
    store = await open_store(folder / "scheduler.sqlite", wiring.MIGRATIONS, synchronous="OFF")
    bus = await EmbeddedBus.open(folder / "bus.sqlite")
    engines = {site.cluster: EngineDouble() for site in sites}
    fast: dict[str, Any] = {
        "tick_s": 0.02, "recheck_s": 0.0, "call_first_s": 0.01, "call_most_s": 0.02, "stop_poll_s": 0.01,
        "outcome_s": 0, "retry_first_s": 0, "tell_after_s": 0, "auth_pause_s": 0.05, "decision_cache_s": 0,
    }  # fmt: skip
    world = World(
        clock, store, bus, MemoryRegistry(sites), engines, AuthDouble(),
        SchedulerSettings(service_token=SecretStr(SERVICE_TOKEN), **(fast | settings)),
    )  # fmt: skip
    listening = asyncio.create_task(world.listen(), name="listening")
    try:
        await world.start()
        for site in sites:
            await world.observed(site.name, (capacities or {}).get(site.name))
        await world.settled()
        yield world
    finally:
        await world.stop()
        listening.cancel()
        await asyncio.wait([listening])
        await bus.close()
        await store.close()


def first(job: SubmitJob) -> AttemptId:
    return AttemptId(job.job_id, 1)


__all__ = ["World", "a_world", "first"]
