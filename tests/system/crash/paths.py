"""The three paths of a job through the platform, walked by a client that does not give up, and what must come of them.

Each hands in one job under an idempotency key, observes it by its event stream to the end, and reads what is left.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx

from tests import pacing
from tests.system.crash import oracle
from tests.system.crash.oracle import END, MARKS, START, Wrong, doubled, lost
from tests.system.crash.world import VO, Dead, World, unless_dead

DEADLINE_S: Final = 240.0
"""Only what stands still meets it: on a busy machine a walk takes a minute."""
ASKED_S: Final = 5.0


class Refused(Exception):
    """The platform said no to what it must take, or told the reader of a gap."""


@dataclass(frozen=True, slots=True)
class Path_:
    """A job and its fate. `runs`: for each attempt, whether its command comes to its end."""

    name: str
    script: str
    state: str
    runs: tuple[bool, ...]
    cancel: bool = False
    output: bytes = b""
    secret: str = ""
    """What the job's secret holds, which its command reads as `key`; empty: it names none."""


SUCCEEDS: Final = Path_(
    "submit and succeed", f"{START}; echo hello; sleep 0.1; {END}", "succeeded", (True,), output=b"hello\n"
)
CANCELLED: Final = Path_(
    "submit and cancel", f"{START}; exec sleep 600", "cancelled", (False,), cancel=True, secret="x"
)
RETRIED: Final = Path_(
    "fail and be retried",
    f'{START}; sleep 0.05; {END}; case "$NOMAD_JOB_ID" in *-001) exit 3;; esac; cat "$NOMAD_SECRETS_DIR/key"',
    "succeeded",
    (True, True),
    output=b"hush",
    secret="hush",
)


@dataclass
class Observed:
    """What the client knows: the id that a 202 gave it, every event that its reader heard."""

    job_id: str = ""
    heard: list[str] = field(default_factory=list)
    position: str = ""
    final: str = ""
    kinds: set[str] = field(default_factory=set)
    running: asyncio.Event = field(default_factory=asyncio.Event)


