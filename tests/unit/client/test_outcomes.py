"""Exit codes: no number means two things."""

import re
from pathlib import Path

import pytest

from serai import outcomes
from serai.errors import BadJobFile, ClientError, Problem, Unreachable, WaitTimedOut
from serai.outcomes import Exit
from serai.values import Job

pytestmark = pytest.mark.fast


def ended(state: str, exit_code: int | None = None) -> Job:
    return Job(id="j", state=state, exit_code=exit_code)


def test_a_failed_job_ends_the_command_with_its_own_exit_code() -> None:
    assert outcomes.of_job(ended("failed", 3)) == 3


def test_no_exit_code_of_a_failed_job_is_ever_taken_for_success_or_for_one_of_ours() -> None:
    codes = {outcomes.of_job(ended("failed", code)) for code in (None, *range(-1, 400))}
    assert codes.isdisjoint(outcomes.OURS | {Exit.OK})


def test_cancelled_and_rejected_have_codes_of_their_own() -> None:
    assert outcomes.of_job(ended("cancelled")) == 79
    assert outcomes.of_job(ended("rejected")) == 80


def test_of_several_jobs_the_first_that_is_no_success_counts() -> None:
    jobs = [ended("succeeded", 0), ended("failed", 7), ended("cancelled")]
    assert outcomes.of_jobs(jobs) == 7
    assert outcomes.of_jobs(jobs[:1]) == 0


def test_every_code_is_explained() -> None:
    assert set(outcomes.MEANINGS) == set(Exit)


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (Unreachable("http://x", "refused"), 69, "make up"),
        (Problem(401, code="unauthenticated"), 77, "serai login"),
        (Problem(403, code="forbidden"), 77, "serai whoami"),
        (Problem(404, code="not_found"), 66, "serai jobs"),
        (Problem(422, code="invalid_request"), 65, ""),
        (BadJobFile(["job.yaml:1: wrong"]), 65, "serai schema"),
        (Problem(404, code="not_found").then("`serai outputs last`"), 66, "serai outputs last"),
        (Problem(503, code="unavailable", retry_after_s=7), 75, "in 7 s"),
        (WaitTimedOut(1, ["a", "b"]), 124, "serai wait a b"),
    ],
)
def test_an_error_says_what_to_type_next(error: Exception, code: int, word: str) -> None:
    assert isinstance(error, ClientError)
    assert outcomes.of_error(error) == code
    assert word in (outcomes.advice(error, "http://x") or "")


def test_the_readme_says_the_same() -> None:
    readme = (Path(__file__).parents[3] / "client" / "README.md").read_text(encoding="utf-8")
    told = {int(row[1]): row[2] for row in re.finditer(r"^\| (\d+) \| (.+) \|$", readme.replace("`", ""), re.MULTILINE)}
    plain = {int(code): meaning.replace("run/wait", "run, wait") for code, meaning in outcomes.MEANINGS.items()}
    assert told == plain
