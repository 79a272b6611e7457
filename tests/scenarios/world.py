"""A whole embedded platform in this process, met as its users meet it: over HTTP, with tokens, through the SDK.

Times are shortened by settings only. Faults are injected at the sites' agents, or put between a service and one of
its ports; nothing is patched, and every wait is for a condition, with a deadline.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2

from serai.client import Serai
from serai.errors import WaitTimedOut
from serai.values import Event, Job
from services.embedded.agent import EmbeddedAgent
from services.embedded.agents import Agent
from services.embedded.folder import FIRST_AGENT_PORT, is_free, open_folder
from services.embedded.platform import Around, Platform, as_it_is, platform
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import BIO, CLIMATE
from tests import free_ports, pacing

DEADLINE_S = 60.0
"""Longest wait for anything: far beyond what it takes, so that only a fault of ours or a stuck machine meets it."""
GATEWAYS, AGENTS = range(9_000, 13_000), range(FIRST_AGENT_PORT + 104, 16_950)
ENDED = frozenset({"succeeded", "failed", "cancelled", "rejected"})

QUICK: Mapping[str, Mapping[str, Any]] = {
    "scheduler": {
        "tick_s": 0.1, "tell_after_s": 0.1, "retell_after_s": 0.2, "recheck_s": 0.02, "call_first_s": 0.05,
        "call_most_s": 0.4, "stop_poll_s": 0.1, "retry_first_s": 0.05, "outcome_s": 2.0, "auth_pause_s": 0.1,
        "decision_cache_s": 1.0,
    },
    "monitor": {
        "relist_interval_s": 0.5, "first_line_s": 0.3, "probe_interval_s": 0.1, "unreachable_after": 2,
        "observe_interval_s": 1.0,
    },
    "gateway": {"heartbeat_s": 0.5},
}  # fmt: skip
"""What is told to every service, so that what takes minutes elsewhere takes tenths of a second here."""

T = TypeVar("T")
Overrides = Mapping[str, Mapping[str, Any]]
Steps = list[str]


def a_site(name: str, **fields: Any) -> dict[str, Any]:
    """A site of two cores that serves both VOs."""
    return {"name": name, "country": "CZ", "vos": [CLIMATE, BIO], "cores": 2, "memory_mib": 2048} | fields


def a_job(**fields: Any) -> dict[str, Any]:
    """A small job file of the climate VO."""
    small = {"cpu": 0.1, "memory": 32, "disk": 10}
    return {"name": "count", "vo": CLIMATE, "command": ["true"], "resources": small} | fields


def work(run_for: str = "0s", *, at: Sequence[str] = (), exit_code: int = 0, **fields: Any) -> dict[str, Any]:
    """A job whose work only takes time, at one of the sites named, the first one if possible: for platforms that are
    `mock`.
    """
    metadata = {"serai.mock": f"run_for={run_for},exit_code={exit_code}"}
    return a_job(metadata=metadata, placement={"sites": {"allow": list(at), "prefer": list(at)}}, **fields)


def shell(script: str, **fields: Any) -> dict[str, Any]:
    """A job that runs a shell script as a real process."""
    return a_job(command=["/bin/sh", "-c", script], **fields)


# -- people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """One demo user, signed in. `http` is for what the SDK hides (headers, problems)."""

    name: str
    serai: Serai
    http: httpx2.AsyncClient

    async def submit(self, job: Mapping[str, Any]) -> str:
        """Hand in a job; its id."""
        return (await self.serai.submit(job)).id

    async def job(self, job_id: str) -> Job:
        return await self.serai.job(job_id)

    async def sees(self, job_id: str, *states: str) -> Job:
        """The job once it is in one of these states. Fails when it ends otherwise, or does not get there in time."""
        try:
            job = await self.serai.until(job_id, lambda job: job.state in states, timeout_s=DEADLINE_S)
        except WaitTimedOut:
            job = await self.job(job_id)
        if job.state not in states:
            story = f"{await self.story(job_id)}\n{(await self.why(job_id))['summary']}"
            raise AssertionError(f"{job.state} instead of {states}: {job.reason}\n{story}") from None
        return job

    async def runs(self, job: Mapping[str, Any]) -> Job:
        """Hand in a job; the job once it runs."""
        return await self.sees(await self.submit(job), "running")

    async def timeline(self, job_id: str) -> list[Event]:
        """All that is told of a job. Each series must count from 1 without holes, and tell no fact twice."""
        events = await self.serai.timeline(job_id)
        check_whole(events)
        return events

    async def steps(self, job_id: str) -> Steps:
        """The job's own steps, `running 1 prague`."""
        return [_step(event) for event in await self.timeline(job_id) if event.kind.startswith("job.")]

    async def attempt(self, job_id: str, number: int) -> Steps:
        """What was told of one attempt, `running`."""
        events = await self.timeline(job_id)
        return [
            e.kind.removeprefix("attempt.") for e in events if e.kind.startswith("attempt.") and e.attempt == number
        ]

    async def since_running(self, job_id: str, number: int = 1) -> Steps:
        """What was told of one attempt from its first `running` on; a quick site may skip what is before."""
        steps = await self.attempt(job_id, number)
        return steps[steps.index("running") :]

    async def reasons(self, job_id: str) -> list[str]:
        """The reason codes that the job's own events gave."""
        found = (_code(event) for event in await self.timeline(job_id) if event.kind.startswith("job."))
        return [code for code in found if code]

    async def words(self, job_id: str) -> str:
        """Everything that the timeline says in words."""
        return "\n".join(event.reason for event in await self.timeline(job_id) if event.reason)

    async def story(self, job_id: str) -> str:
        """The timeline as one text, for messages of failed tests."""
        events = await self.serai.timeline(job_id)
        return "\n".join(f"{e.kind} attempt={e.attempt} sequence={e.sequence} {e.site} {e.reason}" for e in events)

    async def why(self, job_id: str) -> dict[str, Any]:
        """What explain answers."""
        return await self.serai.explain(job_id)

    async def verdicts(self, job_id: str) -> dict[str, str]:
        """Each site's verdict on a queued job, by site."""
        return {each["site"]: each["code"] for each in (await self.why(job_id)).get("verdicts") or ()}

    async def hears(self, job_id: str, after: str | None = None) -> list[Event]:
        """All that a job's event stream tells up to its end, without gaps."""
        found: list[Event] = []
        facts = self.serai.events(job_id=job_id, after=after)
        async with asyncio.timeout(DEADLINE_S), aclosing(facts) as told:  # type: ignore[type-var]
            async for fact in told:
                assert isinstance(fact, Event), fact
                found.append(fact)
        return found

    async def mark(self) -> str:
        """Where the event log is now: who listens `after` it misses nothing of what follows."""
        return (await self.hears(await self.submit(a_job())))[-1].position

    async def site(self, name: str) -> dict[str, Any]:
        """A site as `GET /v1/sites` shows it."""
        return next(site for site in await self.serai.sites() if site["name"] == name)


