"""What Nomad refuses, in its own words: compared with what the real agent answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent.jobspec import canonical_job, duration
from services.embedded.agent.validation import error_text, job_errors
from services.embedded.agent.wiretypes import type_fault
from tests.unit.agent.builders import job

RECORDINGS = Path(__file__).parents[2] / "recordings"
JOBS: dict[str, Any] = json.loads((RECORDINGS / "invalid-job.job.json").read_text())
ANSWERS: dict[str, Any] = json.loads((RECORDINGS / "invalid-job.http.json").read_text())


def words(spec: dict[str, Any]) -> str:
    return error_text(job_errors(canonical_job(spec, "global"), {"default"}, {"default", "all"}))


@pytest.mark.parametrize("case", [name for name in JOBS if name != "wrong-json-type"])
def test_errors_are_those_of_the_recording(case: str) -> None:
    assert words(JOBS[case]) == ANSWERS[case][0]["body"]["Error"]


def test_a_wrong_json_type_is_gos_complaint() -> None:
    assert type_fault(JOBS["wrong-json-type"]) == ANSWERS["wrong-json-type"][0]["body"]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (
            job(task={"KillTimeout": "5s"}),
            "string into Go struct field Task.Job.TaskGroups.Tasks.KillTimeout of type time.Duration",
        ),
        (job(Meta={"a": 1}), "number into Go struct field Job.Job.Meta of type string"),
        (job(count="x"), "string into Go struct field TaskGroup.Job.TaskGroups.Count of type int"),
        (job(cpu=1.5), "number 1.5 into Go struct field Resources.Job.TaskGroups.Tasks.Resources.CPU of type int"),
        (job(group={"Tasks": {}}), "object into Go struct field TaskGroup.Job.TaskGroups.Tasks of type []*api.Task"),
        (job(Datacenters="dc1"), "string into Go struct field Job.Job.Datacenters of type []string"),
    ],
)
def test_json_types_are_checked_like_go_does(spec: dict[str, Any], complaint: str) -> None:
    """Asked of a real agent (2.0.6) by hand."""
    assert type_fault(spec) == f"json: cannot unmarshal {complaint}"


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (job(Type="service", group={"MaxRunDuration": 10**9}), 'Job type "service" does not allow max_run_duration'),
        (
            job(group={"Disconnect": {"LostAfter": 10**9, "StopOnClientAfter": 10**9}}),
            "configured with both lost_after and stop_after",
        ),
        (
            job(task={"Templates": [{"EmbeddedTmpl": "", "DestPath": "local/x"}]}),
            "Must specify a source path or have an embedded template",
        ),
        (
            job(task={"Templates": [{"EmbeddedTmpl": "a", "DestPath": "../../x"}]}),
            "destination escapes allocation directory",
        ),
        (
            job(group={"EphemeralDisk": {"SizeMB": 50}}),
            "log storage (100 MB) must be less than requested disk capacity (50 MB)",
        ),
        (
            job(group={"Networks": [{"ReservedPorts": [{"Label": "a", "Value": 99}, {"Label": "b", "Value": 99}]}]}),
            "Static port 99 already reserved by taskgroup network:a",
        ),
        (
            job(group={"ReschedulePolicy": {"Attempts": 1, "Interval": 10**11, "Delay": 1}}),
            "Delay cannot be less than 5s",
        ),
    ],
)
def test_further_refusals(spec: dict[str, Any], part: str) -> None:
    assert part in words(spec)


@pytest.mark.parametrize(
    ("text", "ns"), [("1m30s", 90 * 10**9), ("100ms", 10**8), ("0", 0), ("-2s", -2 * 10**9), ("", 0), (5, 5)]
)
def test_durations(text: object, ns: int) -> None:
    assert duration(text) == ns


@pytest.mark.parametrize("text", ["5", "5 s", "s", "1x", "soon"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        duration(text)
