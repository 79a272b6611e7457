"""The `serai` command as its users meet it: words, exit codes, and what goes to which output."""

import json
import re
import stat
from pathlib import Path

import httpx2
import pytest
from starlette.responses import JSONResponse

from serai.cli.screen import Format, Screen, complain
from tests.unit.client.builders import Deaf
from tests.unit.client.conftest import Serai
from tests.unit.client.fake_gateway import TOKEN, VO, FakeGateway, event, frames, job_id, look, problem, sse

pytestmark = pytest.mark.fast


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(f"name: hello\nvo: {VO}\ncommand: [echo, hello]\nresources:\n  memroy: 1GiB\n")
    return path


# -- handing in ---------------------------------------------------------------------------------------------------


def test_submit_prints_the_id_alone_and_says_what_next_aside(serai: Serai, job_file: Path) -> None:
    code, out, err = serai("submit", str(job_file))
    assert (code, out) == (0, f"{job_id(1)}\n")
    assert "serai logs -f 00000001" in err


def test_submit_as_json_is_nothing_but_the_platforms_json(serai: Serai, job_file: Path) -> None:
    code, out, _ = serai("submit", str(job_file), "-o", "json")
    assert code == 0 and json.loads(out)["id"] == job_id(1)


def test_a_wrong_job_file_names_file_line_and_the_field_that_was_meant(
    gateway: FakeGateway, serai: Serai, job_file: Path
) -> None:
    fault = {"pointer": "/resources/memroy", "detail": "unknown field 'memroy'", "hint": "did you mean 'memory'?"}
    gateway.refusals["hello"] = problem(422, "invalid_request", errors=[fault])
    code, out, err = serai("submit", str(job_file))
    assert (code, out) == (65, "")
    assert f"{job_file}:5: unknown field 'memroy' (did you mean 'memory'?)\n" in err


def test_of_several_files_the_good_ones_go_in_and_the_others_are_told(
    gateway: FakeGateway, serai: Serai, job_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"name: bad\nvo: {VO}\ncpu: 1\n")
    fault = {"pointer": "/cpu", "detail": "unknown field 'cpu'"}
    gateway.refusals["bad"] = problem(422, "invalid_request", errors=[fault])
    code, out, err = serai("submit", str(job_file), str(other))
    assert (code, out) == (65, f"{job_id(1)}\n")
    assert f"{other}:3: unknown field 'cpu'" in err


def test_a_file_that_is_not_there(serai: Serai) -> None:
    code, _, err = serai("submit", "nowhere.yaml")
    assert code == 65 and "nowhere.yaml: No such file or directory" in err


def test_a_dry_run_that_fits_nowhere_says_why_and_has_its_own_code(
    gateway: FakeGateway, serai: Serai, job_file: Path
) -> None:
    verdict = {"site": "prague", "code": "gpu_missing", "message": "prague has no GPU", "can_change": False}
    gateway.explanation = {"state": "queued", "summary": "No site can run the job.", "verdicts": [verdict]}
    code, out, _ = serai("submit", "--dry-run", str(job_file))
    assert code == 72 and "gpu_missing" in out and "prague has no GPU" in out
    assert gateway.paths("POST") == ["/v1/jobs:explain"]


# -- outcomes -----------------------------------------------------------------------------------------------------


def test_run_shows_what_the_job_prints_and_exits_as_it_does(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [
        look(1, "queued", name="sh"), look(1, "running", site="prague", attempt=1),
        look(1, "failed", site="prague", attempt=1, exit_code=3, reason={"code": "task_error", "message": "Ended."}),
    ]  # fmt: skip
    gateway.logs = {"stdout": b"to stdout\n", "stderr": b"to stderr\n"}
    code, out, err = serai("run", "--", "sh", "-c", "exit 3")
    assert (code, out) == (3, "to stdout\n")
    assert "to stderr\n" in err
    assert "running at prague" in err and "failed at prague: exit code 3: Ended." in err
    assert gateway.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_run_shows_what_an_attempt_printed_that_was_over_before_it_was_seen_to_run(
    gateway: FakeGateway, serai: Serai
) -> None:
    gateway.jobs[1] = [
        look(1, "starting", name="sh", attempt=1), look(1, "queued", name="sh", attempt=1),
        look(1, "failed", attempt=2, exit_code=3),
    ]  # fmt: skip
    assert serai("run", "--name", "sh", "--vo", VO, "--", "sh")[0] == 3
    asked = [each.query["attempt"] for each in gateway.asked if each.path.endswith("/logs")]
    assert asked == ["1", "1", "2", "2"], "all of the first before any of the second"


def test_run_with_json_keeps_standard_output_clean(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, "succeeded", name="echo", attempt=1, exit_code=0)]
    gateway.logs = {"stdout": b"hello\n"}
    code, out, err = serai("run", "-o", "json", "--", "echo", "hello")
    assert code == 0 and json.loads(out)["state"] == "succeeded" and "hello\n" in err


