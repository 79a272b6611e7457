"""Tasks at a running agent: environments, ends of all kinds, several tasks, restarts of the agent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent.drivers.executor import start_ticks
from services.embedded.agent.drivers.process import SCRIPT
from tests.pacing import pause
from tests.unit.agent.builders import job, process_end, raw, register, running, until, until_alloc


def events(alloc: dict[str, Any], task: str = "main") -> list[str]:
    return [event["Type"] for event in alloc["TaskStates"][task]["Events"]]


async def test_a_task_sees_only_what_is_meant_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("env; pwd; ls /proc/self/fd | wc -l; ps -o sid= -p $$ > sid; echo $$ > pid"))
        alloc = await until_alloc(client, "job-1", "complete")
        where = tmp_path / "alloc" / alloc["ID"] / "main"
        lines = (where.parent / "alloc" / "logs" / "main.stdout.0").read_text().splitlines()
        names = {line.split("=")[0] for line in lines if "=" in line}
        assert {name for name in names if not name.startswith("NOMAD_")} <= {
            "PATH",
            "LANG",
            "HOME",
            "PWD",
            "_",
            "OLDPWD",
            "SHLVL",
        }
        assert lines[-2:] == [str(where), "4"], (
            "cwd is the task's directory; 0, 1, 2 and the listing itself are all it has open"
        )
        assert (where / "sid").read_text().strip() == (where / "pid").read_text().strip(), "a session of its own"


async def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job(driver="raw_exec", config={"command": "/bin/echo", "args": ["$HOME; ls", "*"]}))
        alloc = await until_alloc(client, "job-1", "complete")
        log = tmp_path / "alloc" / alloc["ID"] / "alloc" / "logs" / "main.stdout.0"
        assert log.read_text() == "$HOME; ls *\n"


async def test_what_a_task_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("sleep 300 & echo $! > child"))
        alloc = await until_alloc(client, "job-1", "complete")
        child = int((tmp_path / "alloc" / alloc["ID"] / "main" / "child").read_text())
        await process_end(child)


async def test_exit_137_is_not_a_signal(tmp_path: Path) -> None:
    """A shell that passes on its child's 137 was not killed itself."""
    async with running(tmp_path) as (_, client):
        await register(client, raw("exit 137"))
        alloc = await until_alloc(client, "job-1", "failed")
        details = alloc["TaskStates"]["main"]["Events"][-2]["Details"]
        assert (details["exit_code"], details["signal"]) == ("137", "0")


async def test_an_unknown_name_in_the_config_fails_validation(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("echo ${nope}"))
        alloc = await until_alloc(client, "job-1", "failed")
        assert events(alloc) == ["Received", "Task Setup", "Failed Validation", "Not Restarting"]


async def test_template_marks_fail_the_task(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("true", task={"Templates": [{"EmbeddedTmpl": "{{ x }}", "DestPath": "local/a"}]}))
        alloc = await until_alloc(client, "job-1", "failed")
        assert "Template" in events(alloc)


