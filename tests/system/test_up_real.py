"""`serai-platform up-real` and `run-real`: the platform on real parts, each service a process of its own.

One platform for the tests that only look at it; they are in the order of its life.
"""

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio

from tests import pacing
from tests.system.processes import CHECKOUT, Up, first_line, gone, run, started
from tests.system.real.marks import REAL

pytestmark = [mark for mark in REAL if mark.name not in ("asyncio", "crash")] + [
    pytest.mark.asyncio(loop_scope="module")
]

START_S: Final = 120.0
STOP_S: Final = 60.0
LEAVES_S: Final = 10.0
TAKEN_PORT: Final = 18_180
OPTIONS: Final = ("--nomad", "embedded", "--log-level", "warning")
SERVICES: Final = ("auth", "scheduler", "monitor", "gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    """A platform on real parts that found its port taken."""
    folder = tmp_path_factory.mktemp("up-real")
    words = ("serai-platform", "up-real", "--data", str(folder / "data"), "--port", str(TAKEN_PORT), *OPTIONS)
    with socket.create_server(("127.0.0.1", TAKEN_PORT)):
        async with started(*words, folder=folder) as process:
            yield Up(process, folder, await first_line(process, START_S))


async def test_the_first_line_tells_programs_where_everything_is_and_everything_answers(platform: Up) -> None:
    first = platform.first
    assert set(first) == {"gateway", "issuer", "sites", "users", "services", "parts", "processes", "folder"}
    assert list(first["services"]) == list(SERVICES)
    assert set(first["processes"]) == {f"{service}-1" for service in SERVICES}
    assert set(first["parts"]) == {"database", "rabbitmq", "consul dc1", "consul dc2"}
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        for (address,) in first["services"].values():
            assert (await http.get(f"{address}/readyz")).status_code == 200
        for site, address in first["sites"].items():
            assert (await http.get(f"{address}/v1/agent/self")).json()["config"]["Region"] == site
        for datacenter in ("dc1", "dc2"):
            leader = await http.get(f"{first['parts'][f'consul {datacenter}']}/v1/status/leader")
            assert leader.json()


async def test_a_port_that_is_taken_is_left_to_its_owner(platform: Up) -> None:
    assert TAKEN_PORT < int(platform.gateway.rpartition(":")[2]) < TAKEN_PORT + 100


async def test_a_job_runs_on_it(platform: Up) -> None:
    assert (await platform.serai("login", "--user", "alice")).code == 0
    job = await platform.serai("run", "--vo", "vo.climate.example", "--", "echo", "hello", deadline_s=60)
    assert (job.code, job.out.strip().splitlines()[-1:]) == (0, ["hello"]), job.told


async def test_a_second_platform_on_its_folder_is_refused_and_the_first_one_goes_on(platform: Up) -> None:
    second = await run("serai-platform", "up-real", "--data", str(platform.folder / "data"), folder=platform.folder)
    assert (second.code, second.out) == (78, "")
    assert "--data FOLDER" in second.err
    assert platform.process.returncode is None


async def test_a_service_that_is_killed_is_started_again(platform: Up) -> None:
    os.kill(platform.first["processes"]["scheduler-1"], signal.SIGKILL)
    job = await platform.serai("run", "--vo", "vo.climate.example", "--", "echo", "again", deadline_s=60)
    assert (job.code, job.out.strip().splitlines()[-1:]) == (0, ["again"]), job.told


async def test_ctrl_c_ends_everything_and_leaves_nothing_but_logs(platform: Up) -> None:
    asked = await platform.serai("run", "-d", "--vo", "vo.climate.example", "--", "sleep", "600")
    assert asked.code == 0, asked.told
    ended = await platform.stop(deadline_s=STOP_S)
    assert ended.code == 0, ended.told
    assert "Stopping ..." in ended.out and "Stopped." in ended.out
    for pid in platform.first["processes"].values():
        await gone(pid)
    assert [place for place in places(platform.first) if listens(place)] == []
    await nothing_runs_for(platform.folder / "data")
    data = platform.folder / "data"
    assert sorted(each.name for each in data.iterdir()) == ["logs", "platform.json"]
    assert sorted(each.name for each in (data / "logs").iterdir()) == sorted(f"{each}-1.log" for each in SERVICES)


async def test_a_folder_that_was_used_is_refused_with_words(platform: Up) -> None:
    again = await run("serai-platform", "up-real", "--data", str(platform.folder / "data"), folder=platform.folder)
    assert (again.code, again.out) == (78, "")
    assert "was used before" in again.err and "--data FOLDER" in again.err


async def test_ctrl_c_before_it_is_ready_leaves_nothing_either(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with started("serai-platform", "up-real", "--data", str(data), *OPTIONS, folder=tmp_path) as process:
        while not (data / "rabbitmq").exists():  # PostgreSQL runs by then, and RabbitMQ starts
            await pacing.pause(0.05)
        ended = await Up(process, tmp_path, {}).stop(deadline_s=STOP_S)
    assert ended.code == 130 and ended.out == ""
    assert "Stopped before it was ready." in ended.err
    await nothing_runs_for(data)
    assert [each.name for each in data.iterdir() if each.name != "logs"] == ["platform.json"]


async def test_run_real_runs_the_examples_as_expected(tmp_path: Path) -> None:
    options = ("--examples", str(CHECKOUT / "examples"), "--data", str(tmp_path / "data"), *OPTIONS)
    ended = await run("serai-platform", "run-real", *options, folder=tmp_path, where=tmp_path, deadline_s=240)
    assert ended.code == 0, ended.told
    assert "All 5 examples ended as expected" in ended.told, ended.told
    await nothing_runs_for(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--copies", "0"), 2, "copies"),
        (("--copies", "9"), 2, "copies"),
        (("--port", "99999"), 2, "port"),
        (("--log-level", "loud"), 2, "choose debug, info, warning or error"),
        (("--nomad", "/nowhere/nomad"), 78, "/nowhere/nomad"),
        (("--data", "/proc/serai"), 78, "--data FOLDER"),
        (("--colour",), 2, "--colour"),
    ],
)
async def test_wrong_options_are_named_and_nothing_is_started(
    tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    data = () if "--data" in words else ("--data", str(tmp_path / "data"))
    ended = await run("serai-platform", "up-real", *data, *words, folder=tmp_path, where=tmp_path)
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.told
    assert told in ended.told
    await nothing_runs_for(tmp_path)


async def test_examples_that_are_not_there_are_missed_before_anything_is_started(tmp_path: Path) -> None:
    ended = await run("serai-platform", "run-real", "--examples", "nowhere", folder=tmp_path, where=tmp_path)
    assert ended.code == 78 and "nowhere" in ended.err, ended.told
    await nothing_runs_for(tmp_path)


def places(first: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """Every address that the first line tells, as host and port."""
    urls = [first["issuer"], *first["sites"].values(), *(url for urls in first["services"].values() for url in urls)]
    urls += [address for name, address in first["parts"].items() if name != "database"]
    urls.append("postgresql://" + first["parts"]["database"].partition(" ")[0])
    for url in urls:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def listens(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=2).close()
    except OSError:
        return False
    return True


async def nothing_runs_for(folder: Path) -> None:
    """Whatever was started for a folder has ended; a site's executor does so by itself, soon after its last task."""
    for _ in range(round(LEAVES_S / 0.1)):
        if not named_in(folder):
            return
        await pacing.pause(0.1)
    assert named_in(folder) == []


def named_in(folder: Path) -> list[str]:
    """Processes whose command line or environment names a folder: whatever was started for it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if str(folder).encode() in told:
            found.append(f"{entry.name}: {told[:200]!r}")
    return found
