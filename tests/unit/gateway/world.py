"""A whole gateway with a real SQLite store, and doubles of everybody it talks to: auth, scheduler, monitor, bus."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx2 as httpx
import orjson
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from services.gateway import event_log, wiring
from services.gateway.settings import GatewaySettings, Issuer
from shared.contracts import codec
from shared.contracts.commands import Principal
from shared.contracts.envelope import Message
from shared.contracts.events import AttemptEvent, Event, JobEvent, JobQueued
from shared.contracts.questions import (
    Context,
    EventsAnswer,
    Explanation,
    GrantAnswer,
    GrantRequest,
    GrantsAnswer,
    Membership,
    OutputItem,
    OutputsAnswer,
    Remembered,
    RememberedAnswer,
    RememberedRequest,
    SitesAnswer,
    SiteStatus,
    SpeakAnswer,
    SpeakRequest,
)
from shared.contracts.routes import EVENTS_EXCHANGE, Stream
from shared.errors import NotFound, Refused, Unavailable
from shared.ports import Store
from shared.runtime.in_process import InProcessTransport
from shared.runtime.questions import Questions
from shared.runtime.service import Service, supervise
from shared.runtime.telemetry import Tracer
from tests.builders import ALICE, BOB, NOON, VO, TestClock
from tests.doubles.answering import answering
from tests.doubles.subscriber_broker import MemorySubscribers
from tests.stores import open_store

OTHER_VO = "vo.ocean.example"
CAROL = Principal(issuer=ALICE.issuer, subject="carol", name="Carol")
OSCAR = Principal(issuer=ALICE.issuer, subject="oscar", name="Oscar")
MEMBER = frozenset({"site.view", "job.submit", "job.view_own", "job.cancel_own", "job.logs_own"})
OBSERVER = frozenset({"site.view", "job.view_own", "job.view_vo"})
MANAGER = MEMBER | {"job.view_vo", "job.cancel_vo", "job.logs_vo"}
DEADLINE_S = 30.0
MIGRATIONS = "services.gateway.migrations"

JOB = {"name": "count", "vo": VO, "command": ["true"]}


def a_file(**fields: Any) -> dict[str, Any]:
    return JOB | fields


def context(principal: Principal, *, verbs: frozenset[str] = MEMBER, vo: str = VO, **fields: Any) -> Context:
    memberships = (Membership(vo=vo, role="member", verbs=verbs),)
    defaults = {"expires_at": NOON + timedelta(hours=1), "read_grant": f"read-{principal.subject}"}
    return Context(principal=principal, memberships=memberships, **(defaults | fields))


class AuthDouble:
    """Knows tokens by heart; grants what is not in `refuse`; counts its questions."""

    def __init__(self) -> None:
        self.contexts = {
            "alice": context(ALICE), "bob": context(BOB), "carol": context(CAROL, verbs=MANAGER),
            "stranger": context(BOB, vo=OTHER_VO),
            "oscar": context(OSCAR, verbs=frozenset(), platform_verbs=frozenset({"site.cordon"})),
        }  # fmt: skip
        self.away = False
        self.refusals: dict[str, str] = {}
        self.refuse: Callable[[int], bool] = lambda index: False
        self.context_questions = 0
        self.remembered_questions: list[int] = []
        self.grant_questions: list[int] = []
        self.hold: asyncio.Event | None = None
        self.hold_remembered: asyncio.Event | None = None
        self.app = answering(
            ("POST", "/internal/context", self.context), ("POST", "/internal/grants", self.grants),
            ("POST", "/internal/remembered", self.remembered), ("GET", "/healthz", self.health),
        )  # fmt: skip

    async def health(self, request: Request) -> JSONResponse:
        self._present()
        return JSONResponse({})

    async def context(self, request: Request) -> Context:
        self._present()
        self.context_questions += 1
        token = (await request.json())["token"]
        if token not in self.contexts:
            code = "token_expired" if token == "expired" else "unauthenticated"
            raise Refused("the token is not one that is accepted here", code=code)
        return self.contexts[token]

    async def remembered(self, request: Request) -> RememberedAnswer:
        """As `contexts` have them now; `refusals` are by subject, client or token id."""
        self._present()
        asked = RememberedRequest.model_validate_json(await request.body())
        self.remembered_questions.append(len(asked.bearers))
        if self.hold_remembered is not None:
            await self.hold_remembered.wait()
        answers = []
        for bearer in asked.bearers:
            words = (bearer.principal.subject, bearer.client, bearer.token_id)
            refusal = next((self.refusals[word] for word in words if word in self.refusals), "")
            found = next((each for each in self.contexts.values() if _same(each.principal, bearer.principal)), None)
            held = () if found is None or refusal else found.memberships
            verbs = frozenset() if found is None or refusal else found.platform_verbs
            answers.append(Remembered(memberships=held, platform_verbs=verbs, refusal=refusal))
        return RememberedAnswer(answers=tuple(answers))

    async def grants(self, request: Request) -> GrantsAnswer:
        self._present()
        asked = GrantRequest.model_validate_json(await request.body())
        self.grant_questions.append(len(asked.items))
        if self.hold is not None:
            await self.hold.wait()
        return GrantsAnswer(
            answers=tuple(
                GrantAnswer(refusal="your role may not do this", refusal_code="role_insufficient")
                if self.refuse(index)
                else GrantAnswer(grant=f"grant:{item.verb}:{item.vo}:{item.body_sha256}:{item.own}")
                for index, item in enumerate(asked.items)
            )
        )

    def _present(self) -> None:
        if self.away:
            raise Unavailable("auth is away")


def _same(one: Principal, other: Principal) -> bool:
    return (one.issuer, one.subject) == (other.issuer, other.subject)


@dataclass
class OwnersDouble:
    """Scheduler and monitor in one: events of a series, explanations, sites, logs, outputs."""

    series: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    log_lines: list[bytes] = field(default_factory=list)
    log_known: bool = True
    log_end: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    living: set[str] = field(default_factory=set)
    """Attempts whose own tokens are heard."""

    def app(self) -> Starlette:
        return answering(
            ("GET", "/internal/jobs/{job_id}/events", self.events),
            ("GET", "/internal/jobs/{job_id}/explain", self.explain_job),
            ("POST", "/internal/explain", self.explain),
            ("GET", "/internal/sites", self.sites),
            ("POST", "/internal/attempts:speak", self.speak),
            ("GET", "/internal/jobs/{job_id}/logs", self.logs),
            ("GET", "/internal/jobs/{job_id}/outputs", self.outputs),
            ("GET", "/internal/jobs/{job_id}/outputs/{name}", self.output),
        )

    async def events(self, request: Request) -> EventsAnswer:
        job_id, asked = request.path_params["job_id"], request.query_params
        after, attempt = int(asked["after"]), int(asked["attempt"])
        self.asked.append(f"{job_id}/{attempt}>{after}")
        events = [orjson.loads(body) for body in self.series.get((job_id, attempt), [])]
        return EventsAnswer(events=tuple(event for event in events if int(event["sequence"]) > after))

    async def speak(self, request: Request) -> SpeakAnswer:
        asked = SpeakRequest.model_validate_json(await request.body())
        speaks = asked.workload.job in self.living
        return SpeakAnswer(attempt=1, vo=VO) if speaks else SpeakAnswer(why="the attempt is over")

    async def explain_job(self, request: Request) -> Explanation:
        raise NotFound("not here yet")

    async def explain(self, request: Request) -> Explanation:
        self.asked.append(request.headers["serai-read-grant"])
        return Explanation(state="accepted", summary="would go to prague")

    async def sites(self, request: Request) -> SitesAnswer:
        site = SiteStatus(name="prague", country="CZ", vos=(VO,), cluster="prague", health="passing", reachable=True)
        return SitesAnswer(sites=(site,))

    async def logs(self, request: Request) -> StreamingResponse:
        asked = request.query_params

        async def lines() -> AsyncIterator[bytes]:
            yield b"".join(self.log_lines)[int(asked.get("offset", 0)) :]
            if asked["follow"] == "true":
                await self.log_end.wait()
                yield b"the end\n"

        if asked["attempt"] != "1" or not self.log_known:
            raise NotFound("no logs of that attempt")
        return StreamingResponse(lines(), media_type="text/plain")

    async def outputs(self, request: Request) -> OutputsAnswer:
        return OutputsAnswer(outputs=(OutputItem(name="result.txt", size=3, attempt=1),))

    async def output(self, request: Request) -> StreamingResponse:
        if request.path_params["name"] != "result.txt":
            raise NotFound("no such output")

        async def content() -> AsyncIterator[bytes]:
            yield b"42\n"

        return StreamingResponse(content())


class BusDouble:
    """Keeps what is published; its stream yields the events in order, from offset 1."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.stream: list[tuple[int, Message]] = []
        self._grown = asyncio.Condition()
        self.away = False

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            raise Unavailable("the bus is away")
        async with self._grown:
            self.published += messages
            for message in messages:
                if message.exchange == EVENTS_EXCHANGE:
                    self.stream.append((len(self.stream) + 1, message))
            self._grown.notify_all()

    async def commands(self, count: int) -> list[Message]:
        """The first `count` published messages, once they are there."""
        async with asyncio.timeout(DEADLINE_S), self._grown:
            await self._grown.wait_for(lambda: len(self.published) >= count)
        return self.published[:count]

    async def read(self, stream: Stream, *, after: int | None) -> AsyncIterator[tuple[int, Message]]:
        position = after or 0
        while True:
            async with self._grown:
                await self._grown.wait_for(lambda: len(self.stream) > position)  # noqa: B023
            for offset, message in self.stream[position:]:
                position = offset
                yield offset, message

    async def ready(self) -> None:
        if self.away:
            raise Unavailable("the bus is away")


