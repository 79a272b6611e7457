"""Every measurement of `make bench` works: short runs whose figures mean nothing, but are there and possible."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "read": ["GET /v1/jobs/{id}, 50 in flight"],
    "accept": ["submissions accepted, single", "submissions accepted, batches of 200"],
    "whole": ["jobs from 202 to succeeded", "CPU of the whole platform a job", "CPU a job: scheduler"],
    "place": ["placement decisions over 10 sites"],
    "tell": ["site's stream to SSE client, p50", "site's stream to SSE client, p99"],
    "filter": ["list by a state, 2,000 jobs stored", "list by a label, 2,000 jobs stored"],
    "idle": ["idle memory", "start of a new platform"],
    "auth": ["deciding about a submission", "a grant over HTTP, p50", "GET /v1/jobs/{id}, CPU with auth"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_measurement_ends_with_its_figures(name: str, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in json.loads(out.read_text())}
    for figure in FIGURES[name]:
        assert rows[figure]["value"] > 0, figure
    for row in rows.values():
        assert set(row) >= {"name", "value", "unit", "denominator", "ratio", "method"}, row
        assert row["method"]
        assert (row["ratio"] is None) == (row["denominator"] is None), row
