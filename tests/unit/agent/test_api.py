"""The HTTP API at a running agent: answers, headers, errors, paging, waiting, tokens, logs, files."""

import asyncio
import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.embedded.agent import AgentError, AgentSettings, EmbeddedAgent
from tests.unit.agent.builders import job, raw, register, running, until, until_alloc

RECORDINGS = Path(__file__).parents[2] / "recordings"
INVALID: dict[str, Any] = json.loads((RECORDINGS / "invalid-job.http.json").read_text())
INVALID_JOBS: dict[str, Any] = json.loads((RECORDINGS / "invalid-job.job.json").read_text())
NO_ONE = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("shape", INVALID["http-shapes"], ids=lambda s: s["request"])
async def test_bad_requests_are_answered_as_by_nomad(tmp_path: Path, shape: dict[str, Any]) -> None:
    async with running(tmp_path) as (_, client):
        method, path = shape["request"].split(" ", 1)
        body = shape.get("request_body")
        content = body.encode() if isinstance(body, str) else None
        answer = await client.request(method, path, content=content, json=body if isinstance(body, dict) else None)
        assert answer.status_code == shape["status"]
        if isinstance(shape["body"], dict):
            assert set(answer.json()) == set(shape["body"])
        elif "filter" not in path:
            assert answer.text == shape["body"]


@pytest.mark.parametrize(
    "case", ["no-taskgroups", "no-id", "unknown-driver", "bad-constraint", "wrong-json-type", "unknown-datacenter"]
)
async def test_validate_plan_and_register_agree_with_the_recording(tmp_path: Path, case: str) -> None:
    async with running(tmp_path) as (_, client):
        for told in INVALID[case]:
            method, path = told["request"].split(" ", 1)
            answer = await client.request(method, path, json={"Job": INVALID_JOBS[case]})
            assert answer.status_code == told["status"], told["request"]
            if isinstance(told["body"], str):
                assert answer.text == told["body"]
            else:
                assert set(answer.json()) == set(told["body"])
            if case == "unknown-driver" and "plan" in path:
                mine, theirs = (a["FailedTGAllocs"]["g"] for a in (answer.json(), told["body"]))
                assert {**mine, "AllocationTime": 0} == {**theirs, "AllocationTime": 0}


async def test_a_plan_says_whether_the_job_changes_and_a_job_without_deployment_has_none(tmp_path: Path) -> None:
    """What the `nomad` command needs for `job plan` and `job status`."""

    async def diff(client: httpx2.AsyncClient, **changed: Any) -> str:
        answer = await client.put("/v1/job/one/plan", json={"Job": job(ID="one", **changed), "Diff": True})
        kind: str = answer.json()["Diff"]["Type"]
        return kind

    async with running(tmp_path) as (_, client):
        new = await diff(client)
        await register(client, job(ID="one"))

        assert [new, await diff(client), await diff(client, Priority=70)] == ["Added", "None", "Edited"]
        assert (await client.get("/v1/job/one/deployment")).json() is None


async def test_enforce_index_over_http(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job(), EnforceIndex=True, JobModifyIndex=0)
        answer = await client.post("/v1/jobs", json={"Job": job(), "EnforceIndex": True, "JobModifyIndex": 0})
        assert (answer.status_code, answer.text) == (500, "Enforcing job modify index 0: job already exists")
        assert answer.headers["content-type"].startswith("text/plain")