def test_run_builds_the_job_from_its_options(gateway: FakeGateway, serai: Serai, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    serai(
        "run", "-d", "--cpu", "2", "--memory", "1GiB", "--gpus", "1", "--env", "A=b", "--file", str(script), "--keep",
        "model=m.json", "--site", "prague", "--label", "run=7", "--retries", "2",
        "--", "python3", "train.py", "-o", "x",
    )  # fmt: skip
    sent = next(asked.json for asked in gateway.asked if asked.path == "/v1/jobs")
    assert sent == {
        "name": "python3", "vo": VO, "command": ["python3", "train.py", "-o", "x"], "env": {"A": "b"},
        "labels": {"run": "7"}, "files": [{"path": "train.py", "content": "print(1)\n"}],
        "outputs": [{"name": "model", "path": "m.json"}], "placement": {"sites": {"allow": ["prague"]}},
        "resources": {"cpu": 2.0, "memory": "1GiB", "gpus": {"count": 1}}, "retries": {"attempts": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "exit_code", "code"),
    [
        ("succeeded", 0, 0),
        ("failed", 3, 3),
        ("failed", None, 1),
        ("failed", 69, 1),
        ("cancelled", None, 79),
        ("rejected", None, 80),
    ],
)
def test_wait_exits_with_the_jobs_outcome(
    gateway: FakeGateway, serai: Serai, state: str, exit_code: int | None, code: int
) -> None:
    gateway.jobs[1] = [look(1, "running"), look(1, state, exit_code=exit_code)]
    found, out, _ = serai("wait", job_id(1), "-o", "json")
    assert found == code and json.loads(out)[0]["exit_code"] == exit_code


def test_no_time_to_wait_is_enough_for_a_job_that_has_ended(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, "failed", exit_code=3)]
    gateway.jobs[2] = [look(2, "running")]
    code, _, err = serai("wait", job_id(1), "--timeout", "0s")
    assert code == 3 and "failed" in err and "given up" not in err
    code, _, err = serai("wait", job_id(1), job_id(2), "--timeout", "0s")
    assert code == 124 and f"serai wait {job_id(2)}" in err and f"wait {job_id(1)}" not in err


def test_a_wait_that_is_given_up_says_how_to_go_on(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, "running")]
    code, _, err = serai("wait", job_id(1), "--timeout", "0.05")
    assert code == 124 and f"serai wait {job_id(1)}" in err


# -- when it does not work ----------------------------------------------------------------------------------------


def test_nobody_there(serai: Serai) -> None:
    code, out, err = serai("jobs", transport=Deaf(httpx2.ConnectError))
    assert (code, out) == (69, "")
    assert "cannot reach http://127.0.0.1:8080" in err and "make up" in err


def test_not_signed_in(serai: Serai) -> None:
    code, _, err = serai("jobs", token=None)
    assert code == 77 and "next: sign in: `serai login`" in err


def test_not_allowed(gateway: FakeGateway, serai: Serai) -> None:
    gateway.first = [problem(403, "forbidden", "only site operators may cordon sites")]
    code, _, err = serai("sites", "cordon", "lyon")
    assert code == 77 and "only site operators may cordon sites" in err and "serai whoami" in err


@pytest.mark.parametrize(
    "args",
    [["jbos"], ["wait"], ["wait", "x", "--timeout", "soon"], ["jobs", "--limit", "0"], ["events"], ["wait", "no-id!"]],
)
def test_a_wrong_command_line_is_64_and_points_to_the_help(serai: Serai, args: list[str]) -> None:
    code, out, err = serai(*args)
    assert (code, out) == (64, "") and "--help`" in err


