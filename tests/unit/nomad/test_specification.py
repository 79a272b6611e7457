"""What an order becomes in Nomad's words, and that user text stays data on the way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.nomad.specification import driver_of, job_of, only_if_new, tombstone_of
from shared.errors import Refused
from tests.unit.nomad.builders import a_cluster, an_order, as_config, as_env, known_to_the_task

pytestmark = pytest.mark.fast

MINUTE = 60 * 10**9
HOSTILE = st.lists(
    st.sampled_from(
        ["$", "{", "}", "%", "${", "%{", "${HOME}", "$${", "%%{", "{{", "}}", "<serai-0<", "a", " ", "'", "\n"]
    )
).map("".join)
TEXTS = (HOSTILE | st.text(st.characters(exclude_categories=["Cs"]))).map(lambda text: text.replace("\0", ""))


def the_task(job: dict[str, Any]) -> dict[str, Any]:
    (group,) = job["TaskGroups"]
    (task,) = group["Tasks"]
    return dict(task)


def the_group(job: dict[str, Any]) -> dict[str, Any]:
    (group,) = job["TaskGroups"]
    return dict(group)


def test_a_batch_job_runs_once_and_nomad_never_runs_it_again() -> None:
    group = the_group(job_of(an_order(max_runtime_s=600), a_cluster()))
    assert group["RestartPolicy"] == {"Attempts": 0, "Mode": "fail"}
    assert group["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
    assert group["Disconnect"] == {"LostAfter": 30 * 24 * 60 * MINUTE, "Replace": False}


def test_nomads_own_limit_for_batch_lies_a_minute_behind_the_platforms() -> None:
    assert the_group(job_of(an_order(max_runtime_s=600), a_cluster()))["MaxRunDuration"] == 11 * MINUTE


def test_a_service_is_kept_up_by_nomad_and_has_no_time_limit() -> None:
    group = the_group(job_of(an_order(kind="service"), a_cluster()))
    assert group["RestartPolicy"]["Attempts"] == 2
    assert group["ReschedulePolicy"]["Unlimited"]
    assert group["Disconnect"]["Replace"]
    assert "MaxRunDuration" not in group


def test_meta_says_whose_work_it_is_and_which_outputs_are_kept() -> None:
    order = an_order(7, attempt=2, outputs=[{"name": "model", "path": "out/model.bin"}])
    job = job_of(order, a_cluster())
    assert job["ID"] == f"{order.attempt.job_id}-002"
    assert job["Meta"]["serai_attempt"] == "2"
    assert job["Meta"]["serai_nonce"] == "n-1"
    assert json.loads(job["Meta"]["serai_outputs"]) == [{"name": "model", "path": "out/model.bin"}]
    assert not any("." in key for key in job["Meta"]), "Nomad makes no variables of dotted keys"


def test_resources_are_nomads_units_at_the_site() -> None:
    wanted = {"cpu_cores": 1.5, "memory_mib": 512, "disk_mib": 100}
    job = job_of(an_order(site={"mhz_per_core": 2400}, resources=wanted), a_cluster())
    assert the_task(job)["Resources"] == {"CPU": 3600, "MemoryMB": 512}
    assert the_group(job)["EphemeralDisk"] == {"SizeMB": 100}


@pytest.mark.parametrize("disk", [10, 11, 100, 300, 5000])
def test_the_log_files_always_fit_into_the_disk(disk: int) -> None:
    logs = the_task(job_of(an_order(resources={"disk_mib": disk}), a_cluster()))["LogConfig"]
    assert 0 < logs["MaxFiles"] * logs["MaxFileSizeMB"] < disk


@pytest.mark.parametrize(
    ("model", "device"),
    [
        (None, {"Name": "gpu", "Count": 2}),
        ("nvidia/gpu/A100", {"Name": "nvidia/gpu/A100", "Count": 2}),
        (
            "A100",
            {
                "Name": "gpu",
                "Count": 2,
                "Constraints": [{"LTarget": "${device.model}", "Operand": "=", "RTarget": "A100"}],
            },
        ),
    ],
)
def test_gpus_become_a_device_block(model: str | None, device: dict[str, Any]) -> None:
    job = job_of(an_order(resources={"gpus": {"count": 2, "model": model}}), a_cluster())
    assert the_task(job)["Resources"]["Devices"] == [device]


def test_the_driver_follows_image_site_and_cluster() -> None:
    bare, image = an_order(), an_order(image="python:3.12", command=())
    assert driver_of(bare.spec, bare.site, a_cluster()) == "raw_exec"
    assert driver_of(bare.spec, bare.site, a_cluster(command_driver="exec")) == "exec"
    assert driver_of(image.spec, image.site, a_cluster()) == "docker"
    site = bare.site.model_copy(update={"hardware": ("exec",)})
    assert driver_of(bare.spec, site, a_cluster()) == "exec"


def test_a_command_runs_in_the_task_folder_and_an_image_alone_in_its_own() -> None:
    both = the_task(job_of(an_order(image="python:3.12", command=("python", "-V")), a_cluster()))["Config"]
    alone = the_task(job_of(an_order(image="python:3.12", command=()), a_cluster()))["Config"]
    assert both == {
        "image": "python:3.12",
        "command": "python",
        "args": ["-V"],
        "work_dir": "${NOMAD_TASK_DIR}",
    }
    assert alone == {"image": "python:3.12"}


def test_mock_work_needs_the_clusters_leave() -> None:
    order = an_order(metadata={"serai.mock": "run_for=10ms, exit_code=3"})
    with pytest.raises(Refused) as refused:
        job_of(order, a_cluster())
    assert refused.value.code == "mock_not_allowed"
    task = the_task(job_of(order, a_cluster(allow_mock=True)))
    assert (task["Driver"], task["Config"]) == ("mock_driver", {"run_for": "10ms", "exit_code": 3})
    assert task["LogConfig"]["Disabled"]


@pytest.mark.parametrize("words", ["exit_code=x", "plugin_exit_after=1s", "run_for"])
def test_a_mock_that_nobody_knows_is_refused(words: str) -> None:
    with pytest.raises(Refused) as refused:
        job_of(an_order(metadata={"serai.mock": words}), a_cluster(allow_mock=True))
    assert refused.value.code == "mock_invalid"


def test_endpoints_are_dynamic_unless_a_bare_command_needs_its_port() -> None:
    asked: dict[str, Any] = {"kind": "service", "endpoints": [{"name": "http"}, {"name": "admin", "port": 8081}]}
    bare = the_group(job_of(an_order(**asked), a_cluster()))["Networks"][0]
    boxed = job_of(an_order(image="nginx", **asked), a_cluster())
    assert bare["DynamicPorts"] == [{"Label": "http", "To": 0}]
    assert bare["ReservedPorts"] == [{"Label": "admin", "Value": 8081}]
    assert the_group(boxed)["Networks"][0]["DynamicPorts"][1] == {"Label": "admin", "To": 8081}
    assert the_task(boxed)["Config"]["ports"] == ["http", "admin"]


def test_the_platforms_variables_win_and_the_users_traceparent_stays() -> None:
    env = the_task(job_of(an_order(env={"TRACEPARENT": "mine", "A": "b"}), a_cluster()))["Env"]
    assert env["TRACEPARENT"] == "mine"
    assert env["SERAI_SITE"] == "prague"
    assert env["A"] == "b"


def test_a_tombstone_is_stopped_and_would_run_nothing_even_if_it_were_not() -> None:
    order = an_order()
    body = only_if_new(tombstone_of(order.attempt, "default"))
    assert (body["EnforceIndex"], body["JobModifyIndex"]) == (True, 0)
    assert body["Job"]["ID"] == order.attempt.nomad_id
    assert body["Job"]["Stop"]
    assert the_group(body["Job"])["Count"] == 0


def test_ordinary_text_is_sent_as_it_is() -> None:
    job = job_of(an_order(command=("sh", "-c", "echo $HOME $(id) 100%"), env={"A": "$B"}), a_cluster())
    assert the_task(job)["Config"]["args"][1] == "echo $HOME $(id) 100%"
    assert "serai_dollar" not in job["Meta"]


@given(words=st.lists(TEXTS, min_size=1, max_size=5))
def test_any_command_reaches_the_driver_byte_for_byte(words: list[str]) -> None:
    job = job_of(an_order(command=tuple(words)), a_cluster())
    config, known = the_task(job)["Config"], known_to_the_task(job)
    assert [as_config(word, known) for word in (config["command"], *config["args"])] == words


@given(value=TEXTS)
def test_any_environment_reaches_the_task_byte_for_byte(value: str) -> None:
    job = job_of(an_order(env={"A": value}), a_cluster())
    assert as_env(the_task(job)["Env"]["A"], known_to_the_task(job)) == value


@given(content=TEXTS, name=HOSTILE.filter(lambda name: 0 < len(name) < 200))
def test_any_file_is_written_byte_for_byte_under_its_own_name(content: str, name: str) -> None:
    job = job_of(an_order(files=[{"path": name, "content": content}]), a_cluster())
    (template,) = the_task(job)["Templates"]
    text, left, right = template["EmbeddedTmpl"], template["LeftDelim"], template["RightDelim"]
    assert (text == content and left not in content) or (content == "" and text == f'{left}""{right}')
    assert as_env(template["DestPath"], known_to_the_task(job)) == f"local/{name}"


@given(content=TEXTS)
def test_the_same_order_always_gives_the_same_specification(content: str) -> None:
    order = an_order(files=[{"path": "a", "content": content}])
    assert job_of(order, a_cluster()) == job_of(order, a_cluster())