def check_whole(events: Sequence[Event]) -> None:
    """Sequence numbers of every series without holes, in order; every fact once; no state of a job told twice in a row
    with the same words."""
    series: dict[int, list[int]] = {}
    for event in events:
        if event.kind != "job.accepted":
            number = event.attempt if event.kind.startswith("attempt.") else 0
            series.setdefault(number, []).append(event.sequence)
    for number, sequences in series.items():
        assert sequences == list(range(1, len(sequences) + 1)), f"series {number}: {sequences}"
    doubled = [id for id, count in Counter(event.id for event in events).items() if count > 1]
    assert not doubled, doubled


def _step(event: Event) -> str:
    words = [event.kind.removeprefix("job.")]
    if event.attempt:
        words.append(str(event.attempt))
    if event.site:
        words.append(event.site)
    return " ".join(words)


def _code(event: Event) -> str | None:
    reason = event.data.get("reason") or event.raw.get("reason") or {}
    return reason.get("code")


# -- the world ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """A running platform, its users and its sites."""

    up: Platform
    agents: dict[str, EmbeddedAgent]
    alice: Person
    """Manager of the climate VO, member of the bio VO."""
    bob: Person
    """Member of the bio VO, observer of the climate VO."""
    olga: Person
    """Operator of all sites, in no VO."""

    async def fault(self, site: str, kind: str, **arguments: Any) -> None:
        """Make something go wrong at a site (`services/embedded/agent/faults.py` has the kinds)."""
        await self.agents[site].inject(kind, **arguments)

    async def go_away(self, site: str) -> None:
        """Nothing listens at the site any more; what runs there runs on."""
        await self.fault(site, "refuse-connections", seconds=3600)
        async with httpx2.AsyncClient(base_url=self.agents[site].address, transport=_plain()) as client:

            async def refused() -> bool:
                try:
                    await client.get("/v1/status/leader")
                except httpx2.TransportError:
                    return True
                return False

            await until(refused)

    async def come_back(self, site: str, *, forgetful: bool = False) -> None:
        """The site answers again; `forgetful`: what happened meanwhile is not in its event buffer any more."""
        await self.restart(site)
        if forgetful:
            await self.fault(site, "prune-buffer")

    async def restart(self, site: str) -> None:
        """The site's agent is stopped, and a new one started on its folder and port; its tasks run on."""
        agent = self.agents[site]
        await agent.stop()
        port = int(agent.address.rpartition(":")[2])
        again = EmbeddedAgent(replace(agent.settings, port=port))
        await again.start()
        self.agents[site] = again

    def folder(self, job: Job) -> Path:
        """The working folder of a job's newest attempt at its site."""
        return self.agents[job.site or ""].alloc_root / str(job.raw["attempts"][-1]["allocation"]) / "main/local"

    def at_site(self, site: str) -> dict[str, str]:
        """What the site itself knows of allocations that are wanted or run: status by name of the Nomad job."""
        rows = [alloc.row for alloc in self.agents[site].region.state.allocs.values()]
        return {row["JobID"]: row["ClientStatus"] for row in rows}

    async def over_at(self, site: str, job: str) -> None:
        """Wait until nothing of a job runs at the site any more."""

        async def over() -> bool:
            return not [name for name in self.live_at(site) if name.startswith(job)]

        await until(over, f"{job} is over at {site}; there run {self.live_at(site)}")

    def live_at(self, site: str) -> list[str]:
        """Nomad jobs that have work running or beginning at the site."""
        return sorted(id for id, status in self.at_site(site).items() if status in ("pending", "running"))


