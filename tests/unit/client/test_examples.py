"""The example jobs themselves: their files are taken, and their programs do what expected.yaml says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serai import expecting, showcase
from serai.showcase import Example
from services.gateway import requests

FOLDER = Path(__file__).parents[3] / "examples"
EXAMPLES = {example.name: example for example in showcase.load(FOLDER)}


@pytest.mark.fast
def test_the_five_promised_examples_are_there() -> None:
    assert set(EXAMPLES) == {"word-count", "train-tiny-model", "fails-then-retried", "needs-a-gpu", "web-service"}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_platform_takes_the_job_file(example: Example) -> None:
    spec = requests.read_job(example.file.job)
    assert {output.name for output in spec.outputs} >= set(example.expected.outputs)
    if example.expected.while_running:
        assert example.expected.while_running.endpoint in {endpoint.name for endpoint in spec.endpoints}


@pytest.mark.parametrize("name", ["word-count", "train-tiny-model"])
def test_the_program_writes_the_expected_output(name: str, tmp_path: Path) -> None:
    job = EXAMPLES[name].file.job
    for file in job["files"]:
        (tmp_path / file["path"]).parent.mkdir(exist_ok=True)
        (tmp_path / file["path"]).write_text(file["content"])
    subprocess.run([sys.executable, *job["command"][1:]], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    for output in job["outputs"]:
        wish, text = EXAMPLES[name].expected.outputs[output["name"]], (tmp_path / output["path"]).read_text()
        assert list(expecting.missing(wish["json"], json.loads(text), "")) == []


def test_the_data_are_made_by_the_program_beside_them(tmp_path: Path) -> None:
    folder = FOLDER / "train-tiny-model"
    subprocess.run([sys.executable, folder / "make_measurements.py"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "measurements.csv").read_bytes() == (folder / "measurements.csv").read_bytes()
