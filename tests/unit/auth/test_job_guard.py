"""The job's schema as a wall (A4, J1 to J5, J8, J10 to J12): what is not in it cannot be said, at any depth."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.adapters.nomad.specification import job_of
from shared.contracts import commands
from shared.job import MOST_ENV_BYTES, Endpoint, InputFile, JobSpec, OutputFile, SecretFile
from tests.builders import a_spec
from tests.unit.nomad.builders import a_cluster, an_order

pytestmark = pytest.mark.fast
GOOD: dict[str, Any] = {"name": "x", "vo": "vo.climate.example", "command": ["true"]}

FORBIDDEN = {
    "J1": (
        "privileged",
        "cap_add",
        "cap_drop",
        "devices",
        "pid_mode",
        "ipc_mode",
        "uts_mode",
        "userns_mode",
        "network_mode",
        "cgroup_parent",
        "security_opt",
        "runtime",
        "sysctl",
        "ulimit",
        "extra_hosts",
        "volume_driver",
        "user",
    ),
    "J2": ("volumes", "mounts", "mount", "volume_mount", "tmpfs", "host_volume", "csi"),
    "J3": ("driver", "config"),
    "J4": (
        "datacenter",
        "datacenters",
        "region",
        "namespace",
        "node_pool",
        "constraint",
        "constraints",
        "affinity",
        "spread",
        "all_at_once",
        "parent",
        "parent_id",
        "periodic",
        "parameterized",
        "multiregion",
        "consul",
        "vault",
        "identity",
        "identities",
        "dispatch_payload",
        "lifecycle",
        "restart",
        "reschedule",
        "update",
        "artifact",
        "artifacts",
        "template",
        "templates",
        "services",
        "scaling",
        "csi_plugin",
        "secret",
    ),
    "A4": ("owner", "state", "site", "meta", "job_id", "attempt", "grant", "submitted_at", "verb", "policy"),
}


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in FORBIDDEN.items() for name in names])
def test_a4_j1_j2_j3_j4_what_sites_and_platform_decide_cannot_be_asked_for(row: str, name: str) -> None:
    for value in (True, 1, "x", ["x"], {"x": 1}, None):
        with pytest.raises(ValidationError, match="Extra inputs"):
            JobSpec.model_validate({**GOOD, name: value})
    for inner in ("resources", "placement", "retries"):
        with pytest.raises(ValidationError, match="Extra inputs"):
            JobSpec.model_validate({**GOOD, inner: {name: "x"}})


def objects(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    named = [(name, each) for name, each in schema.get("$defs", {}).items() if "properties" in each]
    return [(str(schema["title"]), schema), *named]


@pytest.mark.parametrize("model", [JobSpec, *commands.COMMANDS])
def test_a4_no_object_of_a_job_or_command_takes_what_it_does_not_know(model: Any) -> None:
    found = objects(model.model_json_schema())
    assert len(found) >= 2 or model is not JobSpec
    assert [name for name, each in found if each.get("additionalProperties") is not False] == []


@pytest.mark.parametrize(
    "name",
    [
        "NOMAD_TOKEN",
        "NOMAD_ALLOC_ID",
        "SERAI_JOB_ID",
        "SERAI_",
        "VAULT_TOKEN",
        "CONSUL_HTTP_TOKEN",
        "LD_PRELOAD",
        "NVIDIA_VISIBLE_DEVICES",
        "DOCKER_HOST",
        "DOCKER_TLS_VERIFY",
        "A=B",
        "A\0",
        "",
        "1A",
        "A B",
        "Ä",
        "A" * 200,
        "A\n",
        "-A",
    ],
)
def test_j10_reserved_and_malformed_names_of_the_environment(name: str) -> None:
    with pytest.raises(ValidationError):
        a_spec(env={name: "x"})


def test_j10_names_that_only_look_like_reserved_ones_are_free() -> None:
    env = {
        "LD_LIBRARY_PATH": "x",
        "VAULT_TOKEN_FILE": "x",
        "CUDA_VISIBLE_DEVICES": "0",
        "MY_DOCKER_": "x",
        "NOMAD": "x",
    }
    assert a_spec(env=env).env == env


def test_j10_the_sum_of_an_environment_is_bounded_in_bytes() -> None:
    four = {f"A{number}": "x" * 32_766 for number in range(4)}
    assert sum(len(name) + len(value) for name, value in four.items()) == MOST_ENV_BYTES
    a_spec(env=four)
    for over in (four | {"B": ""}, {f"A{number}": "é" * 16_384 for number in range(4)}):
        with pytest.raises(ValidationError, match="131072 bytes in all"):
            a_spec(env=over)


@pytest.mark.parametrize(
    "path", ["//metadata.internal/", "/\\metadata.internal/", "http://x/", "x", "/a b", "/a\nb", "/\x00", "/a\x1b", ""]
)
def test_s1_a_health_path_cannot_name_another_host(path: str) -> None:
    with pytest.raises(ValidationError):
        a_spec(kind="service", endpoints=[{"name": "web", "health_path": path}])


def test_s1_s2_s3_s5_nothing_in_a_job_is_an_address_that_somebody_would_fetch() -> None:
    """No field of a job takes an address: inputs are texts that come along, images are references of their own kind.

    Whoever adds a field must say here what it is, and guard it, if it is an address.
    """
    assert set(JobSpec.model_fields) == {
        "name", "vo", "kind", "command", "image", "env", "files", "outputs", "resources", "placement", "priority",
        "max_runtime_s", "max_wait_s", "start_deadline_s", "on_lost", "retries", "labels", "metadata", "endpoints",
        "secrets",
    }  # fmt: skip
    assert set(SecretFile.model_fields) == {"name", "file"}
    assert set(InputFile.model_fields) == {"path", "content", "executable"}
    assert set(OutputFile.model_fields) == {"name", "path"}
    assert set(Endpoint.model_fields) == {"name", "port", "protocol", "health_path", "access"}


@pytest.mark.parametrize(
    "image", ["http://x/y", "git::https://x/y", "file:///etc/passwd", "//x/y", "x/y?archive=zip", "a b"]
)
def test_s3_an_image_is_a_reference_and_no_address(image: str) -> None:
    with pytest.raises(ValidationError):
        a_spec(image=image)


def test_j13_an_input_that_is_named_like_an_archive_is_a_text_like_any_other() -> None:
    """Archives are not taken: nothing is ever unpacked, neither by the platform nor, told by it, by Nomad."""
    content = "PK\x03\x04" + "\x00" * 1000
    order = an_order(files=[{"path": f"a.{kind}", "content": content} for kind in ("zip", "tar.gz", "tar")])
    [group] = job_of(order, a_cluster())["TaskGroups"]
    [task] = group["Tasks"]
    assert "Artifacts" not in task
    assert [each["DestPath"].rsplit("/", 1)[-1] for each in task["Templates"]] == ["a.zip", "a.tar.gz", "a.tar"]


def test_j10_an_environment_has_an_end() -> None:
    for env in ({f"A{number}": "x" for number in range(257)}, {"A": "x" * 32_769}, {"A": "\0"}):
        with pytest.raises(ValidationError):
            a_spec(env=env)


@pytest.mark.parametrize(
    "resources",
    [
        {"cpu_cores": -1},
        {"cpu_cores": 0},
        {"cpu_cores": float("nan")},
        {"cpu_cores": float("inf")},
        {"cpu_cores": 1e308},
        {"memory_mib": -1},
        {"memory_mib": 0},
        {"memory_mib": 2**63},
        {"memory_mib": 1.5},
        {"memory_mib": "512GiB"},
        {"disk_mib": 0},
        {"gpus": {"count": -1}},
        {"gpus": {"count": 65}},
        {"gpus": {"count": 1.5}},
        {"cpu_cores": "1 core"},
        {"gpus": {"count": 1, "model": "a\nb"}},
    ],
)
def test_j11_absurd_resources(resources: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_spec(resources=resources)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "", "a\0", "a/", "..", "x" * 300])
def test_j12_paths_stay_inside_the_jobs_own_folder(path: str) -> None:
    with pytest.raises(ValidationError):
        a_spec(files=[{"path": path, "content": ""}])
    with pytest.raises(ValidationError):
        a_spec(outputs=[{"name": "o", "path": path}])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\nb", "a" * 101, "a;b", "$(x)", "a\0"])
def test_j12_names_of_outputs_are_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        a_spec(outputs=[{"name": name, "path": "x"}])


def test_j8_a_command_is_a_list_of_words_and_stays_one() -> None:
    with pytest.raises(ValidationError):
        a_spec(command="rm -rf / ; echo $HOME")
    words = ("sh", "-c", "echo ${HOME}; `id` && {{ env }} | cat\n'\"")
    assert a_spec(command=words).command == words
