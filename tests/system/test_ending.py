"""How the platform ends: promptly, in order, without a traceback, whatever is open; and goes on when started again."""

import asyncio
import json
import signal
from pathlib import Path

import httpx2
import pytest

from tests.system.processes import Up, gone, line_with, running_in, started, up

PROMPTLY_S = 3.0
"""The promise; a server that waits for open streams takes more than five seconds."""

COUNTING = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
SERVICE = """
name: web
vo: vo.climate.example
kind: service
command: [sleep, "60"]
"""


async def signed_in(platform: Up) -> None:
    answer = await platform.serai("login", "--user", "alice")
    assert answer.code == 0, answer.told


async def a_running_job(platform: Up) -> str:
    """The id of a job that prints 1, 2, 3, ... and runs."""
    answer = await platform.serai("run", "-d", "--vo", "vo.climate.example", "--", "sh", "-c", COUNTING)
    job_id = answer.out.strip()
    async with platform.follow("events", "-f", job_id) as listening:
        await line_with(listening.stdout, "job.running")
    return job_id


async def a_long_poll(platform: Up, job_id: str, asked: asyncio.Event) -> int:
    """Ask for the next change of a job, which does not come; the status of the answer."""
    kept = json.loads((platform.folder / "config" / "tokens.json").read_text())[platform.gateway]
    url, token = f"{platform.gateway}/v1/jobs/{job_id}", {"Authorization": f"Bearer {kept['token']}"}
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        etag = (await http.get(url, headers=token)).headers["etag"]
        asked.set()
        return (await http.get(url, headers={**token, "Prefer": "wait=30", "If-None-Match": etag})).status_code


async def test_ctrl_c_ends_it_promptly_while_streams_logs_and_long_polls_are_open(folder: Path) -> None:
    async with up(folder) as platform:
        await signed_in(platform)
        job_id, asked = await a_running_job(platform), asyncio.Event()
        async with platform.follow("events", "-f") as events, platform.follow("logs", "-f", job_id) as logs:
            await line_with(logs.stdout, "3")
            poll = asyncio.create_task(a_long_poll(platform, job_id, asked))
            await asked.wait()
            assert (await platform.serai("job", job_id)).code == 0  # meanwhile the long poll has arrived
            ended = await platform.stop(deadline_s=PROMPTLY_S)
            assert (ended.code, ended.err) == (0, ""), ended.told
            assert await poll == 304
            assert events.returncode is None and logs.returncode is None  # they try again for a while


async def test_started_again_it_goes_on_with_a_running_job_and_whoever_follows_its_log(folder: Path) -> None:
    async with up(folder) as platform:
        await signed_in(platform)
        job_id = await a_running_job(platform)
        async with platform.follow("logs", "-f", job_id) as logs:
            assert await line_with(logs.stdout, "1") == "1\n"
            assert (await platform.stop(signal.SIGTERM)).code == 0
            async with up(folder, port=int(platform.gateway.rpartition(":")[2])) as again:
                assert again.first == platform.first
                await line_with(logs.stderr, "is away; trying again")
                job = json.loads((await again.serai("job", job_id, "-o", "json")).out)
                assert (job["state"], job["attempt"]) == ("running", 1)
                assert (await again.serai("cancel", "--wait", job_id)).code == 0
                async with asyncio.timeout(15):
                    rest, _ = await logs.communicate()
                numbers = [int(line) for line in rest.decode().split()]
                assert len(numbers) > 3
                assert numbers == list(range(2, len(numbers) + 2)), "each line once and in order, over the restart"
                assert (await again.stop()).code == 0


async def test_ctrl_c_twice_is_as_good_as_once(folder: Path) -> None:
    async with up(folder) as platform:
        platform.process.send_signal(signal.SIGINT)
        ended = await platform.stop(signal.SIGINT)
        assert ended.code == 0 and "Traceback" not in ended.err


async def test_ctrl_c_while_it_starts_ends_it_with_a_word(folder: Path) -> None:
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", "18080")
    async with started(*words, folder=folder) as process, asyncio.timeout(20):
        while not await asyncio.to_thread(lambda: list((folder / "data").glob("sites/*"))):
            assert process.returncode is None, "it ended before its first agent started"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (130, ""), err.decode()
    assert err.decode() == "Stopped before it was ready.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_broken_off_leaves_no_task_behind(folder: Path, number: signal.Signals) -> None:
    (folder / "examples" / "web").mkdir(parents=True)
    (folder / "examples" / "web" / "job.yaml").write_text(SERVICE)
    (folder / "examples" / "web" / "expected.yaml").write_text("user: alice\nstate: succeeded\n")
    words = ("--examples", str(folder / "examples"), "--keep", str(folder / "kept"), "--port", "18080")
    async with started("serai-platform", "run", *words, folder=folder) as process, asyncio.timeout(30):
        await line_with(process.stdout, "web: running")
        assert running_in(folder)
        process.send_signal(number)
        _, err = await process.communicate()
    assert process.returncode == 128 + number
    assert "Stopped before all examples had ended" in err.decode() and "Traceback" not in err.decode()
    async with asyncio.timeout(10):
        for pid in running_in(folder):  # the process that started the tasks goes a moment after the last of them
            await gone(pid)
    assert running_in(folder) == []
