"""What is done in each recorded scenario: the same jobs and actions, with the waits shortened.

Each function gets a watched agent and the recorded jobs, and returns when the scenario is over.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from services.embedded.agent.drivers.executor import start_ticks
from tests import pacing
from tests.ports.agent_recordings.harness import Line, Site, Watched, jobs_of

Jobs = list[dict[str, Any]]
Act = Callable[[Watched, Jobs], Awaitable[None]]


async def to_the_end(site: Watched, jobs: Jobs) -> None:
    """Register, and wait until the job is dead."""
    await site.register(jobs[0])
    await site.until_job(jobs[0]["ID"], "dead")


async def blocked_then_unblocked(site: Watched, jobs: Jobs) -> None:
    """The second job waits for the first one's CPU."""
    first, second = jobs
    await site.register(first)
    await site.until_alloc(first["ID"], "running")
    await site.register(second)
    await site.until_job(second["ID"], "dead")


async def blocked_stop(site: Watched, jobs: Jobs) -> None:
    """An infeasible job is stopped."""
    await site.register(jobs[0])
    await site.until_eval(jobs[0]["ID"], "complete", "job-register")
    await site.delete(jobs[0]["ID"])
    await site.until_eval(jobs[0]["ID"], "complete", "job-deregister")


async def blocked_purge(site: Watched, jobs: Jobs) -> None:
    """An infeasible job is purged."""
    await site.register(jobs[0])
    await site.until_eval(jobs[0]["ID"], "complete", "job-register")
    await site.delete(jobs[0]["ID"], purge=True)
    await site.until_eval(jobs[0]["ID"], "complete", "job-deregister")


async def stop_running(site: Watched, jobs: Jobs) -> None:
    """Stopped while running."""
    await site.register(jobs[0])
    await site.until_alloc(jobs[0]["ID"], "running")
    await site.delete(jobs[0]["ID"])
    await site.until_alloc(jobs[0]["ID"], "complete")


async def purge_finished(site: Watched, jobs: Jobs) -> None:
    """Purged when over; purging again is no error."""
    await to_the_end(site, jobs)
    await site.delete(jobs[0]["ID"], purge=True)
    await site.until_eval(jobs[0]["ID"], "complete", "job-deregister")
    assert (await site.client.get(f"/v1/job/{jobs[0]['ID']}")).text == "job not found"
    assert (await site.delete(jobs[0]["ID"], purge=True))["EvalID"] == ""


async def purge_running(site: Watched, jobs: Jobs) -> None:
    """Purged while running: the allocation is gone at once, only the node tells that something ended."""
    await site.register(jobs[0])
    await site.until_alloc(jobs[0]["ID"], "running")
    alloc = site.rows("Allocation")[-1]["ID"]
    await site.delete(jobs[0]["ID"], purge=True)
    await site.until(lambda: [e["Topic"] for e in site.lines[-1]["Events"]] == ["Node"], "the node's line")
    assert (await site.client.get(f"/v1/allocation/{alloc}")).text == "alloc not found"


async def service_running(site: Watched, jobs: Jobs) -> None:
    """A service becomes healthy, its deployment succeeds, it is stopped."""
    await site.register(jobs[0])
    await site.until_eval(jobs[0]["ID"], "complete", "deployment-watcher")
    await site.delete(jobs[0]["ID"])
    await site.until_alloc(jobs[0]["ID"], "complete")


async def system_gc(site: Watched, jobs: Jobs) -> None:
    """Everything finished is collected."""
    await to_the_end(site, jobs)
    assert (await site.client.put("/v1/system/gc")).status_code == 200
    await site.until(lambda: any(e["Payload"].get("Deleted") for line in site.lines for e in line["Events"]), "Deleted")


async def node_drain(site: Watched, jobs: Jobs) -> None:
    """A drain with a deadline on the only node, then eligible again, then both jobs are stopped."""
    batch, service = jobs
    for job in jobs:
        await site.register(job)
    await site.until_alloc(service["ID"], "running")
    await site.until_alloc(batch["ID"], "running")
    await _drain(site, {"DrainSpec": {"Deadline": 1_000_000_000}})
    await site.until_alloc(batch["ID"], "complete")
    await site.until_eval(service["ID"], "canceled", "queued-allocs")
    await _drain(site, {"DrainSpec": None, "MarkEligible": True})
    await site.until_alloc(service["ID"], "running")
    await site.delete(batch["ID"])
    await site.delete(service["ID"])
    await site.until_alloc(service["ID"], "complete", count=2)


async def node_drain_two_nodes(site: Watched, jobs: Jobs) -> None:
    """A drain while a second node is free: the service moves, the batch job does not."""
    batch, service = jobs
    nodes = {n["Name"]: n["ID"] for n in site.rows("Node")}
    await _eligibility(site, nodes["site-d-node2"], "ineligible")
    for job in jobs:
        await site.register(job)
        await site.until_alloc(job["ID"], "running")
    await _eligibility(site, nodes["site-d-node2"], "eligible")
    await _drain(site, {"DrainSpec": {"Deadline": 500_000_000}}, nodes["site-d-node1"])
    await site.until_alloc(batch["ID"], "complete")
    await site.until_alloc(service["ID"], "running")
    await site.until_eval(service["ID"], "complete", "deployment-watcher")


