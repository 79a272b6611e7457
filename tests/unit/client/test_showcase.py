"""The runner of the examples: 0 only if each ended as its expected.yaml says."""

import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from serai import showcase
from tests.unit.client.builders import URL
from tests.unit.client.fake_gateway import TOKEN, VO, FakeGateway, event, frames, job_id, look, problem, sse

pytestmark = pytest.mark.fast
QUEUED, RUNNING = event(1, "job.queued"), event(2, "job.running", site="lyon")


def an_example(folder: Path, name: str, expected: str) -> None:
    (folder / name).mkdir()
    (folder / name / "job.yaml").write_text(f"name: {name}\nvo: {VO}\ncommand: [x]\n")
    (folder / name / "expected.yaml").write_text(expected)


async def shown(
    gateway: FakeGateway, folder: Path, deadline_s: float = 10, terminal: bool = False, keep: Path | None = None
) -> tuple[int, str]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    transport = httpx2.ASGITransport(gateway.app)
    code = await showcase.run_examples(
        URL, {"alice": TOKEN}, folder, deadline_s=deadline_s, console=console, transport=transport, keep=keep
    )
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


@pytest.fixture
def gateway() -> FakeGateway:
    item = {"id": "1", "time": "2026-11-24T12:00:00Z", "type": "job.succeeded", "attempt": 1, "sequence": 4}
    return FakeGateway(
        jobs={1: [look(1, "running", name="count"), look(1, "succeeded", name="count", attempt=1, exit_code=0)]},
        outputs={"counts": b'{"words": 3}'}, timeline=[item],
        streams=[sse(frames(("e-1", QUEUED), ("e-2", RUNNING), end="final"))],
    )  # fmt: skip


async def test_all_as_expected(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\noutputs: {counts: {json: {words: 3}}}\n")
    code, told = await shown(gateway, tmp_path)
    assert code == 0
    assert "count: running at lyon" in told and "job.succeeded" in told and "\x1b" not in told
    assert re.search(r"^count  succeeded after [0-9.]+s, as expected$", told, re.MULTILINE)
    assert "All 1 examples ended as expected" in told


async def test_what_a_job_left_is_saved_and_the_run_says_where(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\n")
    with (tmp_path / "count" / "job.yaml").open("a") as file:
        file.write("outputs: [{name: counts, path: out/counts.json}]\n")
    gateway.logs = {"stdout": b"3 words\n"}
    code, told = await shown(gateway, tmp_path, keep=tmp_path / "kept")
    kept = tmp_path / "kept" / "count"
    assert code == 0
    assert (kept / "counts.json").read_bytes() == b'{"words": 3}'
    assert (kept / "attempt-1.stdout.txt").read_bytes() == b"3 words\n"
    assert "job.succeeded" in (kept / "timeline.txt").read_text()
    assert json.loads((kept / "job.json").read_text())["id"] == job_id(1)
    assert sorted(path.name for path in kept.iterdir()) == [
        "attempt-1.stdout.txt", "counts.json", "job.json", "timeline.txt",
    ]  # fmt: skip
    assert f"saved in {kept}: counts.json (12 bytes), attempt-1.stdout.txt (8 bytes)" in told


async def test_a_folder_that_cannot_be_written_fails_the_run(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\n")
    (tmp_path / "file").write_text("not a folder")
    code, told = await shown(gateway, tmp_path, keep=tmp_path / "file")
    assert code == 1 and "cannot be written" in told


async def test_a_falsified_expectation_fails_the_run(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\noutputs: {counts: {json: {words: 4}}}\n")
    code, told = await shown(gateway, tmp_path)
    assert code == 1
    assert "not as expected: output counts: /words: expected 4, got 3" in told
    assert "1 of 1 examples did not end as expected: count" in told


async def test_a_terminal_sees_a_table(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\n")
    code, told = await shown(gateway, tmp_path, terminal=True)
    assert code == 0 and "HOW LONG" in told and VO in told


async def test_a_job_that_does_not_end_in_time_fails_the_run_and_the_others_are_still_told(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\n")
    an_example(tmp_path, "slow", "user: alice\nstate: succeeded\n")
    gateway.jobs[2] = [look(2, "running", name="slow")]
    code, told = await shown(gateway, tmp_path, deadline_s=0.3)
    assert code == 1
    assert "slow" in told.splitlines()[-1] and "count" not in told.splitlines()[-1]
    assert "not ended within 0.3 s" in told


async def test_a_refused_job_is_told_with_its_line(gateway: FakeGateway, tmp_path: Path) -> None:
    an_example(tmp_path, "count", "user: alice\nstate: succeeded\n")
    fault = {"pointer": "/command", "detail": "must be something else"}
    gateway.refusals["count"] = problem(422, "invalid_request", errors=[fault])
    code, told = await shown(gateway, tmp_path)
    assert code == 1 and "job.yaml:3: command: must be something else" in told


async def test_a_folder_without_examples_or_a_user_without_token_is_no_success(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    assert (await shown(gateway, tmp_path))[0] == 1
    an_example(tmp_path, "count", "user: zoe\nstate: succeeded\n")
    code, told = await shown(gateway, tmp_path)
    assert code == 1 and "user 'zoe'" in told


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello from lyon")

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def service() -> Iterator[str]:
    """A real HTTP server on this machine; its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_service_is_visited_where_the_job_says_and_then_cancelled(
    gateway: FakeGateway, tmp_path: Path, service: str
) -> None:
    wish = "while_running: {endpoint: web, contains: Hello from}"
    an_example(tmp_path, "web", f"user: alice\nstate: cancelled\n{wish}\n")
    answers = {"endpoints": [{"name": "web", "address": service}]}
    gateway.jobs = {
        1: [look(1, "queued", name="web"), look(1, "running", name="web", **answers), look(1, "cancelled", name="web")]
    }
    code, told = await shown(gateway, tmp_path)
    assert code == 0, told
    assert gateway.paths("DELETE") == [f"/v1/jobs/{job_id(1)}"]
