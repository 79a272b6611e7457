"""Programs that run as jobs tell of themselves; elsewhere, and whatever goes wrong, nothing happens."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serai import grids, inside
from serai.values import Event, Job

pytestmark = pytest.mark.fast


class Gateway(http.server.ThreadingHTTPServer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.told: list[tuple[str, str, Any]] = []
        self.status = 202

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    yield server
    server.shutdown()
    server.server_close()
    serving.join()


def a_job(gateway: Gateway, folder: Path, token: str = "first") -> dict[str, str]:
    file = folder / "nomad_serai.jwt"
    file.write_text(token)
    return {"SERAI_URL": gateway.url, "SERAI_JOB_ID": "j1", "SERAI_TOKEN_FILE": str(file)}


def test_a_report_goes_to_the_jobs_own_route_with_its_newest_token(gateway: Gateway, tmp_path: Path) -> None:
    environment = a_job(gateway, tmp_path)
    assert inside.report(0.5, "half way", environment=environment, loss=0.25, epoch=3)
    (tmp_path / "nomad_serai.jwt").write_text("renewed")
    assert inside.report(environment=environment)
    half = {"fraction": 0.5, "message": "half way", "results": {"loss": 0.25, "epoch": 3}}
    nothing = {"fraction": None, "message": "", "results": {}}
    assert gateway.told == [
        ("/v1/jobs/j1/progress", "Bearer first", half), ("/v1/jobs/j1/progress", "Bearer renewed", nothing),
    ]  # fmt: skip


@pytest.mark.parametrize("missing", ["SERAI_URL", "SERAI_JOB_ID", "SERAI_TOKEN_FILE"])
def test_outside_of_a_job_nothing_happens(gateway: Gateway, tmp_path: Path, missing: str) -> None:
    environment = a_job(gateway, tmp_path)
    del environment[missing]
    assert not inside.report(0.5, environment=environment)
    assert gateway.told == []


def test_whatever_goes_wrong_the_run_goes_on(gateway: Gateway, tmp_path: Path) -> None:
    environment = a_job(gateway, tmp_path)
    gateway.status = 429
    assert not inside.report(0.5, environment=environment)
    for broken in ({"SERAI_URL": "http://127.0.0.1:9"}, {"SERAI_URL": "nonsense"}, {"SERAI_TOKEN_FILE": "/nowhere"}):
        assert not inside.report(0.5, environment=environment | broken)


@pytest.mark.parametrize(("told", "words"), [
    (None, ""), ({"fraction": 0.5, "message": "half way", "results": {"loss": 0.25}}, "50 %, half way, loss 0.25"),
    ({"fraction": 0}, "0 %"), ({"message": "loading"}, "loading"), ({"results": {"best": True}}, "best True"),
    ({"message": "\x1b[2J"}, "\ufffd[2J"),
])  # fmt: skip
def test_what_a_job_told_is_shown_in_a_line(told: Any, words: str) -> None:
    assert grids.progress(Job.of({"id": "1", "state": "running", "progress": told})) == words


def test_a_timeline_shows_what_the_job_told() -> None:
    told = {"fraction": 0.9, "message": "step 8100 of 9000", "results": {"loss": 0.1128}}
    event = Event.of({"id": "1", "type": "eu.serai.job.progress.v1", "time": "2026-11-26T14:25:06Z", "data": told})
    assert grids.timeline_grid([event]).rows[0][-1] == "90 %, step 8100 of 9000, loss 0.1128"
