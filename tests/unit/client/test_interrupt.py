"""Ctrl-C, in a real process against a real socket."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from tests.unit.client.fake_gateway import TOKEN, FakeGateway, job_id, look

DEADLINE_S = 60.0
CLIENT = Path(__file__).parents[3] / "client"


class Patient(FakeGateway):
    """Holds the second look at a job back until the asker goes away, and says when it was asked for."""

    asked_twice: threading.Event

    async def job(self, request: Request) -> Response:
        if request.headers.get("prefer"):
            self.asked_twice.set()
            await request.receive()
        return await super().job(request)


@pytest.fixture
def gateway() -> Iterator[tuple[Patient, str]]:
    fake = Patient(jobs={1: [look(1, "running", site="lyon", name="sleep")]})
    fake.asked_twice = threading.Event()
    server = uvicorn.Server(uvicorn.Config(fake.app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    yield fake, f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("command", [["wait", job_id(1)], ["run", "--", "sleep", "60"]])
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_go_on(
    gateway: tuple[Patient, str], tmp_path: Path, command: list[str]
) -> None:
    fake, url = gateway
    environment = {**os.environ, "SERAI_URL": url, "SERAI_TOKEN": TOKEN, "SERAI_CONFIG_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(CLIENT)
    process = subprocess.Popen(
        [sys.executable, "-m", "serai", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert fake.asked_twice.wait(DEADLINE_S)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, b"")
    assert b"detached; still going on" in err and b"serai wait 00000001" in err
    assert b"Traceback" not in err
    assert fake.paths("DELETE") == []


def test_output_that_nobody_wants_any_more_is_no_error(gateway: tuple[Patient, str], tmp_path: Path) -> None:
    fake, url = gateway
    fake.jobs = {number: [look(number)] for number in range(1, 3000)}
    fake.page = 100
    environment = {**os.environ, "SERAI_URL": url, "SERAI_TOKEN": TOKEN, "SERAI_CONFIG_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(CLIENT)
    line = f"{sys.executable} -m serai jobs --limit 2500 -o json | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, b"")