@dataclass
class World:
    """The gateway under test and all around it."""

    service: Service
    http: httpx.AsyncClient
    auth: AuthDouble
    owners: OwnersDouble
    bus: BusDouble
    clock: TestClock
    store: Store
    subscribers: MemorySubscribers
    open: list[Any] = field(default_factory=list)

    def as_(self, token: str, **headers: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}", **headers}

    async def submit(self, token: str = "alice", **fields: Any) -> str:
        """Hand in a job; its id."""
        answer = await self.http.post("/v1/jobs", json=a_file(**fields), headers=self.as_(token))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def job(self, job_id: str, token: str = "alice") -> dict[str, Any]:
        answer = await self.http.get(f"/v1/jobs/{job_id}", headers=self.as_(token))
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def tell(self, *events: Event, at: datetime | None = None) -> None:
        """Publish events as their owners would, and wait until the gateway has taken them in."""
        for event in events:
            messages = codec.event_messages(event, source="test", time=at or self.clock.now)
            await self.bus.publish([message for message in messages if message.exchange == EVENTS_EXCHANGE])
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until the stored offset has reached the end of the stream."""
        end = len(self.bus.stream) or None

        async def reached() -> bool:
            return (await self.store.read(event_log.state)).stream_offset == end

        await self.until(reached)

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait for something that other tasks bring about."""
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():
                await self.store.transact(lambda connection: None)

    @asynccontextmanager
    async def stream(self, path: str, token: str = "alice", **headers: str) -> AsyncIterator["Frames"]:
        async with self.http.stream("GET", path, headers=self.as_(token, **headers)) as answer:
            assert answer.status_code == 200, (await answer.aread()).decode()
            yield Frames(answer.aiter_raw())