async def test_races_have_one_winner(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        for number in range(10):
            spec, stone = job(f"race-{number}"), job(f"race-{number}", Stop=True)
            bodies = [{"Job": s, "EnforceIndex": True, "JobModifyIndex": 0} for s in (spec, stone, spec, stone)]
            answers = await asyncio.gather(*(client.post("/v1/jobs", json=body) for body in bodies))
            assert sorted(a.status_code for a in answers) == [200, 500, 500, 500]


async def test_lists_are_paged(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        for number in range(5):
            await register(client, job(f"j{number}", Meta={"n": str(number)}))
        seen, token = [], ""
        while True:
            answer = await client.get("/v1/jobs", params={"per_page": 2, **({"next_token": token} if token else {})})
            seen += [row["ID"] for row in answer.json()]
            token = answer.headers.get("x-nomad-nexttoken", "")
            if not token:
                break
            assert token.startswith("default.j")
        assert seen == [f"j{n}" for n in range(5)]
        assert [r["ID"] for r in (await client.get("/v1/jobs", params={"filter": 'Meta.n == "3"'})).json()] == ["j3"]
        assert [r["ID"] for r in (await client.get("/v1/jobs", params={"prefix": "j4", "meta": "true"})).json()] == [
            "j4"
        ]
        first = (await client.get("/v1/allocations", params={"per_page": 1})).headers["x-nomad-nexttoken"]
        rest = (await client.get("/v1/allocations", params={"next_token": first})).json()
        assert len(rest) == 4
        backwards = (await client.get("/v1/evaluations", params={"reverse": "true"})).json()
        assert [e["JobID"] for e in backwards] == [f"j{n}" for n in (4, 3, 2, 1, 0)]


async def test_headers_of_a_read(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        done = await register(client, job())
        headers = (await client.get("/v1/jobs")).headers
        assert int(headers["x-nomad-index"]) >= done["Index"]
        assert (headers["x-nomad-knownleader"], headers["x-nomad-lastcontact"]) == ("true", "0")


async def test_a_blocking_query_wakes_for_its_own_job_only(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job("mine", config={"run_for": "60s"}))
        await register(client, job("other", config={"run_for": "60s"}))
        await until_alloc(client, "mine", "running")
        await until_alloc(client, "other", "running")
        index = (await client.get("/v1/job/mine")).headers["x-nomad-index"]
        waiting = asyncio.create_task(client.get("/v1/job/mine", params={"index": index, "wait": "20s"}))
        await client.delete("/v1/job/other")
        await until_alloc(client, "other", "complete")
        assert not waiting.done()
        await client.delete("/v1/job/mine")
        assert (await asyncio.wait_for(waiting, 5)).json()["Stop"] is True


async def test_a_blocking_query_ends_with_its_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        answer = await asyncio.wait_for(client.get("/v1/jobs", params={"index": 9999, "wait": "50ms"}), 5)
        assert answer.json() == []


async def test_ids_with_slashes(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job("a/b"))
        assert (await client.get("/v1/job/a%2Fb")).json()["ID"] == "a/b"
        assert len((await client.get("/v1/job/a%2Fb/evaluations")).json()) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/agent/self", 200), ("/v1/agent/health", 200), ("/v1/status/leader", 200), ("/v1/regions", 200),
        ("/v1/namespaces", 200), ("/v1/namespace/default", 200), ("/v1/namespace/no", 404), ("/v1/acl/token/self", 200),
        ("/v1/nodes?resources=true&os=true", 200), ("/v1/jobs/statuses?namespace=*", 200), ("/v1/deployments", 200),
        ("/v1/node/pools", 200), ("/v1/client/stats", 200), ("/v1/volumes", 404),
        (f"/v1/client/allocation/{NO_ONE}/stats", 404),
    ],
)  # fmt: skip
async def test_what_there_is_and_is_not(tmp_path: Path, path: str, status: int) -> None:
    async with running(tmp_path) as (_, client):
        assert (await client.get(path)).status_code == status


@pytest.mark.parametrize(
    ("token", "own", "jobs"),
    [
        (None, (200, "anonymous"), 403),
        ("garbage", (500, "failed to parse signed token"), 403),
        (NO_ONE, (403, "Permission denied"), 403),
        ("right", (200, "Embedded management token"), 200),
    ],
)
async def test_tokens(tmp_path: Path, token: str | None, own: tuple[int, str], jobs: int) -> None:
    async with running(tmp_path, token="right") as (agent, _):
        headers = {"X-Nomad-Token": token} if token else {}
        async with httpx2.AsyncClient(base_url=agent.address, headers=headers) as client:
            answer = await client.get("/v1/acl/token/self")
            assert (answer.status_code, own[1] in answer.text) == (own[0], True)
            assert (await client.get("/v1/jobs")).status_code == jobs
            assert (await client.get("/v1/status/leader")).status_code == 200
            assert (await client.get("/serai/fault")).status_code == jobs


async def test_logs_in_frames_and_plain(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("echo hello; echo there >&2"))
        alloc = await until_alloc(client, "job-1", "complete")
        path = f"/v1/client/fs/logs/{alloc['ID']}"
        framed = (await client.get(path, params={"task": "main", "type": "stdout"})).json()
        assert framed == {
            "Data": base64.b64encode(b"hello\n").decode(),
            "File": "alloc/logs/main.stdout.0",
            "Offset": 6,
        }

        async def plain(**more: str) -> str:
            return (await client.get(path, params={"task": "main", "type": "stdout", "plain": "true", **more})).text

        assert await plain() == "hello\n"
        assert await plain(type="stderr") == "there\n"
        assert await plain(offset="2") == "llo\n"
        assert await plain(origin="end", offset="3") == "lo\n"
        assert await plain(origin="end", offset="0") == "hello\n", "offset 0 from the end is everything"
        assert await plain(origin="end", offset="999") == "hello\n"
        assert await plain(offset="999") == ""


async def test_following_logs_beats_and_brings_what_comes(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("while [ ! -e go ]; do sleep 0.02; done; echo late; sleep 60"))
        alloc = await until_alloc(client, "job-1", "running")
        path = f"/v1/client/fs/logs/{alloc['ID']}?task=main&type=stdout&follow=true"
        async with client.stream("GET", path) as answer:
            chunks = answer.aiter_bytes()
            assert await asyncio.wait_for(anext(chunks), 5) == b"{}"
            (tmp_path / "alloc" / alloc["ID"] / "main" / "go").touch()
            async with asyncio.timeout(20):
                async for chunk in chunks:
                    if b"Data" in chunk:
                        break


@pytest.mark.parametrize("query", ["", "&plain=true"], ids=["frames", "plain"])
async def test_an_agent_that_stops_ends_followed_logs_without_a_complaint(
    tmp_path: Path, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as (agent, client):
        await register(client, raw("echo begun; sleep 60"))
        alloc = await until_alloc(client, "job-1", "running")
        path = f"/v1/client/fs/logs/{alloc['ID']}?task=main&type=stdout&follow=true{query}"
        async with client.stream("GET", path) as answer:
            chunks = answer.aiter_bytes()
            async with asyncio.timeout(20):
                await anext(chunks)
                stopping = asyncio.create_task(agent.stop())
                with contextlib.suppress(httpx2.TransportError):
                    async for _ in chunks:
                        continue
                await stopping
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("task=nope&type=stdout", 400, 'unknown task name "nope"'),
        ("task=main&type=xx", 400, "must provide log type (stdout/stderr)"),
        ("type=stdout", 400, "must provide task name"),
        ("task=main&type=stdout&origin=mid", 400, "origin must be start or end"),
        (
            "task=main&type=stdout&offset=abc",
            400,
            'error parsing offset: strconv.ParseInt: parsing "abc": invalid syntax',
        ),
    ],
)
async def test_errors_of_logs(tmp_path: Path, query: str, status: int, text: str) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job())
        alloc = await until_alloc(client, "job-1", "complete")
        answer = await client.get(f"/v1/client/fs/logs/{alloc['ID']}?{query}")
        assert (answer.status_code, answer.text) == (status, text)
        answer = await client.get(f"/v1/client/fs/logs/{NO_ONE}?task=main&type=stdout")
        assert (answer.status_code, answer.text) == (404, f'Unknown allocation "{NO_ONE}"')


