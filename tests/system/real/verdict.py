"""The verdict over a load that went on under faults: users, sites and subscribers are asked, the services are not."""

from collections.abc import Sequence
from typing import Any, Final

import httpx2 as httpx

from services.embedded.agents import Agent
from shared.adapters.nomad.local_agent import LocalRegion
from tests import pacing
from tests.system.crash import oracle
from tests.system.crash.judging import all_end, every_job_once
from tests.system.crash.load import Users
from tests.system.crash.oracle import Wrong
from tests.system.crash.tally import TALLIES, Tally
from tests.system.real.readers import SseReader, StreamReader
from tests.system.real.whole import Whole

_CATCH_UP_S: Final = 30.0


async def verdict(
    whole: Whole, users: Users[Any], sse: SseReader, stream: StreamReader, within_s: float = 90.0
) -> list[Wrong]:
    """Everything that is not as it was promised, once every job that was accepted has ended."""
    if wrong := await all_end(users, within_s):
        return wrong
    wrong = await every_job_once(users)
    timelines = {one.job_id: await _timeline(users, one.job_id) for one in users.jobs}
    await _caught_up(sse, stream, timelines)
    placed = await _placed(whole)
    for one in users.jobs:
        items = timelines[one.job_id]
        found = oracle.judge_subscriber(sse.heard, one.job_id, items)
        found += oracle.judge_stream(stream.heard, one.job_id, items)
        found += oracle.judge_sites(placed, one.job_id, len(one.sort.runs))
        wrong += [Wrong(each.kind, f"{one.job_id}: {each.what}") for each in found]
    return wrong + [oracle.lost(f"a gateway told of a gap: {gap}") for gap in sse.gaps]


def tell(name: str, faults: int, users: Users[Any], wrong: Sequence[Wrong]) -> Tally:
    """A line for the end of the run: faults injected, jobs, what went wrong."""
    tally = Tally(f"{name} ({len(users.jobs)} jobs)", faults, faults)
    for number, each in enumerate(wrong):
        tally.wrong[str(number)] = [each]
    TALLIES.append(tally)
    return tally


async def _timeline(users: Users[Any], job_id: str) -> Sequence[dict[str, Any]]:
    items: Sequence[dict[str, Any]] = (await users.ask("GET", f"/v1/jobs/{job_id}/timeline")).json()["items"]
    return items


async def _caught_up(sse: SseReader, stream: StreamReader, timelines: dict[str, Sequence[dict[str, Any]]]) -> None:
    """Return when both subscribers have heard of everything, or have had time enough."""
    told = {item["id"] for items in timelines.values() for item in items if item["type"] != "job.accepted"}
    for _ in range(round(_CATCH_UP_S / 0.1)):
        if all(told <= {each.id for each in reader.heard} for reader in (sse, stream)):
            return
        await pacing.pause(0.1)


async def _placed(whole: Whole) -> dict[str, Sequence[str]]:
    """The Nomad jobs of each cluster, in all namespaces, by its own word."""
    return {
        cluster: [row["ID"] for row in await rows_at(agent, "/v1/jobs")]
        for cluster, agent in whole.up.parts.agents.items()
    }


async def rows_at(agent: Agent, path: str) -> Sequence[dict[str, Any]]:
    """What a cluster lists in all namespaces, asked by its operator."""
    made = agent.caller() if isinstance(agent, LocalRegion) else httpx.AsyncClient(base_url=agent.address)
    async with made as client:
        rows: Sequence[dict[str, Any]] = (await client.get(path, params={"namespace": "*"})).raise_for_status().json()
    return rows