async def node_lost(site: Watched, jobs: Jobs) -> None:
    """The node's client goes away and comes back: lost, replaced, and the lost ones come back to be ended."""
    await _all_on_first_node(site, jobs)
    await site.fault("lose-node", node="site-d-node1")
    for job in jobs:
        await site.until_alloc(job["ID"], "lost")
        await site.until_alloc(job["ID"], "running")
    await site.until_node("down")
    # The service's deployment completes with its replacement, as it did in the recording.
    await site.until_eval("lost-service", "complete", "deployment-watcher")
    await site.fault("return-node", node="site-d-node1")
    for job in jobs:
        await site.until_alloc(job["ID"], "complete")


async def node_disconnect(site: Watched, jobs: Jobs) -> None:
    """With lost_after the allocations are unknown, and reconnect."""
    await _all_on_first_node(site, jobs)
    await site.fault("lose-node", node="site-d-node1")
    for job in jobs:
        await site.until_alloc(job["ID"], "unknown")
    await site.until_eval("disc-default-replace", "complete", "alloc-reschedule")
    await site.fault("return-node", node="site-d-node1")
    for job in jobs:
        await site.until_eval(job["ID"], "complete", "reconnect")
    for job in jobs:
        await site.delete(job["ID"])
    for job in jobs:
        await site.until_alloc(job["ID"], "complete")


async def node_disconnect_expired(site: Watched, jobs: Jobs) -> None:
    """lost_after passes: lost and replaced in any case. (10 s made 6: the reschedule evaluation comes at 5.)"""
    for job in jobs:
        job["TaskGroups"][0]["Disconnect"]["LostAfter"] = 6_000_000_000
    await _all_on_first_node(site, jobs)
    await site.fault("lose-node", node="site-d-node1")
    for job in jobs:
        await site.until_alloc(job["ID"], "lost")
        await site.until_alloc(job["ID"], "running")
    await site.until_node("down")
    await site.fault("return-node", node="site-d-node1")
    for job in jobs:
        await site.until_alloc(job["ID"], "complete")
        await site.delete(job["ID"])
    for job in jobs:
        await site.until_alloc(job["ID"], "complete", count=2)


async def _all_on_first_node(site: Watched, jobs: Jobs) -> None:
    """Placed on the first node, as in the recordings; then the second one is free."""
    second = {n["Name"]: n["ID"] for n in site.rows("Node")}["site-d-node2"]
    await _eligibility(site, second, "ineligible")
    for job in jobs:
        await site.register(job)
    for job in jobs:
        await site.until_alloc(job["ID"], "running")
    await _eligibility(site, second, "eligible")


async def _drain(site: Watched, body: dict[str, Any], node: str = "") -> None:
    node = node or site.rows("Node")[0]["ID"]
    answer = await site.client.post(f"/v1/node/{node}/drain", json=body)
    assert answer.status_code == 200, answer.text


async def _eligibility(site: Watched, node: str, wanted: str) -> None:
    answer = await site.client.post(f"/v1/node/{node}/eligibility", json={"Eligibility": wanted})
    assert answer.status_code == 200, answer.text


async def run(act: Act, scenario: str, directory: Path, nodes: int) -> list[Line]:
    """Run one scenario at a fresh agent and return its lines."""
    more: dict[str, Any] = {"nodes": nodes, "node_name": "site-d"} if nodes > 1 else {}
    async with Site(directory, **more) as site:
        await act(site, jobs_of(scenario))
        return list(site.lines)


async def restart(scenario: str, directory: Path, number: signal.Signals) -> tuple[list[Line], list[Line]]:
    """The agent's process is ended and started again; two tasks survive, one of them ends while nobody looks."""
    long, short = jobs_of(scenario)
    # Only their lengths differ from the recording: 22 and 4 seconds there, whatever the restart takes here.
    ends = {job["ID"]: _until_told(job, directory) for job in (long, short)}
    process, address = await _host(directory, 0)
    first = Watched(address)
    await first.until(lambda: first.lines, "first line")
    for job in (long, short):
        await first.register(job)
    for job in (long, short):
        await first.until_alloc(job["ID"], "running")
    process.send_signal(number)
    await process.wait()
    before = list(first.lines)
    await first.close()
    ends[short["ID"]].touch()
    await _one_gone_from(directory)
    process, address = await _host(directory, int(address.rpartition(":")[2]))
    second = Watched(address, before[-1]["Index"])
    for job in (short, long):
        ends[job["ID"]].touch()
        await second.until_job(job["ID"], "dead")
    after = list(second.lines)
    await second.close()
    process.send_signal(signal.SIGINT)
    await process.wait()
    return before, after


def _until_told(job: dict[str, Any], directory: Path) -> Path:
    """Its task runs until somebody makes this file."""
    file = directory / f"{job['ID']}.ends"
    job["TaskGroups"][0]["Tasks"][0]["Config"]["args"][1] = f"while [ ! -e {file} ]; do sleep 0.05; done"
    return file


async def _host(directory: Path, port: int) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.ports.agent_recordings.host_agent",
        str(directory),
        str(port),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


async def _one_gone_from(directory: Path) -> None:
    """Wait for the end that happens while no agent looks."""
    tasks = [json.loads(path.read_text()) for path in (directory / "run").glob("*.pid")]
    assert len(tasks) == 2, "two tasks were to run on"
    async with asyncio.timeout(30):
        while all(start_ticks(task["pid"]) == task["start"] for task in tasks):
            await pacing.pause(0.02)
