"""`serai-platform run`: its exit code is the truth about the examples, and it leaves what they made."""

import json
import shutil
from pathlib import Path

import pytest

from shared.adapters.rabbitmq import throwaway
from tests.system.processes import CHECKOUT, Ended, make_variables, run

EXAMPLES = CHECKOUT / "examples"


def copied(folder: Path, *names: str) -> Path:
    """A folder with some of the examples."""
    for name in names:
        shutil.copytree(EXAMPLES / name, folder / "examples" / name)
    return folder / "examples"


def falsify(expected: Path, true: str, false: str) -> None:
    text = expected.read_text()
    assert true in text
    expected.write_text(text.replace(true, false))


async def ran(folder: Path, examples: Path) -> Ended:
    words = ("--examples", str(examples), "--keep", str(folder / "kept"), "--port", "18080")
    return await run("serai-platform", "run", *words, folder=folder, deadline_s=60)


async def test_a_falsified_expectation_fails_the_run_and_names_the_difference(folder: Path) -> None:
    examples = copied(folder, "word-count", "fails-then-retried")
    falsify(examples / "word-count" / "expected.yaml", "words: 148", "words: 149")
    falsify(examples / "fails-then-retried" / "expected.yaml", "exit_code: 3", "exit_code: 4")
    ended = await ran(folder, examples)
    assert ended.code == 1
    assert "not as expected: output counts: /words: expected 149, got 148" in ended.out
    assert "not as expected: exit_code: expected 4, got 3" in ended.out
    assert "2 of 2 examples did not end as expected: fails-then-retried, word-count" in ended.out
    assert "Traceback" not in ended.err
    assert "\x1b" not in ended.out
    # What the jobs left is there all the same, and the platform is gone.
    kept = folder / "kept" / "word-count"
    assert json.loads((kept / "counts.json").read_text())["words"] == 148
    assert "148 words" in (kept / "attempt-1.stdout.txt").read_text()
    assert "job.succeeded" in (kept / "timeline.txt").read_text()
    assert json.loads((kept / "job.json").read_text())["state"] == "succeeded"
    assert f"saved in {kept}: counts.json" in ended.out


async def test_a_folder_without_examples_and_an_example_that_is_wrong_are_told_in_a_sentence(folder: Path) -> None:
    absent = await ran(folder, folder / "nothing")
    assert (absent.code, "--examples FOLDER" in absent.err) == (78, True)
    examples = copied(folder, "word-count")
    falsify(examples / "word-count" / "expected.yaml", "exit_code:", "exit_cod:")
    wrong = await ran(folder, examples)
    assert (wrong.code, wrong.out) == (78, ""), "told before anything is started"
    assert "expected.yaml: unknown field 'exit_cod'" in wrong.err


@pytest.mark.rabbitmq
async def test_make_run_over_rabbitmq_ends_as_expected(folder: Path) -> None:
    if throwaway.installed() is None:
        pytest.skip("no rabbitmq-server here: `apt-get install rabbitmq-server`, or set AMQP_URL")
    further = {**make_variables(folder), "ARGS": f"--port 18080 --keep {folder / 'kept'}"}
    ended = await run("make", "run", "BUS=amqp", folder=folder, deadline_s=120, **further)
    assert ended.code == 0, ended.told
    assert "(amqp bus)" in ended.out and "All 5 examples ended as expected" in ended.out
