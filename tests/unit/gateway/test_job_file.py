"""The job file: units as people write them, and a published schema that accepts what the API accepts."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import requests, units
from shared.errors import Refused
from shared.job import FailureClass, JobKind, OnLost
from tests.unit.gateway.test_bad_input import FIELDS
from tests.unit.gateway.world import a_file

pytestmark = pytest.mark.fast

SCHEMA = jsonschema_rs.validator_for(requests.schema())
BEYOND = {"file twice", "output twice", "endpoint twice", "absurd memory", "memory too small", "max_wait beyond a year",
          "max_runtime of nothing in words"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [(512, 512), (512.0, 512), (15.2, 16), ("512MiB", 512), ("1.5GiB", 1536), ("1TiB", 1_048_576), ("20GB", 19_074),
     ("1kB", 1), ("20000kB", 20)],
)  # fmt: skip
def test_sizes(text: object, expected: int) -> None:
    assert units.mebibytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(90, 90), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("7d", 604_800), ("1d2h3m4s", 93_784)],
)
def test_durations(text: object, expected: float) -> None:
    assert units.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "1", "1 h", "1H", "-1h", "1h1h", "1m1h", "1h\n", "1e3s", "١h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        units.seconds(text)


def test_everything_that_can_be_said_arrives() -> None:
    spec = requests.read_job(
        {
            "name": "all", "vo": "vo.x", "kind": "service", "command": ["run"], "image": "alpine:3", "env": {"A": "b"},
            "files": [{"path": "a/b", "content": "c", "executable": True}], "outputs": [{"name": "o", "path": "p"}],
            "resources": {"cpu": 0.5, "memory": "1GiB", "disk": 2000, "gpus": {"count": 1, "model": "A100"}},
            "placement": {"sites": {"allow": ["a"], "deny": ["b"], "prefer": ["c"]}, "countries": {"allow": ["CZ"]}},
            "priority": 7, "max_runtime": "1h", "max_wait": "2h", "start_deadline": "5m", "on_lost": "wait",
            "retries": {"attempts": 2, "on": ["task_error"]}, "labels": {"l": "v"}, "metadata": {"m": "v"},
            "endpoints": [{"name": "web", "port": 80, "health_path": "/ok", "access": "vo"}],
        }
    )  # fmt: skip
    assert (spec.kind, spec.on_lost, spec.retries.on) == (JobKind.SERVICE, OnLost.WAIT, (FailureClass.TASK_ERROR,))
    assert (spec.resources.memory_mib, spec.resources.gpus.model) == (1024, "A100")
    assert (spec.placement.allow_sites, spec.placement.prefer_sites) == (("a",), ("c",))
    assert (spec.placement.allow_countries, spec.placement.deny_countries) == (("CZ",), ())
    assert (spec.max_runtime_s, spec.max_wait_s, spec.start_deadline_s) == (3600, 7200, 300)
    assert (spec.files[0].executable, spec.endpoints[0].health_path, spec.endpoints[0].port) == (True, "/ok", 80)


@pytest.mark.parametrize("row", FIELDS, ids=[row[0] for row in FIELDS])
def test_the_schema_refuses_what_the_api_refuses(row: tuple[str, dict[str, Any], str]) -> None:
    assert SCHEMA.is_valid(a_file(**row[1])) is (row[0] in BEYOND)


WORDS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 100), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["512MiB", "1h30m", "task_error", "service", "CZ", "prague", "/x", "a/b", "A_B", "http", "x\n"]),
)  # fmt: skip
NAMES = st.sampled_from(
    [*requests.JobFile.model_fields, *requests.ResourcesInput.model_fields, *requests.EndpointInput.model_fields,
     *requests.FileInput.model_fields, "sites", "countries", "allow", "attempts", "on", "count", "model", "A_B", "junk"]
)  # fmt: skip
VALUES = st.recursive(
    WORDS, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)), max_leaves=6
)


@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_schema_and_api_agree_about_anything(fields: dict[str, Any]) -> None:
    file = a_file(**fields)
    try:
        requests.read_job(file)
    except Refused as refusal:
        told = " ".join(str(error) for error in refusal.details["errors"])  # type: ignore[attr-defined]
        assert "is there already" in told or not SCHEMA.is_valid(file), told
    else:
        assert SCHEMA.is_valid(file)