def test_an_answer_that_is_not_understood_is_ours_to_explain(gateway: FakeGateway, serai: Serai) -> None:
    gateway.first = [sse(b"hello")]
    code, _, err = serai("whoami")
    assert code == 69 and "not an answer of a Serai gateway" in err


def test_internal_problems_carry_the_trace(gateway: FakeGateway, serai: Serai) -> None:
    gateway.first = [problem(500, "internal", "An unexpected error", trace_id="4bf9")]
    code, _, err = serai("whoami")
    assert code == 70 and "trace: 4bf9" in err


# -- looking ------------------------------------------------------------------------------------------------------


def test_jobs_as_plain_lines_without_colour(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {1: [look(1, "failed", site="prague", exit_code=3)], 2: [look(2, "running", site="lyon")]}
    code, out, _ = serai("jobs")
    header, newest, oldest = out.splitlines()
    assert code == 0 and "\x1b" not in out
    assert header.split()[:4] == ["ID", "NAME", "VO", "STATE"]
    assert newest.split()[:5] == ["00000002", "hello", VO, "running", "lyon"]
    assert "exit code 3" in oldest


def test_jobs_as_json_are_the_platforms_own(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {1: [look(1)], 2: [look(2)], 3: [look(3)]}
    _, out, _ = serai("jobs", "--limit", "2", "-o", "json")
    assert json.loads(out) == [look(3), look(2)]


@pytest.mark.parametrize("given", ["last", "00000002", "0002", job_id(2).upper()])
def test_a_job_is_named_by_its_end_or_as_the_last_one(gateway: FakeGateway, serai: Serai, given: str) -> None:
    gateway.jobs = {1: [look(1)], 2: [look(2)]}
    code, out, _ = serai("job", given, "-o", "json")
    assert code == 0 and json.loads(out)["id"] == job_id(2)


def test_an_id_that_fits_several_jobs_is_not_guessed(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {1: [look(1)], 2: [look(2)]}
    code, _, err = serai("job", "01939f3e")
    assert code == 64 and "fits 2 jobs" in err


def test_an_id_that_fits_none(serai: Serai) -> None:
    assert serai("job", "abcdef")[0] == 66
    assert "you have no job yet" in serai("job", "last")[2]


def test_the_timeline_in_order(gateway: FakeGateway, serai: Serai) -> None:
    gateway.timeline = [
        {"id": "1", "time": "2026-11-24T12:00:00Z", "type": "job.queued", "attempt": 0, "sequence": 1},
        {"id": "2", "time": "2026-11-24T12:00:01Z", "type": "job.placed", "attempt": 1, "sequence": 2, "site": "lyon"},
    ]  # fmt: skip
    _, out, _ = serai("timeline", job_id(1))
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["job.queued", "job.placed"]


def test_why_tells_the_place_in_the_queue_and_every_sites_verdict(gateway: FakeGateway, serai: Serai) -> None:
    verdict = {"site": "lyon", "code": "cpu_busy", "message": "2 of 4 cores are free", "can_change": True}
    gateway.explanation = {"state": "queued", "summary": "Every site is full.", "position": 3, "verdicts": [verdict]}
    _, out, _ = serai("why", job_id(1))
    assert "Every site is full." in out and "3" in out and "cpu_busy" in out


def test_outputs_are_listed_shown_and_saved(gateway: FakeGateway, serai: Serai, tmp_path: Path) -> None:
    gateway.outputs = {"counts": b"\x00\x01", "log": b"x"}
    gateway.jobs = {1: [look(1, spec={"outputs": [{"name": "counts", "path": "out/counts.json"}]})]}
    assert "counts" in serai("outputs", job_id(1))[1]
    assert serai("outputs", job_id(1), "counts")[1] == "\x00\x01"
    assert serai("outputs", job_id(1), "--to", str(tmp_path / "results"))[0] == 0
    assert (tmp_path / "results" / "counts.json").read_bytes() == b"\x00\x01"
    assert (tmp_path / "results" / "log").read_bytes() == b"x"
    code, _, err = serai("outputs", job_id(1), "nothing")
    assert code == 66 and "see what it left: `serai outputs 00000001`" in err


def test_where_nothing_was_declared_nothing_is_listed_and_it_says_how_to_keep_files(
    gateway: FakeGateway, serai: Serai
) -> None:
    gateway.jobs = {1: [look(1)]}
    code, out, err = serai("outputs", job_id(1))
    assert (code, out) == (0, "") and "serai run --keep PATH" in err


def test_a_job_without_an_attempt_has_no_log_and_it_says_what_to_do(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {1: [look(1, "queued")], 2: [look(2, "failed")]}
    code, _, err = serai("logs", job_id(1))
    assert code == 66 and "the job is queued" in err and "serai logs -f 00000001" in err
    code, _, err = serai("logs", job_id(2))
    assert code == 66 and "never ran" in err and "serai why 00000002" in err


def test_a_misspelt_state_is_refused_with_the_nearest_one(serai: Serai) -> None:
    for words in (("jobs", "--state", "runing"), ("events", "-f", "--state", "runing")):
        code, _, err = serai(*words)
        assert code == 64 and "did you mean 'running'?" in err


def test_no_job_at_all_is_said_and_json_stays_json(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {}
    assert "hand one in" in serai("jobs")[2] and serai("jobs", "-o", "json")[1] == "[]\n"
    assert "hand one in" in serai("job", "last")[2]


def test_no_command_shows_the_help_and_no_empty_complaint(serai: Serai) -> None:
    code, out, err = serai()
    assert code == 64 and "Usage" in out + err and "serai: \n" not in err


def test_logs_keep_their_streams_apart(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, attempt=1)]
    gateway.logs = {"stdout": b"out\n", "stderr": b"err\n"}
    assert serai("logs", job_id(1)) == (0, "out\n", "err\n")
    assert serai("logs", "--stream", "stderr", job_id(1)) == (0, "", "err\n")


def test_logs_as_json_are_one_object_a_piece(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, attempt=1)]
    gateway.logs = {"stdout": "žluť\n".encode(), "stderr": b"\xff\n"}
    code, out, err = serai("logs", job_id(1), "-o", "json")
    pieces = sorted((json.loads(line) for line in out.splitlines()), key=lambda piece: str(piece["stream"]))
    assert (code, err) == (0, "")
    assert pieces == [
        {"stream": "stderr", "attempt": 1, "text": "\ufffd\n"}, {"stream": "stdout", "attempt": 1, "text": "žluť\n"}
    ]  # fmt: skip


def test_a_job_that_printed_nothing_says_so_aside(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs[1] = [look(1, attempt=1)]
    assert serai("logs", job_id(1)) == (0, "", "it printed nothing\n")


def test_what_the_site_said_of_a_job_that_never_ran_is_shown(gateway: FakeGateway, serai: Serai) -> None:
    """A program that is not there has no exit code: the platform's own sentence would not help anybody."""
    failed = look(1, "failed", attempt=1, site="bari", reason={"code": "start_failure", "message": "Not started."})
    gateway.jobs[1] = [{**failed, "name": "nosuch"}]
    words = 'binary "nosuch" could not be found'
    gateway.timeline = [event(1, "attempt.failed", nomad_says=words), event(2, "job.failed")]
    assert f"the site says: {words}" in serai("run", "--vo", VO, "--", "nosuch")[2]
    assert f"the site says: {words}" in serai("job", job_id(1))[1]
    assert f"({words})" in serai("timeline", job_id(1))[1]
    gateway.timeline[0]["data"]["exit_code"] = 3
    assert words not in serai("timeline", job_id(1))[1], "an exit code says it all"


def test_an_option_meant_for_the_jobs_command_is_told_how_to_be_one(serai: Serai) -> None:
    code, _, err = serai("run", "--vo", VO, "ls", "--all")
    assert code == 64 and "put `--` before the command" in err


def test_the_address_of_something_else_is_told_as_such(gateway: FakeGateway, serai: Serai) -> None:
    for words in (("whoami",), ("login",)):
        gateway.first = [problem(404, "not_found", "There is no such thing here.")]
        code, _, err = serai(*words)
        assert code == 69 and "answers, but not as a Serai gateway" in err and "check the address" in err


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong", "does not speak TLS"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "SSL_CERT_FILE"),
    ],
)
def test_trouble_with_tls_is_told_in_words(serai: Serai, trouble: str, words: str) -> None:
    code, _, err = serai("jobs", transport=Deaf(httpx2.ConnectError, trouble))
    assert code == 69 and words in err and "make up" not in err


def test_the_version_is_told(serai: Serai) -> None:
    assert re.fullmatch(r"serai \d+\.\d+\.\d+\n", serai("--version")[1])


def test_followed_events_are_one_json_object_a_line_and_a_gap_is_loud(gateway: FakeGateway, serai: Serai) -> None:
    gap = {"reason": "too_old"}
    gateway.streams = [
        sse(frames(("e-1", event(1, "job.queued")), ("e-5", gap), ("e-6", event(3, "job.failed")), end="final"))
    ]
    code, out, err = serai("events", "-f", job_id(1), "-o", "json")
    first, second, third = map(json.loads, out.splitlines())
    assert code == 0 and first["position"] == "e-1" and second == {"gap": gap} and third["data"]["sequence"] == 3
    assert "gap: events may be lost" in err


def test_cancel_tells_each_and_goes_on_after_a_refusal(gateway: FakeGateway, serai: Serai) -> None:
    gateway.jobs = {1: [look(1, "running")], 3: [look(3, "succeeded")]}
    code, _, err = serai("cancel", job_id(1), job_id(2), job_id(3))
    assert code == 66
    assert "00000001 asked to cancel" in err and "no such job" in err and "00000003 had ended before" in err


def test_a_trace_is_a_tree(gateway: FakeGateway, serai: Serai) -> None:
    gateway.spans = [
        {"span_id": "b", "parent_id": "a", "name": "placed", "start_ns": 5_000_000, "end_ns": 6_000_000},
        {"span_id": "a", "parent_id": None, "name": "job", "start_ns": 0, "end_ns": 9_000_000},
    ]
    lines = serai("trace", job_id(1))[1].splitlines()
    assert lines[2].startswith("job ") and lines[3].startswith("  placed") and "+5.0 ms" in lines[3]


# -- signing in ---------------------------------------------------------------------------------------------------


def test_login_keeps_the_token_for_its_owner_and_is_used_from_then_on(serai: Serai, tmp_path: Path) -> None:
    code, out, err = serai("login", "--user", "alice", token=None)
    kept = tmp_path / "config" / "tokens.json"
    assert (code, out) == (0, "") and "signed in at http://127.0.0.1:8080 as Alice" in err
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "vo.climate.example" in serai("whoami", token=None)[1]


def test_login_without_a_user_names_those_there_are(serai: Serai) -> None:
    code, _, err = serai("login", token=None)
    assert code == 64 and "serai login --user alice" in err and "bob" in err


def test_login_where_only_a_real_issuer_is_trusted_says_what_to_do(gateway: FakeGateway, serai: Serai) -> None:
    gateway.first = [JSONResponse({"issuers": [{"issuer": "https://aai.example.org", "name": "Check-in"}]})]
    code, _, err = serai("login", token=None)
    assert code == 77 and "Check-in (https://aai.example.org)" in err and "export SERAI_TOKEN=" in err


# -- help ---------------------------------------------------------------------------------------------------------

COMMANDS = ["login", "logout", "whoami", "submit", "run", "jobs", "job", "timeline", "why", "logs", "outputs", "events",
            "wait", "cancel", "sites", "secrets", "subscribe", "subscriptions", "trace", "schema"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_examples(serai: Serai, command: str) -> None:
    code, out, _ = serai(command, "--help")
    assert code == 0 and "Examples:" in out and f"$ serai {command}" in out


def test_the_help_lists_the_exit_codes(serai: Serai) -> None:
    out = serai("--help")[1]
    assert "124" in out and "69" in out and all(command in out for command in COMMANDS)


def test_words_of_others_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    words = "no room\x1b[2J\x1b]0;title\x07 at\u202e lyon\nnext line"
    shown = Screen(Format.TABLE, {})
    shown.say(words)
    shown.line(words)
    complain(words, None)
    out, err = capsys.readouterr()
    assert "no room" in out and "next line" in err
    assert not [char for char in out + err if not (char.isprintable() or char == "\n")]
