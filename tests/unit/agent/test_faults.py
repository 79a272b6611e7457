"""Injected faults, as the platform meets them over HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.embedded.agent.faults import KINDS
from tests import pacing
from tests.unit.agent.builders import job, process_end, raw, register, running, until, until_alloc

STREAM = "/v1/event/stream?namespace=*"


@asynccontextmanager
async def stream(client: httpx2.AsyncClient, path: str = STREAM) -> AsyncIterator[AsyncIterator[str]]:
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def following(lines: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(lines), 5)


async def fault(client: httpx2.AsyncClient, kind: str, **args: Any) -> None:
    answer = await client.post("/serai/fault", json={"kind": kind, **args})
    assert answer.status_code == 200, answer.text


async def test_every_kind_is_listed_with_a_sentence(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        assert (await client.get("/serai/fault")).json() == KINDS
        assert (await client.post("/serai/fault", json={"kind": "no-such"})).status_code == 400


async def test_a_stream_begins_with_its_proof_and_beats(tmp_path: Path) -> None:
    async with running(tmp_path, stream_heartbeat_s=0.05) as (_, client), stream(client) as lines:
        assert await following(lines) == "{}"
        assert json.loads(await following(lines))["Events"][0]["Topic"] == "Node"
        assert [await following(lines), await following(lines)] == ["{}", "{}"]


async def test_a_dropped_stream_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client), stream(client) as lines:
        await following(lines)
        await fault(client, "drop-stream")
        with pytest.raises(StopAsyncIteration):
            while True:
                await following(lines)


async def test_a_silenced_stream_says_nothing_until_the_collector_comes(tmp_path: Path) -> None:
    async with running(tmp_path, stream_heartbeat_s=0.05) as (_, client), stream(client) as lines:
        await following(lines)
        await following(lines)
        await fault(client, "silence-stream")
        await register(client, job())
        rest = [line async for line in lines if line != "{}"]
        assert rest == []


async def test_a_refused_stream_is_200_and_silence(tmp_path: Path) -> None:
    async with (
        running(tmp_path, token="right") as (agent, _),
        httpx2.AsyncClient(base_url=agent.address) as stranger,
        stream(stranger) as lines,
    ):
        assert [line async for line in lines] == []


async def test_a_pruned_buffer_shows_a_gap(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        first = await register(client, job("one"))
        await until_alloc(client, "one", "complete")
        await fault(client, "prune-buffer", keep=1)
        async with stream(client, f"{STREAM}&index={first['Index']}") as lines:
            assert await following(lines) == "{}"
            assert json.loads(await following(lines))["Index"] > first["Index"]


async def test_refused_connections_and_back_on_the_same_port(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await fault(client, "refuse-connections", seconds=0.3)

        async def answers() -> bool:
            try:
                return (await client.get("/v1/status/leader")).status_code == 200
            except httpx2.TransportError:
                return False

        async with asyncio.timeout(20):
            while await answers():
                continue
            while not await answers():
                continue


async def test_errors_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await fault(client, "error-500", count=2)
        found = [(await client.get("/v1/jobs")).status_code for _ in range(3)]
        assert found == [500, 500, 200]
        await fault(client, "error-429", seconds=30)
        answer = await client.get("/v1/jobs")
        assert (answer.status_code, "too many concurrent connections" in answer.text) == (429, True)
        await fault(client, "clear")
        assert (await client.get("/v1/jobs")).status_code == 200


async def test_slow_answers(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        loop = asyncio.get_running_loop()
        await fault(client, "slow", seconds=0.1)
        before = loop.time()
        await client.get("/v1/jobs")
        assert loop.time() - before >= 0.1


async def test_a_forgotten_job_is_gone_without_a_word(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, client):
        await register(client, job(config={"run_for": "60s"}))
        await until_alloc(client, "job-1", "running")
        await fault(client, "forget-job", job="job-1")
        assert (await client.get("/v1/job/job-1")).text == "job not found"
        events = [event for line in agent.broker.items for event in line.events]
        assert not any(event.payload.get("Deleted") for event in events)
        assert (await client.post("/serai/fault", json={"kind": "forget-job", "job": "no"})).status_code == 400


@pytest.mark.parametrize(("deny", "status", "own"), [(False, 200, 200), (True, 403, 200)])
async def test_a_narrowed_token(tmp_path: Path, deny: bool, status: int, own: int) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job())
        await fault(client, "narrow-token", deny=deny)
        answer = await client.get("/v1/jobs")
        assert answer.status_code == status
        assert deny or answer.json() == []
        assert (await client.get("/v1/nodes")).status_code == 403
        assert (await client.get("/v1/acl/token/self")).status_code == own
        async with stream(client) as lines:
            assert [line async for line in lines] == []
        await fault(client, "clear")
        assert len((await client.get("/v1/jobs")).json()) == 1


async def test_a_node_lost_and_found(tmp_path: Path) -> None:
    """One node, no lost_after: lost at once; back again its task is ended, and the replacement runs there."""
    async with running(tmp_path) as (_, client):
        await register(client, job(config={"run_for": "60s"}))
        first = await until_alloc(client, "job-1", "running")
        await fault(client, "lose-node", after=0)
        await until(client, "/v1/nodes", lambda nodes: nodes[0]["Status"] == "down")
        found = (await client.get(f"/v1/allocation/{first['ID']}")).json()
        assert (found["ClientStatus"], found["DesiredStatus"]) == ("lost", "stop")
        await fault(client, "return-node")
        again = await until(client, f"/v1/allocation/{first['ID']}", lambda a: a["ClientStatus"] == "complete")
        assert again["DesiredStatus"] == "stop"
        await until(
            client,
            "/v1/job/job-1/allocations",
            lambda rows: [r for r in rows if r["ID"] != first["ID"] and r["ClientStatus"] == "running"],
        )


async def test_a_task_that_ended_unseen_is_told_when_the_node_is_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        away = {"Disconnect": {"LostAfter": 60 * 10**9, "Replace": False}}
        await register(client, raw("while [ ! -e go ]; do sleep 0.01; done", group=away))
        first = await until_alloc(client, "job-1", "running")
        await fault(client, "lose-node", after=0)
        await until_alloc(client, "job-1", "unknown")
        (tmp_path / "alloc" / first["ID"] / "main" / "go").touch()
        await process_end(json.loads(next((tmp_path / "run").glob("*.pid")).read_text())["pid"])
        await fault(client, "return-node")
        assert (await until_alloc(client, "job-1", "complete"))["ID"] == first["ID"]


async def test_unknown_allocations_reconnect_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    spec = job(config={"run_for": "60s"}, group={"Disconnect": {"LostAfter": 60 * 10**9, "Replace": False}})
    async with running(tmp_path) as (agent, client):
        await register(client, spec)
        first = await until_alloc(client, "job-1", "running")
        await fault(client, "lose-node", after=0)
        await until_alloc(client, "job-1", "unknown")
        await agent.stop()
    async with running(tmp_path) as (_, client):
        found = await until_alloc(client, "job-1", "running")
        assert found["ID"] == first["ID"]
        assert found["TaskStates"]["main"]["Events"][-1]["Type"] == "Reconnected"


async def test_drain_and_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job(config={"run_for": "60s"}))
        await until_alloc(client, "job-1", "running")
        await fault(client, "drain")
        alloc = await until_alloc(client, "job-1", "complete")
        assert alloc["DesiredDescription"] == "alloc is being migrated"
        await register(client, job("job-2"))
        assert (await client.get("/v1/job/job-2")).json()["Status"] == "pending"
        await fault(client, "undrain")
        await until_alloc(client, "job-2", "complete")


async def test_gc(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job())
        await until_alloc(client, "job-1", "complete")
        await fault(client, "gc")
        assert (await client.get("/v1/jobs")).json() == []


async def test_a_connection_that_was_just_being_opened_is_reset_with_the_others(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, _):
        loop = asyncio.get_running_loop()
        await agent.inject("refuse-connections", seconds=10)
        await asyncio.sleep(0)
        host, _, port = agent.address.removeprefix("http://").partition(":")
        late = socket.create_connection((host, int(port)))
        pacing.hold_the_loop(0.05)  # so that the loop meets the connection and the end of the pause at once
        late.setblocking(False)
        with late:
            async with asyncio.timeout(3):
                try:
                    assert await loop.sock_recv(late, 1) == b""
                except ConnectionError:
                    return


async def test_what_was_placed_and_stopped_while_its_client_was_away_is_over_when_it_is_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, client):
        await agent.inject("lose-node", after=60)
        await register(client, job("late"))
        await client.delete("/v1/job/late")
        await agent.inject("return-node")
        await until_alloc(client, "late", "complete")
        assert len(agent.region.state.allocs) == 1