async def test_one_failed_task_takes_its_siblings_along(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        spec = raw("exit 3")
        other = {**raw("sleep 300")["TaskGroups"][0]["Tasks"][0], "Name": "other"}
        spec["TaskGroups"][0]["Tasks"].append(other)
        await register(client, spec)
        await until(
            client, "/v1/job/job-1/allocations",
            lambda rows: rows and {s["State"] for s in (rows[0]["TaskStates"] or {}).values()} == {"dead"},
        )  # fmt: skip
        alloc = await until_alloc(client, "job-1", "failed")
        assert "Sibling Task Failed" in events(alloc, "other")
        assert not alloc["TaskStates"]["other"]["Failed"]


async def test_prestart_comes_first_and_its_failure_stops_the_rest(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        for name, code, status in (("good", 0, "complete"), ("bad", 2, "failed")):
            spec = raw("cat $NOMAD_ALLOC_DIR/data/made", name)
            first = {**raw(f"echo ready > $NOMAD_ALLOC_DIR/data/made; exit {code}")["TaskGroups"][0]["Tasks"][0]}
            spec["TaskGroups"][0]["Tasks"].append({**first, "Name": "init", "Lifecycle": {"Hook": "prestart"}})
            await register(client, spec)
            alloc = await until_alloc(client, name, status)
            log = tmp_path / "alloc" / alloc["ID"] / "alloc" / "logs" / "main.stdout.0"
            assert log.exists() is (name == "good")


async def test_restarts_follow_the_policy(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        policy = {"RestartPolicy": {"Attempts": 2, "Interval": 10**12, "Delay": 10**7, "Mode": "fail"}}
        await register(client, job(config={"run_for": "0s", "exit_code": 1}, group=policy))
        alloc = await until_alloc(client, "job-1", "failed")
        assert alloc["TaskStates"]["main"]["Restarts"] == 2
        assert len(alloc["TaskStates"]["main"]["Events"]) == 10, "the ring holds the last ten"
        assert alloc["TaskStates"]["main"]["Events"][-1]["DisplayMessage"].startswith("Exceeded allowed attempts 2")


async def test_mock_start_error(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job(config={"start_error": "boom"}))
        alloc = await until_alloc(client, "job-1", "failed")
        assert events(alloc) == ["Received", "Task Setup", "Driver Failure", "Not Restarting"]


async def test_mock_output_and_kill(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, job(config={"run_for": "60s", "exit_code": 7, "stdout_string": "hi"}))
        alloc = await until_alloc(client, "job-1", "running")
        await client.delete("/v1/job/job-1")
        alloc = await until_alloc(client, "job-1", "complete")
        assert alloc["TaskStates"]["main"]["Events"][-2]["Details"]["exit_code"] == "7"
        logs = await client.get(f"/v1/client/fs/logs/{alloc['ID']}?task=main&type=stdout&plain=true")
        assert logs.text == "hi"


async def test_two_services_get_different_ports(tmp_path: Path) -> None:
    async with running(tmp_path, min_dynamic_port=25000, max_dynamic_port=25100) as (_, client):
        ports = {"Networks": [{"DynamicPorts": [{"Label": "http"}]}]}
        values = []
        for name in ("one", "two"):
            await register(client, raw("echo $NOMAD_PORT_http", name, group=ports))
            alloc = await until_alloc(client, name, "complete", "running")
            row = (await client.get(f"/v1/allocation/{alloc['ID']}")).json()
            values.append(row["AllocatedResources"]["Shared"]["Ports"][0]["Value"])
        assert values[0] != values[1]
        assert all(25000 <= value <= 25100 for value in values)


async def test_collected_directories_are_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, client):
        await register(client, raw("true"))
        alloc = await until_alloc(client, "job-1", "complete")
        assert (tmp_path / "alloc" / alloc["ID"]).is_dir()
        await client.put("/v1/system/gc")
        await agent.idle()
        assert not (tmp_path / "alloc" / alloc["ID"]).exists()


async def test_mock_tasks_go_on_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, client):
        await register(client, job("long", config={"run_for": "60s"}))
        await register(client, job("short", config={"run_for": "300ms", "exit_code": 3}))
        await until_alloc(client, "long", "running")
        await until_alloc(client, "short", "running")
        await agent.stop()
    async with running(tmp_path) as (_, client):
        assert (await until_alloc(client, "short", "failed"))["TaskStates"]["main"]["Failed"]
        assert (await until_alloc(client, "long", "running"))["ClientStatus"] == "running"


async def test_a_task_whose_executor_died_is_watched_and_its_end_is_said_to_be_unknown(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await register(client, raw("while [ ! -e go ]; do sleep 0.02; done; exit 0"))
        alloc = await until_alloc(client, "job-1", "running")
        task = json.loads(next((tmp_path / "run").glob("*.pid")).read_text())["pid"]
        os.kill(_parent(task), signal.SIGKILL)
        (tmp_path / "alloc" / alloc["ID"] / "main" / "go").touch()
        alloc = await until_alloc(client, "job-1", "failed")
        ended = next(e for e in alloc["TaskStates"]["main"]["Events"] if e["Type"] == "Terminated")
        assert "no exit code" in ended["Details"]["exit_message"]
        # The next task gets an executor of its own.
        await register(client, raw("exit 0", "job-2"))
        await until_alloc(client, "job-2", "complete")


async def test_an_end_that_the_executor_has_yet_to_note_is_waited_for_after_a_restart(tmp_path: Path) -> None:
    """It ended while the agent was away, on a machine so busy that its executor has not come to see it yet."""
    async with running(tmp_path) as (agent, client):
        await register(client, raw("while [ ! -e go ]; do sleep 0.02; done; exit 4"))
        alloc = await until_alloc(client, "job-1", "running")
        task = json.loads(next((tmp_path / "run").glob("*.pid")).read_text())
        await agent.stop()
    executor = _parent(task["pid"])
    os.kill(executor, signal.SIGSTOP)
    try:
        (tmp_path / "alloc" / alloc["ID"] / "main" / "go").touch()
        async with asyncio.timeout(20):
            while start_ticks(task["pid"]) == task["start"]:
                await pause(0.02)
        async with running(tmp_path) as (_, client):
            await pause(0.3)  # it has looked by then
            os.kill(executor, signal.SIGCONT)
            alloc = await until_alloc(client, "job-1", "failed")
    finally:
        os.kill(executor, signal.SIGCONT)
    ended = next(e for e in alloc["TaskStates"]["main"]["Events"] if e["Type"] == "Terminated")
    assert ended["ExitCode"] == 4, ended


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_several_agents_share_one_loop(tmp_path: Path) -> None:
    async def one(name: str) -> str:
        async with running(tmp_path / name, name=name, region=name) as (_, client):
            await register(client, raw(f"echo {name}"))
            alloc = await until_alloc(client, "job-1", "complete")
            return str(alloc["NodeName"])

    assert await asyncio.gather(*(one(f"site-{letter}") for letter in "abc")) == ["site-a", "site-b", "site-c"]


async def test_the_note_of_an_end_stays_until_the_end_is_in_the_journal(tmp_path: Path) -> None:
    """An agent killed in between would find neither, and would run the task a second time."""
    notes, journal = tmp_path / "run", tmp_path / "state" / "journal-0.ndjson"
    async with running(tmp_path) as (_, client):
        for number in range(20):
            await register(client, raw("true", f"job-{number}"))
            async with asyncio.timeout(20):
                while not list(notes.glob("*.exit")):
                    await asyncio.sleep(0)
                while list(notes.glob("*.exit")):
                    await asyncio.sleep(0)
            assert journal.read_text().count('"All tasks have completed"') >= number + 1


LEAVES = """
import socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import executor
leaving = executor.Executor(Path(sys.argv[2]))
agent = socket.socket(socket.AF_UNIX)
if sys.argv[3] == "comes":
    agent.connect("executor.sock")
print(leaving.may_leave(), Path("executor.sock").exists())
"""


@pytest.mark.parametrize(("agent", "leaves"), [("comes", "False"), ("stays away", "True")])
def test_an_executor_does_not_leave_an_agent_that_has_just_connected(agent: str, leaves: str, tmp_path: Path) -> None:
    """Its order to start a task would be lost, and the task would fail for nothing."""
    words = [sys.executable, "-c", LEAVES, str(SCRIPT.parent), str(tmp_path), agent]
    said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
    assert said.split() == [leaves, "False"], "either way nobody finds its address any more"