@dataclass
class Frame:
    """One event of an event stream; a comment has only `comment`."""

    event: str = ""
    data: Any = None
    id: str = ""
    comment: str = ""


class Frames:
    """Reads an event stream frame by frame."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    async def next(self, *, comments: bool = False) -> Frame:
        """The next frame but `retry:`, and but heartbeats unless wanted; StopAsyncIteration at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                while b"\n\n" not in self._rest:
                    self._rest += await anext(self._chunks)
                text, _, self._rest = self._rest.partition(b"\n\n")
                frame = _frame(text.decode())
                if frame is not None and (comments or not frame.comment):
                    return frame

    async def ended(self) -> bool:
        """Whether nothing more comes and the stream is closed."""
        async with asyncio.timeout(DEADLINE_S):
            async for chunk in self._chunks:
                self._rest += chunk
        return not [text for text in self._rest.split(b"\n\n") if text and not text.startswith(b"retry")]


def _frame(text: str) -> Frame | None:
    frame = Frame()
    for line in text.split("\n"):
        name, _, value = line.partition(": ")
        match name:
            case "event":
                frame.event = value
            case "data":
                frame.data = orjson.loads(value)
            case "id":
                frame.id = value
            case "":
                frame.comment = value
    return None if text.startswith("retry") else frame


