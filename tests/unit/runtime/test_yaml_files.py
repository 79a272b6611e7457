"""What is wrong with an operator's file is told with file, line, and how to mend it."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.errors import Misconfigured
from shared.runtime import yaml_files

pytestmark = pytest.mark.fast


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cores: int = Field(gt=0)


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern="^[a-z]+$")
    parts: tuple[Part, ...] = ()


KIND = TypeAdapter(tuple[Thing, ...])


def told(tmp_path: Path, text: str | bytes) -> list[str]:
    path = tmp_path / "things.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Misconfigured) as caught:
        yaml_files.read(path, KIND, "a list of things")
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.what.splitlines()]


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "things.yaml").write_text("- name: a\n  parts: [{cores: 2}]\n")
    assert yaml_files.read(tmp_path / "things.yaml", KIND, "x") == (Thing(name="a", parts=(Part(cores=2),)),)


def test_every_fault_is_told_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    text = "- name: a\n  pards: []\n- parts:\n    - cores: 1\n    - coers: 1\n  name: B\n"
    assert told(tmp_path, text) == [
        "things.yaml:2: 'pards' is not known; did you mean 'parts'?",
        "things.yaml:6: name: 'B' does not have the form ^[a-z]+$",
        "things.yaml:5: the field 'cores' is required",
        "things.yaml:5: 'coers' is not known; did you mean 'cores'?",
    ]


def test_a_value_that_is_out_of_bounds_is_shown(tmp_path: Path) -> None:
    assert told(tmp_path, "- {name: a, parts: [{cores: 0}]}\n") == [
        "things.yaml:1: cores: should be greater than 0, not 0"
    ]


@pytest.mark.parametrize("text", ["", "a: b\n", "just words\n", "- 1\n"])
def test_something_else_altogether_is_told_once(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text) == ["things.yaml:1: this is not a list of things"]


def test_what_is_no_yaml_or_no_text_or_not_there(tmp_path: Path) -> None:
    assert told(tmp_path, "- name: a\n  parts: ]\n")[0].startswith("things.yaml:2: not YAML: ")
    assert told(tmp_path, b"\xff\xfe") == ["things.yaml: is not UTF-8 text; it should be a list of things"]
    with pytest.raises(Misconfigured, match="No such file or directory; it should be a list of things"):
        yaml_files.read(tmp_path / "absent.yaml", KIND, "a list of things")