async def test_files_of_an_allocation(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("mkdir out; echo 42 > out/answer; ln -s /etc/passwd out/leak; echo x > secrets/s"))
        alloc = await until_alloc(client, "job-1", "complete")

        async def fs(action: str, path: str, **more: str) -> httpx2.Response:
            return await client.get(f"/v1/client/fs/{action}/{alloc['ID']}", params={"path": path, **more})

        assert [row["Name"] for row in (await fs("ls", "/")).json()] == ["alloc", "main"]
        assert (await fs("stat", "main/out/answer")).json()["Size"] == 3
        assert (await fs("cat", "main/out/answer")).text == "42\n"
        assert (await fs("readat", "main/out/answer", offset="1", limit="1")).text == "2"
        answer = await fs("cat", "main/out/leak")
        assert (answer.status_code, answer.text) == (200, "Path escapes the alloc directory")
        assert (await fs("ls", "../..")).status_code == 500
        assert (await fs("stat", "main/none")).status_code == 404
        assert "prohibited" in (await fs("cat", "main/secrets/s")).text


async def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client), asyncio.timeout(20):
        await register(client, raw("mkfifo out"))
        alloc = await until_alloc(client, "job-1", "complete")
        for action in ("stat", "cat", "readat"):
            answer = await client.get(f"/v1/client/fs/{action}/{alloc['ID']}", params={"path": "main/out"})
            assert "no plain file" in answer.text


async def test_usage_of_a_running_task(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("sleep 60"))
        alloc = await until_alloc(client, "job-1", "running")
        await until(client, f"/v1/client/allocation/{alloc['ID']}/stats", lambda stats: _rss(stats) > 0)


def _rss(stats: dict[str, Any]) -> int:
    """Of a process that has just begun the kernel may still say 0."""
    return int(stats["Tasks"]["main"]["ResourceUsage"]["MemoryStats"]["RSS"])


async def test_jobs_statuses_for_a_known_set(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job("here"))
        body = {"jobs": [{"id": "here", "namespace": "default"}, {"id": "gone", "namespace": "default"}]}
        rows = (await client.post("/v1/jobs/statuses", json=body)).json()
        assert [(row["ID"], len(row["Allocs"])) for row in rows] == [("here", 1)]


async def test_namespaces_are_apart(tmp_path: Path) -> None:
    async with running(tmp_path, namespaces=("default", "vo-a")) as (_, client):
        await register(client, job(Namespace="vo-a"))
        assert (await client.get("/v1/jobs")).json() == []
        assert (await client.get("/v1/job/job-1")).status_code == 404
        assert (await client.get("/v1/job/job-1?namespace=vo-a")).status_code == 200
        assert len((await client.get("/v1/jobs?namespace=*")).json()) == 1


async def test_only_loopback(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="not a loopback address"):
        EmbeddedAgent(AgentSettings(name="a", region="a", data_dir=tmp_path, host="0.0.0.0"))


async def test_a_taken_port_is_said_clearly(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as (agent, _):
        port = int(agent.address.rpartition(":")[2])
        second = EmbeddedAgent(AgentSettings(name="b", region="b", data_dir=tmp_path / "two", port=port))
        with pytest.raises(AgentError, match=f"port {port} of 127.0.0.1 is taken"):
            await second.start()