async def until(true: Callable[[], Awaitable[T]], what: str = "") -> T:
    """What `true` gives as soon as it is not false."""
    found = await true()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not found:
                await pacing.pause(0.02)
                found = await true()
    except TimeoutError:
        raise AssertionError(f"did not happen within {DEADLINE_S:g} s: {what or true}; last seen: {found!r}") from None
    return found


async def site_is(person: Person, name: str, **wanted: Any) -> dict[str, Any]:
    """The site once it is shown like this."""

    async def look() -> dict[str, Any] | None:
        site = await person.site(name)
        return site if all(site[key] == value for key, value in wanted.items()) else None

    return await until(look, f"{name} {wanted}") or {}


def _merged(overrides: Overrides) -> dict[str, dict[str, Any]]:
    return {name: {**QUICK.get(name, {}), **overrides.get(name, {})} for name in {*QUICK, *overrides}}


@asynccontextmanager
async def a_world(
    folder: Path, *sites: Mapping[str, Any], mock: bool = True, end_tasks: bool = True, around: Around = as_it_is,
    apps: Around = as_it_is, agents: Mapping[str, Agent] | None = None, bus: Literal["embedded", "amqp"] = "embedded",
    port: int | None = None,
    **overrides: Mapping[str, Any],
) -> AsyncIterator[World]:  # fmt: skip
    """A platform of these sites (one, `prague`, when none is named) with its people signed in. `overrides` are settings
    by service. Started again on the same folder, it goes on with what it had. `agents`, one for each cluster, run
    already.
    """
    described = [dict(site) for site in sites] or [a_site("prague")]
    file = sites_file(folder, *described)
    settings = EmbeddedSettings(
        data=folder / "data", sites=file, port=port or a_port(), mock=mock, health_interval_s=0.1,
        end_tasks=False, bus=bus,
    )  # fmt: skip
    _give_ports(settings.data, [site.get("cluster", site["name"]) for site in described])
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(platform(settings, around, _merged(overrides), agents, apps=apps))
        alice, bob, olga = [await _sign_in(up, stack, name) for name in ("alice", "bob", "olga")]
        world = World(
            up, {name: agent for name, agent in up.agents.items() if isinstance(agent, EmbeddedAgent)}, alice, bob, olga
        )
        stack.push_async_callback(_end_sites, world, end_tasks)
        for site in described:
            await site_is(alice, site["name"], reachable=True, health="passing")
        yield world


def sites_file(folder: Path, *sites: Mapping[str, Any]) -> Path:
    """A file that describes them."""
    file = folder / "sites.yaml"
    file.write_text(json.dumps([dict(site) for site in sites]))
    return file


async def _end_sites(world: World, end_tasks: bool) -> None:
    await asyncio.gather(*(agent.stop(end_tasks=end_tasks) for agent in world.agents.values()))


async def _sign_in(up: Platform, stack: AsyncExitStack, name: str) -> Person:
    async with httpx2.AsyncClient(transport=_plain()) as issuer:
        answer = await issuer.post(f"{up.issuer}/demo/token", data={"user": name})
    token = answer.json()["access_token"]
    serai = await stack.enter_async_context(Serai(up.gateway, token, transport=_plain()))
    headers = {"Authorization": f"Bearer {token}"}
    http = httpx2.AsyncClient(base_url=up.gateway, headers=headers, transport=_plain(), timeout=DEADLINE_S)
    return Person(name, serai, await stack.enter_async_context(http))


def _plain() -> httpx2.AsyncHTTPTransport:
    """HTTP without TLS: to read the authorities that this machine trusts takes longer than to start a service."""
    return httpx2.AsyncHTTPTransport(verify=False)


def a_port() -> int:
    """Where the gateway may look for a free one."""
    return free_ports.any_of(GATEWAYS)


def _give_ports(data: Path, sites: Sequence[str]) -> None:
    """Ports that another platform on this machine, started while a site refuses connections, will hardly take."""
    folder = open_folder(data)
    try:
        ports = folder.kept.setdefault("ports", {})
        for name in sites:
            while f"site/{name}" not in ports:
                port = free_ports.any_of(AGENTS)
                if is_free(port) and port not in ports.values():
                    ports[f"site/{name}"] = port
        folder.save()
    finally:
        folder.lock.close()


# -- what stands between a service and its ports ------------------------------------------------------------------


class Movable:
    """Auth, able to be away: `between` comes between it and those who ask it."""

    def __init__(self) -> None:
        self.away = False

    def between(self, name: str, app: Any) -> Any:
        """What `platform(..., apps=...)` is handed."""
        return self._answering(app) if name == "auth" else app

    def _answering(self, app: Any) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if self.away:
                raise ConnectionError("nobody answers")
            await app(scope, receive, send)

        return answer
