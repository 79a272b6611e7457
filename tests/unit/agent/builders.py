"""Jobs, regions and agents for the tests of the embedded agent."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from services.embedded.agent import AgentSettings, EmbeddedAgent, fingerprint, nodes
from services.embedded.agent.jobspec import Row, canonical_job
from services.embedded.agent.region import Region
from services.embedded.agent.state import State
from services.embedded.agent.updates import Update, apply

SECOND = 1_000_000_000
START = 1_795_000_000 * SECOND


def job(job_id: str = "job-1", **more: Any) -> dict[str, Any]:
    """A batch job as the platform sends it: one mock task, no restarts, no reschedules."""
    task = {
        "Name": "main",
        "Driver": more.pop("driver", "mock_driver"),
        "Config": more.pop("config", {"run_for": "0s"}),
        "KillTimeout": 100_000_000,
        "Resources": {"CPU": more.pop("cpu", 50), "MemoryMB": 20},
        **more.pop("task", {}),
    }
    group = {
        "Name": "g",
        "Count": more.pop("count", 1),
        "Tasks": [task],
        "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
        "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
        **more.pop("group", {}),
    }
    return {"ID": job_id, "Name": job_id, "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [group], **more}


def raw(script: str, job_id: str = "job-1", **more: Any) -> dict[str, Any]:
    """A job whose task is a shell script run for real."""
    return job(job_id, driver="raw_exec", config={"command": "/bin/sh", "args": ["-c", script]}, **more)


class World:
    """A region under a clock that the test moves."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = AgentSettings(name="site-a", region="site-a", data_dir=directory, **settings)
        numbers = itertools.count(1)
        self.state = State(tells_deletions=self.settings.tells_deletions)
        self.region = Region(self.settings, self.state, lambda: f"00000000-0000-0000-0000-{next(numbers):012d}")
        self.now = START
        for number in range(self.settings.nodes):
            row = fingerprint.node_row(self.settings, self.region.ids(), f"node{number + 1}", "127.0.0.1:1")
            nodes.register(self.region, row, self.now)
        self.take()

    def register(self, spec: dict[str, Any], index: int | None = None) -> Any:
        """Register; `index` enforces a job modify index."""
        return self.region.register(canonical_job(spec, "site-a"), index is not None, index or 0, self.now)

    def stop(self, job_id: str, *, purge: bool = False) -> Any:
        """Deregister."""
        return self.region.deregister(("default", job_id), purge, self.now)

    def report(self, job_id: str, status: str, **more: Any) -> None:
        """The client tells a status of the job's newest allocation."""
        alloc = self.allocs(job_id)[-1]
        update = Update(alloc["ID"], status, "", {"main": {"State": status}}, **more)
        apply(self.region, alloc["NodeID"], [update], self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass, doing what becomes due on the way."""
        until = self.now + int(seconds * SECOND)
        while (due := self.region.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.region.tick(self.now)
        self.now = until
        self.region.tick(self.now)

    def allocs(self, job_id: str) -> list[Row]:
        """The job's allocations, oldest first."""
        return [alloc.row for alloc in self.state.job_allocs(("default", job_id))]

    def job(self, job_id: str) -> Row:
        """The job's row."""
        return self.state.jobs["default", job_id].row

    def take(self) -> list[str]:
        """What the stream would have said since the last look: `Topic Type status` per event, a line per text."""
        return [
            " | ".join(_words(event.topic, event.kind, event.payload) for event in commit.line.events)
            for commit in self.state.take_commits()
            if commit.line is not None
        ]


def _words(topic: str, kind: str, payload: Row) -> str:
    row = payload[topic]
    status = f"{row['DesiredStatus']}/{row['ClientStatus']}" if topic == "Allocation" else row["Status"]
    return f"{topic} {kind} {status}" + (" deleted" if payload.get("Deleted") else "")


@asynccontextmanager
async def running(directory: Path, **settings: Any) -> AsyncIterator[tuple[EmbeddedAgent, httpx2.AsyncClient]]:
    """A started agent with a client; quick in everything that Nomad is slow in."""
    quick = {"fsync": False, "client_slow_tick_s": 0.02, "log_heartbeat_s": 0.05, "stream_gc_s": 0.3}
    agent = EmbeddedAgent(
        AgentSettings(**{"name": "site-a", "region": "site-a", "data_dir": directory, **quick, **settings})
    )
    await agent.start()
    headers = {"X-Nomad-Token": agent.settings.token} if agent.settings.token else {}
    try:
        async with httpx2.AsyncClient(base_url=agent.address, timeout=20, headers=headers) as client:
            yield agent, client
    finally:
        await agent.stop(end_tasks=True)


async def register(client: httpx2.AsyncClient, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Register over HTTP; the answer's body."""
    answer = await client.post("/v1/jobs", json={"Job": spec, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def until(client: httpx2.AsyncClient, path: str, test: Any) -> Any:
    """Ask again with a blocking query whenever something has changed, until the answer passes the test."""
    index = "0"
    for _ in range(200):
        answer = await client.get(path, params={"index": index, "wait": "10s"})
        if answer.status_code == 200 and test(answer.json()):
            return answer.json()
        index = answer.headers.get("x-nomad-index", "0")
    raise AssertionError(f"{path} never came to what was expected: {answer.text[:500]}")


async def until_alloc(client: httpx2.AsyncClient, job_id: str, *statuses: str) -> dict[str, Any]:
    """Wait for the job's newest allocation to have one of the statuses."""
    found = await until(
        client, f"/v1/job/{job_id}/allocations", lambda rows: rows and rows[-1]["ClientStatus"] in statuses
    )
    row: dict[str, Any] = found[-1]
    return row


async def process_end(pid: int) -> None:
    """Wait for a process of somebody else's to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, ended.set)
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