async def walk(world: World, path: Path_, marks: Path, seen: Observed) -> list[Wrong]:
    """Walk a path over however many lives, then ask the witnesses. `seen` is what the client learns meanwhile."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            await _hand_in(world, path, marks, seen)
            await _observe(world, path, marks, seen)
            return await _judge(world, path, marks, seen)
    except Refused as refused:
        return [lost(f"refused: {refused}")]
    except TimeoutError:
        return [lost(f"the job did not come to its end in {DEADLINE_S:g} s; heard of {sorted(seen.kinds)}")]


async def history(world: World, marks: Path, seen: Observed) -> dict[str, Any]:
    """Everything that each witness says of a walk, for those who look into what went wrong."""
    told: dict[str, Any] = {"heard": [seen.final, seen.position, *sorted(seen.kinds)], "calls": _calls(world)}
    told["runs"] = [str(run) for run in oracle.runs_of(marks)]
    told["sites"] = [alloc.row for agent in world.agents.values() for alloc in agent.region.state.allocs.values()]
    for what in ("", "/timeline", "/explain"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASKED_S):
                told[f"job{what}"] = (await world.ask("GET", f"/v1/jobs/{seen.job_id}{what}")).text
    return told


def _calls(world: World) -> list[str]:
    return [f"{number}. {call} #{count}" for number, (call, count) in enumerate(world.lives[0].calls, start=1)]


async def _hand_in(world: World, path: Path_, marks: Path, seen: Observed) -> None:
    job: dict[str, Any] = {
        "name": path.name, "vo": VO, "command": ["sh", "-c", path.script], "env": {MARKS: str(marks)},
        "resources": {"cpu": 0.1, "memory": "32MiB"}, "retries": {"attempts": len(path.runs) - 1},
    }  # fmt: skip
    if path.secret:
        told = await world.ask("PUT", "/v1/secrets/key", json={"vo": VO, "value": path.secret})
        if told.status_code != 200:
            raise Refused(told.text)
        job["secrets"] = [{"name": "key"}]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answer = await world.ask("POST", "/v1/jobs", json=job, headers=key)
    if answer.status_code != 202:
        raise Refused(answer.text)
    seen.job_id = answer.json()["id"]


async def _observe(world: World, path: Path_, marks: Path, seen: Observed) -> None:
    """Read the job's stream to its end, resumed after each death; cancel once its command has begun."""
    reading = asyncio.create_task(_read(world, seen), name="reader")
    try:
        if path.cancel:
            told = asyncio.create_task(seen.running.wait(), name="told to run")
            await asyncio.wait([told, reading], return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            await _until(lambda: marks.exists() or reading.done())
            answer = await world.ask("DELETE", f"/v1/jobs/{seen.job_id}")
            if answer.status_code not in (200, 202):
                raise Refused(answer.text)
        await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(world: World, seen: Observed) -> None:
    while not seen.final:
        _, life = await world.alive()
        with contextlib.suppress(Dead, httpx.TransportError):
            await unless_dead(asyncio.create_task(_read_once(world, seen), name="reader"), life)
        await pacing.pause(0.01)


async def _read_once(world: World, seen: Observed) -> None:
    up, _ = await world.alive()
    headers = {"Authorization": f"Bearer {world.token}", "Accept": "text/event-stream"}
    if seen.position:
        headers["Last-Event-ID"] = seen.position
    url = f"{up.gateway}/v1/jobs/{seen.job_id}/events"
    async with world.client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == 204:
            seen.final = seen.final or "204"
            return
        async for message in httpx.EventSource(answer):
            if message.event == "gap":
                raise Refused(message.data)
            seen.position = message.id or seen.position
            body = json.loads(message.data) if message.data else {}
            if message.event == "end":
                seen.final = "final" if body.get("reason") == "final" else ""
                return
            if "id" in body:
                seen.heard.append(body["id"])
                seen.kinds.add(message.event)
                if message.event == "job.running":
                    seen.running.set()


async def _judge(world: World, path: Path_, marks: Path, seen: Observed) -> list[Wrong]:
    job = (await world.ask("GET", f"/v1/jobs/{seen.job_id}")).json()
    wrong = [] if job.get("state") == path.state else [lost(f"ended {job.get('state')}: {job.get('reason')}")]
    if path.output:
        wrong += await _judge_output(world, path, seen.job_id)
    await _until(lambda: not _at_sites(world, seen.job_id))
    await _until(lambda: not _secrets_at_sites(world))
    timeline: Sequence[dict[str, Any]] = (await world.ask("GET", f"/v1/jobs/{seen.job_id}/timeline")).json()["items"]
    mine = (await world.ask("GET", "/v1/jobs")).json()["items"]
    if len(mine) != 1:
        wrong.append(Wrong("doubled" if mine else "lost", f"{len(mine)} jobs came of one hand-in"))
    runs = oracle.runs_of(marks)
    wrong += oracle.judge_runs(runs, path.runs) + oracle.still_running(runs)
    wrong += _judge_sites(world, path, seen.job_id)
    return wrong + oracle.judge_timeline(timeline, path.state) + oracle.judge_reader(seen.heard, timeline)


async def _judge_output(world: World, path: Path_, job_id: str) -> list[Wrong]:
    """The log is kept by the monitor after the end, however often it died while it fetched it."""
    answer = await world.ask("GET", f"/v1/jobs/{job_id}/logs", params={"stream": "stdout"})
    return [] if answer.content == path.output else [lost(f"the log is {answer.content[:200]!r}")]


def _at_sites(world: World, job_id: str) -> list[str]:
    """Allocations of the job that are not over, by the agents' own word."""
    return [
        f"{name}: {alloc.row['JobID']}"
        for name, agent in world.agents.items()
        for alloc in agent.region.state.allocs.values()
        if alloc.row["JobID"].startswith(job_id) and alloc.row["ClientStatus"] in ("pending", "running", "unknown")
    ]


def _secrets_at_sites(world: World) -> list[str]:
    """What is still kept there for attempts; nothing once they are over."""
    return [path for agent in world.agents.values() for _, path in agent.region.state.variables]


def _judge_sites(world: World, path: Path_, job_id: str) -> list[Wrong]:
    """The agents have one allocation for each attempt, over all sites."""
    found = [
        alloc.row["JobID"]
        for agent in world.agents.values()
        for alloc in agent.region.state.allocs.values()
        if alloc.row["JobID"].startswith(job_id)
    ]
    return [doubled(f"allocations: {sorted(found)}")] if len(found) > len(path.runs) else []


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await pacing.pause(0.01)
