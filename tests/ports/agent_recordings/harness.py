"""Runs an agent and notes its event stream; turns stream lines into comparable sequences.

Used by the recordings tests only. Nothing here sleeps: everything waits for an event, with a deadline.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from services.embedded.agent import AgentSettings, EmbeddedAgent

RECORDINGS = Path(__file__).parents[2] / "recordings"
DEADLINE_S = 25.0
STREAM = "/v1/event/stream?index=0&topic=Job&topic=Evaluation&topic=Allocation&topic=Deployment&topic=Node&namespace=*"
Line = dict[str, Any]
Signature = tuple[str, ...]


def jobs_of(scenario: str) -> list[dict[str, Any]]:
    """The job specifications as they were posted."""
    found = json.loads((RECORDINGS / f"{scenario}.job.json").read_text())
    return found if isinstance(found, list) else [found]


def recorded(name: str) -> list[Line]:
    """The lines that the real agent sent."""
    return [json.loads(line) for line in (RECORDINGS / f"{name}.ndjson").read_text().splitlines()]


def settings(directory: Path, **more: Any) -> AgentSettings:
    """An agent with Nomad's own pace of client updates, so that lines bundle as they do there."""
    usual: dict[str, Any] = {
        "name": "site-a", "region": "site-a", "data_dir": directory, "event_buffer_size": 1000, "client_tick_s": 0.2,
        "client_slow_tick_s": 1.0, "heartbeat_ttl_s": 0.5, "heartbeat_grace_s": 0.2, "fsync": False,
        "log_heartbeat_s": 0.2,
    }  # fmt: skip
    return AgentSettings(**{**usual, **more})


class Watched:
    """An agent's address with everything its stream has said."""

    def __init__(self, address: str, index: int = 0) -> None:
        self.lines: list[Line] = []
        self.client = httpx2.AsyncClient(base_url=address, timeout=30.0)
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read(index))

    async def _read(self, index: int) -> None:
        try:
            async with self.client.stream("GET", STREAM.replace("index=0", f"index={index}")) as answer:
                async for text in answer.aiter_lines():
                    if text and text != "{}":
                        self.lines.append(json.loads(text))
                        self._changed.set()
        except httpx2.TransportError:
            # The agent was killed: what had been read is what counts.
            return

    async def until(self, test: Callable[[], Any], what: str) -> None:
        """Wait until `test()` is true; looked at again with every line."""
        async with asyncio.timeout(DEADLINE_S):
            while not test():
                self._changed.clear()
                await self._changed.wait()
        assert test(), what

    async def until_alloc(self, job: str, *statuses: str, count: int = 1) -> None:
        """Wait for that many allocations of the job in one of the statuses."""
        await self.until(lambda: self._count(job, statuses) >= count, f"{job}: {statuses}")

    def _count(self, job: str, statuses: tuple[str, ...]) -> int:
        last = {a["ID"]: a["ClientStatus"] for a in self.rows("Allocation") if a["JobID"] == job}
        return sum(status in statuses for status in last.values())

    async def until_job(self, job: str, status: str) -> None:
        """Wait until the job's last event has the status."""
        await self.until(
            lambda: [j["Status"] for j in self.rows("Job") if j["ID"] == job][-1:] == [status], f"{job}: {status}"
        )

    async def until_eval(self, job: str, status: str, trigger: str) -> None:
        """Wait for an evaluation of the job."""
        await self.until(
            lambda: any(
                e["JobID"] == job and e["Status"] == status and e["TriggeredBy"] == trigger
                for e in self.rows("Evaluation")
            ),
            f"{job}: {trigger} {status}",
        )

    async def until_node(self, status: str) -> None:
        """Wait until some node's last event has the status."""
        await self.until(lambda: status in {n["ID"]: n["Status"] for n in self.rows("Node")}.values(), f"node {status}")

    def rows(self, topic: str) -> list[dict[str, Any]]:
        """All payloads of a topic, in order."""
        return [e["Payload"][topic] for line in self.lines for e in line["Events"] if e["Topic"] == topic]

    async def register(self, job: dict[str, Any]) -> dict[str, Any]:
        """Register as the recordings did."""
        answer = await self.client.post("/v1/jobs", json={"Job": job, "EnforceIndex": True, "JobModifyIndex": 0})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def delete(self, job: str, *, purge: bool = False) -> dict[str, Any]:
        """Deregister."""
        answer = await self.client.delete(f"/v1/job/{job}", params={"purge": "true"} if purge else {})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def fault(self, kind: str, **args: Any) -> None:
        """Inject."""
        answer = await self.client.post("/serai/fault", json={"kind": kind, **args})
        assert answer.status_code == 200, answer.text

    async def close(self) -> None:
        """Stop reading."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self.client.aclose()


class Site:
    """A running agent, watched."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.agent = EmbeddedAgent(settings(directory, **more))
        self._watched: Watched | None = None

    async def __aenter__(self) -> Watched:
        await self.agent.start()
        self._watched = Watched(self.agent.address)
        await self._watched.until(lambda: self._watched and self._watched.lines, "first line")
        return self._watched

    async def __aexit__(self, *error: object) -> None:
        if self._watched is not None:
            await self._watched.close()
        await self.agent.stop(end_tasks=True)


def signature(event: dict[str, Any]) -> Signature:
    """What is compared of an event: topic, type and statuses."""
    topic = event["Topic"]
    row = event["Payload"][topic]
    words: tuple[str, ...]
    match topic:
        case "Job":
            words = (row["Status"], "stop" if row["Stop"] else "", "deleted" if event["Payload"].get("Deleted") else "")
        case "Evaluation":
            words = (row["Status"], row["TriggeredBy"])
        case "Allocation":
            words = (
                row["DesiredStatus"],
                row["ClientStatus"],
                row.get("DesiredDescription", ""),
                row.get("ClientDescription", ""),
            )
        case "Node":
            words = (row["Status"], row["SchedulingEligibility"], "draining" if row["DrainStrategy"] else "")
        case _:
            words = (row["Status"],)
    return (topic, event["Type"], *(word for word in words if word))


def job_id(event: dict[str, Any]) -> str:
    """The job an event tells of ("" for nodes)."""
    row = event["Payload"][event["Topic"]]
    return str(row["ID"] if event["Topic"] == "Job" else row.get("JobID", ""))


def sequence(lines: list[Line], job: str, optional: Callable[[Signature], bool]) -> list[Signature]:
    """The events of one job in order, without mere repeats of an allocation's statuses and without optional ones."""
    found: list[Signature] = []
    last: dict[str, Signature] = {}
    for line in lines:
        for event in line["Events"]:
            if job_id(event) != job:
                continue
            made = signature(event)
            if event["Topic"] == "Allocation" and event["Type"] == "AllocationUpdated":
                statuses = made[2:]
                if last.get(event["Key"]) == statuses:
                    continue
                last[event["Key"]] = statuses
            elif event["Topic"] == "Allocation":
                last[event["Key"]] = made[2:]
            if not optional(made):
                found.append(made)
    return found


def node_sequence(lines: list[Line], name: str = "") -> list[Signature]:
    """Node events that are not mere companions of allocation updates; repeats count once."""
    found: list[Signature] = []
    for line in lines:
        for event in line["Events"]:
            if event["Topic"] != "Node" or event["Type"] == "AllocationUpdated":
                continue
            if name and not event["Payload"]["Node"]["Name"].endswith(name):
                continue
            if not found or found[-1] != signature(event):
                found.append(signature(event))
    return found
