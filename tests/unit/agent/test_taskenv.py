"""A task's environment and interpolation; outcomes compared with a real raw_exec task."""

from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent import AgentSettings, allocdir, fingerprint
from services.embedded.agent.allocdir import SetupFailure
from services.embedded.agent.jobspec import TEMPLATE, canonical_job
from services.embedded.agent.taskenv import Places, UnknownName, build, interpolate, interpolate_config
from tests.unit.agent.builders import job

pytestmark = pytest.mark.fast

NODE = fingerprint.node_row(
    AgentSettings(name="n1", region="r", data_dir=Path("/nowhere"), node_meta={"rack": "7"}),
    "id-1",
    "n1",
    "127.0.0.1:1",
)


def no_variable(path: str) -> None:
    """What a task reads at a path where nothing is."""


def environment(places: Places, **more: Any) -> dict[str, str]:
    spec = canonical_job(job(**more), "r")
    group = spec["TaskGroups"][0]
    alloc = {"ID": "0123456789", "Name": "job-1.g[2]"}
    ports = [
        {"Label": "http", "HostIP": "127.0.0.1", "Value": 20005},
        {"Label": "my-api", "HostIP": "127.0.0.1", "Value": 20006, "To": 80},
    ]
    return build(spec, group, group["Tasks"][0], alloc, {"Shared": {"Ports": ports}, "Tasks": {}}, NODE, places)


def test_names_and_numbers() -> None:
    env = environment(Places(Path("/a"), "main"), Meta={"owner": "me", "a-b": "1", "dot.ted": "2"})
    assert env["NOMAD_TASK_DIR"] == "/a/main/local"
    assert env["NOMAD_ALLOC_INDEX"] == "2"
    assert env["NOMAD_META_owner"] == env["NOMAD_META_OWNER"] == "me"
    assert env["NOMAD_META_a_b"] == "1"
    assert not any("dot" in name for name in env), "a key with a dot has no variable"
    assert (env["NOMAD_PORT_http"], env["NOMAD_ADDR_http"]) == ("20005", "127.0.0.1:20005")
    assert (env["NOMAD_PORT_my_api"], env["NOMAD_HOST_PORT_my_api"]) == ("80", "20006")


def test_nothing_of_ours_is_inherited() -> None:
    env = environment(Places(Path("/a"), "main"))
    assert {name for name in env if not name.startswith("NOMAD_")} == {"PATH", "LANG", "HOME"}


def test_env_values_keep_what_names_nothing() -> None:
    env = environment(
        Places(Path("/a"), "main"), task={"Env": {"FOO": "${NOMAD_JOB_NAME}-${nope}-${meta.rack}", "b-c": "d"}}
    )
    assert env["FOO"] == "job-1-${nope}-7"
    assert env["b_c"] == "d"


def test_config_refuses_what_names_nothing() -> None:
    env = environment(Places(Path("/a"), "main"))
    assert interpolate_config({"args": ["${NOMAD_TASK_DIR}/x", "$${y}", "$HOME"]}, env, NODE) == {
        "args": ["/a/main/local/x", "${y}", "$HOME"]
    }
    with pytest.raises(UnknownName):
        interpolate_config(["${NOMAD_META_absent}"], env, NODE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('${env["NOMAD_JOB_ID"]}', "job-1"),
        ("${attr.kernel.name}", "linux"),
        ("${node.unique.name}", "n1"),
        ("${node.datacenter}", "dc1"),
    ],
)
def test_names_of_the_node(text: str, value: str) -> None:
    assert interpolate(text, environment(Places(Path("/a"), "main")), NODE, strict=True) == value


def test_templates_are_written_as_they_are(tmp_path: Path) -> None:
    places = Places(tmp_path / "alloc", "main")
    allocdir.make(places)
    template = {**TEMPLATE, "EmbeddedTmpl": "a {{ b }}\n", "LeftDelim": "[[[", "RightDelim": "]]]", "Perms": "0640"}
    allocdir.write_template(places, template, "local/in.txt", no_variable)
    path = places.task_dir / "local" / "in.txt"
    assert path.read_text() == "a {{ b }}\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_templates_for_the_environment(tmp_path: Path) -> None:
    places = Places(tmp_path / "alloc", "main")
    allocdir.make(places)
    found = allocdir.write_template(
        places, {**TEMPLATE, "EmbeddedTmpl": "A=1\n# no\nB=two words\n", "Envvars": True}, "secrets/e", no_variable
    )
    assert found == {"A": "1", "B": "two words"}


@pytest.mark.parametrize("dest", ["../../x", "/etc/passwd", "local/../../../x"])
def test_nothing_is_written_outside(tmp_path: Path, dest: str) -> None:
    places = Places(tmp_path / "alloc", "main")
    allocdir.make(places)
    with pytest.raises(SetupFailure, match="escapes"):
        allocdir.write_template(places, {**TEMPLATE, "EmbeddedTmpl": "x"}, dest, no_variable)


def test_links_lead_nowhere_either(tmp_path: Path) -> None:
    places = Places(tmp_path / "alloc", "main")
    allocdir.make(places)
    (places.task_dir / "local" / "out").symlink_to(tmp_path)
    with pytest.raises(SetupFailure, match="escapes"):
        allocdir.write_template(places, {**TEMPLATE, "EmbeddedTmpl": "x"}, "local/out/x", no_variable)


def test_template_marks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupFailure, match="not supported") as refused:
        allocdir.write_template(
            Places(tmp_path, "main"), {**TEMPLATE, "EmbeddedTmpl": "{{ env }}"}, "local/x", no_variable
        )
    assert refused.value.kind == "Template"
