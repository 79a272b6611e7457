"""What counts as expected, and how a difference is told."""

from dataclasses import replace

import pytest

from serai import expecting
from serai.errors import BadJobFile
from serai.expecting import Actual, Expected, Visit

pytestmark = pytest.mark.fast

ACTUAL = Actual(
    state="failed", exit_code=3, attempts=2, reason="task_error",
    outputs={"model": b'{"rows": 4, "w": {"a": 1, "b": 2}}'},
    verdicts={"prague": "gpu_missing", "lyon": "cpu_busy"},
    timeline=["job.queued", "job.placed", "job.queued", "job.placed", "job.failed"], visited="Hello from prague",
)  # fmt: skip


def told(**expected: object) -> list[str]:
    return expecting.differences(Expected(**{"user": "alice", "state": "failed", **expected}), ACTUAL)  # type: ignore[arg-type]


def test_what_is_not_said_is_not_compared() -> None:
    assert told() == []


def test_all_that_is_said_and_true_is_no_difference() -> None:
    assert told(
        exit_code=3, attempts=2, reason="task_error", outputs={"model": {"contains": "rows", "json": {"w": {"b": 2}}}},
        verdicts={"prague": "gpu_missing"}, timeline=("job.placed", "job.queued", "job.placed"),
        while_running=Visit("web", contains="Hello"),
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "word"),
    [
        ({"state": "succeeded"}, "state: expected succeeded, got failed"),
        ({"exit_code": 0}, "exit_code: expected 0, got 3"),
        ({"attempts": 1}, "attempts: expected 1, got 2"),
        ({"reason": "out_of_memory"}, "reason: expected out_of_memory, got task_error"),
        ({"outputs": {"log": {"contains": "x"}}}, "output log: expected, but it was not kept"),
        ({"outputs": {"model": {"contains": "x"}}}, "does not contain 'x'"),
        ({"outputs": {"model": {"json": {"w": {"b": 3}}}}}, "/w/b: expected 3, got 2"),
        ({"outputs": {"model": {"json": {"c": 1}}}}, "/c: expected 1, got None"),
        ({"verdicts": {"*": "gpu_missing"}}, "verdict of lyon: expected gpu_missing, got cpu_busy"),
        ({"verdicts": {"bari": "fits"}}, "verdict of bari: expected fits, got None"),
        ({"timeline": ("job.placed",) * 3}, "job.placed expected 3 times, happened 2 times"),
        ({"while_running": Visit("web", contains="Bye")}, "'Bye' is not in its answer"),
    ],
)
def test_each_difference_is_a_sentence(expected: dict[str, object], word: str) -> None:
    (difference,) = told(**expected)
    assert word in difference


def test_a_service_that_never_answered() -> None:
    silent = replace(ACTUAL, visited=None)
    expected = Expected("alice", "failed", while_running=Visit("web"))
    assert expecting.differences(expected, silent) == ["endpoint web: gave no answer while the job ran"]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ([], "must be a mapping"),
        ({"state": "failed"}, "'user' is required"),
        ({"user": "a", "state": "done"}, "state 'done' is not final"),
        ({"user": "a", "state": "failed", "exitcode": 3}, "unknown field 'exitcode'"),
        ({"user": "a", "state": "failed", "outputs": {"x": {"equals": 1}}}, "output 'x' needs"),
        ({"user": "a", "state": "failed", "while_running": {"path": "/"}}, "while_running needs `endpoint`"),
    ],
)
def test_an_expectation_that_nobody_would_check_is_refused(raw: object, word: str) -> None:
    with pytest.raises(BadJobFile, match=r"expected\.yaml: ") as caught:
        Expected.of(raw, "expected.yaml")
    assert word in str(caught.value)
