"""What a researcher sees of jobs that meet no fault of the platform: real processes, from hand-in to end."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from services.embedded.sites import CLIMATE
from tests.scenarios.world import World, a_job, a_site, a_world, shell, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    sites = (
        a_site("prague", hardware=["x86_64"]),
        a_site("lyon", country="FR", vos=[CLIMATE], cores=1),
        a_site("bari", country="IT", gpus={"T4": 1}),
    )
    async with a_world(tmp_path_factory.mktemp("jobs"), *sites, mock=False) as up:
        yield up


async def test_a_command_takes_its_files_in_and_leaves_its_outputs(world: World) -> None:
    alice = world.alice
    job = await alice.submit(
        shell(
            "wc -w < texts/poem.txt > count.txt && echo counted && echo done >&2",
            files=[{"path": "texts/poem.txt", "content": "the inn where the caravans rest\n"}],
            outputs=[{"name": "count", "path": "count.txt"}, {"name": "never", "path": "never.txt"}],
            env={"GREETING": "hello"},
        )
    )
    done = await alice.sees(job, "succeeded")
    assert (done.exit_code, done.reason_code, done.attempt) == (0, "completed", 1)
    assert (await alice.serai.output(job, "count")).strip() == b"6"
    kept = {output["name"]: output.get("problem") for output in await alice.serai.outputs(job)}
    assert kept == {"count": None, "never": "missing"}
    assert [await _log(world, job), await _log(world, job, "stderr")] == [b"counted\n", b"done\n"]
    steps = await alice.steps(job)
    assert [step.split()[0] for step in steps if "running" not in step] == [
        "accepted", "queued", "placed", "starting", "succeeded",
    ]  # fmt: skip
    assert (await alice.attempt(job, 1))[-1] == "succeeded"


async def _log(world: World, job: str, stream: str = "stdout") -> bytes:
    return b"".join([chunk async for chunk in world.alice.serai.logs(job, stream=stream)])  # type: ignore[arg-type]


async def test_everything_done_for_a_job_is_under_one_trace(world: World) -> None:
    job = await world.alice.submit(a_job())
    await world.alice.sees(job, "succeeded")

    async def traced() -> list[str]:
        names = [span["name"] for span in (await world.alice.serai.trace(job))["spans"]]
        return names if {"POST /v1/jobs", "job.queued", "nomad.submit", "attempt starting", "job"} <= set(names) else []

    assert await until(traced)


async def test_a_job_that_fails_with_exit_code_3_is_retried_once_and_then_failed(world: World) -> None:
    alice = world.alice
    job = await alice.submit(shell("echo trying; exit 3", retries={"attempts": 1, "on": ["task_error"]}))
    failed = await alice.sees(job, "failed")
    assert (failed.exit_code, failed.attempt, failed.reason_code) == (3, 2, "task_error")
    assert await alice.reasons(job) == ["waiting_to_be_placed", "retrying", "task_error"]
    words = await alice.words(job)
    assert "The task ended with exit code 3. The job is tried again; 0 of its retries are left." in words
    assert [(await alice.attempt(job, number))[-1] for number in (1, 2)] == ["failed", "failed"]
    first = b"".join([chunk async for chunk in alice.serai.logs(job, attempt=1)])
    assert first == b"trying\n", "the log of each attempt is kept"


async def test_a_job_ended_by_a_signal_says_so(world: World) -> None:
    job = await world.alice.submit(shell("kill -KILL $$"))
    assert (await world.alice.sees(job, "failed")).reason == "The task was ended by signal 9 (exit code 137)."


async def test_a_command_that_is_not_there_fails_as_a_start_that_failed(world: World) -> None:
    job = await world.alice.submit(a_job(command=["/no/such/program"]))
    failed = await world.alice.sees(job, "failed")
    assert (failed.reason_code, failed.exit_code) == ("start_failure", None)
    last = next(event for event in await world.alice.timeline(job) if event.kind == "attempt.failed")
    assert "/no/such/program" in last.data["nomad_says"]


async def test_a_job_that_nobody_can_place_says_why_at_each_site_and_ends_not_placed_in_time(world: World) -> None:
    alice = world.alice
    wants = a_job(resources={"gpus": {"count": 1, "model": "H100"}}, max_wait="5s")
    job = await alice.submit(wants)

    async def told() -> dict[str, object]:
        why = await alice.why(job)
        return why if (why.get("reason") or {}).get("code") == "no_site_fits" else {}

    why = await until(told)
    verdicts = {verdict["site"]: verdict for verdict in why["verdicts"]}  # type: ignore[attr-defined]
    assert {site: verdict["code"] for site, verdict in verdicts.items()} == {
        "prague": "gpu_missing", "lyon": "gpu_missing", "bari": "gpu_model_missing",
    }  # fmt: skip
    assert verdicts["bari"]["message"].startswith("bari has no H100; it has ")
    failed = await alice.sees(job, "failed")
    assert (failed.reason_code, failed.attempt) == ("not_placed_in_time", 0)
    last = (await alice.timeline(job))[-1]
    assert {verdict["code"] for verdict in last.data["verdicts"]} == {"gpu_missing", "gpu_model_missing"}
    assert await alice.reasons(job) == ["waiting_to_be_placed", "no_site_fits", "not_placed_in_time"]


async def test_a_dry_run_says_where_a_job_would_go_and_keeps_nothing(world: World) -> None:
    alice = world.alice
    before = [job.id async for job in alice.serai.jobs()]
    answer = await alice.serai.dry_run(a_job(placement={"countries": {"allow": ["FR"]}}))
    assert (answer["state"], answer["summary"]) == ("not_submitted", "It would go to lyon now.")
    hopeless = await alice.serai.dry_run(a_job(vo="vo.bio.example", placement={"sites": {"allow": ["lyon"]}}))
    assert {v["site"]: v["code"] for v in hopeless["verdicts"]} == {
        "prague": "site_not_allowed", "bari": "site_not_allowed", "lyon": "vo_not_served",
    }  # fmt: skip
    assert hopeless["reason"]["code"] == "no_site_fits"
    assert [job.id async for job in alice.serai.jobs()] == before


async def test_a_service_answers_http_at_its_endpoint_until_it_is_cancelled(world: World) -> None:
    alice = world.alice
    server = (
        "import http.server, os\n"
        "port = int(os.environ['NOMAD_PORT_web'])\n"
        "http.server.HTTPServer(('127.0.0.1', port), http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    job = await alice.runs(
        a_job(kind="service", command=["python3", "-u", "serve.py"], files=[{"path": "serve.py", "content": server}],
              endpoints=[{"name": "web", "protocol": "http", "health_path": "/"}])
    )  # fmt: skip

    async def address() -> str:
        return (await alice.job(job.id)).endpoints.get("web", "")

    url = f"http://{await until(address)}/serve.py"
    async with httpx2.AsyncClient(trust_env=False) as http:

        async def content() -> str:
            try:
                return (await http.get(url)).text
            except httpx2.TransportError:
                return ""

        assert await until(content) == server
        await alice.serai.cancel(job.id)
        ended = await alice.sees(job.id, "cancelled")
        assert (ended.raw["confirmed"], ended.reason_code, ended.endpoints) == (True, "cancelled_by_user", {})
        with pytest.raises(httpx2.ConnectError):
            await http.get(url)
    assert (await alice.attempt(job.id, 1))[-2:] == ["running", "stopped"]


async def test_logs_are_live_while_it_runs_and_the_same_after_the_end(world: World) -> None:
    alice = world.alice
    job = await alice.submit(shell("echo first; while [ ! -e go ]; do sleep 0.02; done; echo last"))
    lines: list[bytes] = []
    first = asyncio.Event()

    async def follow() -> None:
        async for chunk in alice.serai.logs(job, attempt=1, follow=True):
            lines.append(chunk)
            first.set()

    following = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        await first.wait()
    await alice.sees(job, "running")
    assert b"".join(lines) == b"first\n"
    world.folder(await alice.job(job)).joinpath("go").touch()
    async with asyncio.timeout(20):
        await following
    assert b"".join(lines) == b"first\nlast\n"
    await alice.sees(job, "succeeded")
    assert await _log(world, job) == b"first\nlast\n"
    assert b"".join([chunk async for chunk in alice.serai.logs(job, tail=5)]) == b"last\n"


async def test_a_quick_job_may_skip_running_and_still_tells_every_step_once(world: World) -> None:
    jobs = [await world.alice.submit(a_job(name=f"quick-{number}")) for number in range(10)]
    for job in jobs:
        await world.alice.sees(job, "succeeded")
        steps = [step.split()[0] for step in await world.alice.steps(job)]
        assert len(steps) == len(set(steps)), steps