@asynccontextmanager
async def a_world(folder: Path, **settings: Any) -> AsyncIterator[World]:
    """A running gateway in a folder; leave and enter again for a restart."""
    auth, owners, bus, clock = AuthDouble(), OwnersDouble(), BusDouble(), TestClock()
    async with restarted(folder, auth, owners, bus, clock, subscribers=MemorySubscribers(), **settings) as world:
        yield world


@asynccontextmanager
async def restarted(
    folder: Path,
    auth: AuthDouble,
    owners: OwnersDouble,
    bus: BusDouble,
    clock: TestClock,
    *,
    shared_store: Store | None = None,
    subscribers: MemorySubscribers | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """The gateway over what is in the folder; with `shared_store`, a further copy beside one that runs."""
    own_store = await open_store(folder / "gateway.sqlite", migrations=MIGRATIONS) if shared_store is None else None
    store = own_store or cast(Store, shared_store)
    apps = {"auth": auth.app, "scheduler": owners.app(), "monitor": owners.app()}
    questions = {
        name: Questions(f"http://{name}", name, "service-token", transport=InProcessTransport(app))
        for name, app in apps.items()
    }
    service = await wiring.assemble(
        GatewaySettings(service_token=SecretStr("service-token"), **settings), store=store, bus=bus, clock=clock,
        tracer=Tracer("gateway", None, clock), spans=lambda trace_id: [{"trace_id": trace_id}],
        issuers=(Issuer(issuer=ALICE.issuer),), subscribers=subscribers,
        **questions,
    )  # fmt: skip
    http = httpx.AsyncClient(transport=InProcessTransport(service.app), base_url="http://gateway")
    tasks = [asyncio.create_task(supervise(name, task)) for name, task in service.tasks.items()]
    try:
        yield World(service, http, auth, owners, bus, clock, store, subscribers or MemorySubscribers())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await http.aclose()
        for closer in service.closers:
            await closer()
        if own_store is not None:
            await own_store.close()


# -- events -------------------------------------------------------------------------------------------------------


def job_event(kind: type[JobEvent], job_id: str, sequence: int, *, owner: Principal = ALICE, **fields: Any) -> JobEvent:
    return kind(job_id=UUID(job_id), vo=VO, owner=owner, name="count", sequence=sequence, **fields)


def attempt_event(
    kind: type[AttemptEvent], job_id: str, sequence: int, attempt: int = 1, **fields: Any
) -> AttemptEvent:
    return kind(job_id=UUID(job_id), attempt=attempt, vo=VO, site="prague", sequence=sequence, **fields)


def queued(job_id: str, sequence: int = 1, **fields: Any) -> JobEvent:
    return job_event(JobQueued, job_id, sequence, **fields)


def structured(event: Event) -> bytes:
    """The event as its owner keeps it."""
    return codec.event_messages(event, source="test", time=NOON)[0].body


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
