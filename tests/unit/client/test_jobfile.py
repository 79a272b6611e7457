"""Job files: what is read from them, and where a complaint points."""

from pathlib import Path

import pytest

from serai import jobfile
from serai.errors import BadJobFile, Fault, Problem

pytestmark = pytest.mark.fast

TEXT = """\
# a comment
name: hello
command: [echo, hello]
resources:
  cpu: 1

  memroy: 512MiB
files:
  - {path: a, content: x}
  - path: b
    content: y
"""


def parsed(text: str, folder: Path = Path()) -> jobfile.JobFile:
    return jobfile.parse(text, "job.yaml", folder)


def test_an_unknown_field_is_told_with_its_line_and_the_nearest_name() -> None:
    fault = Fault("/resources/memroy", "unknown field 'memroy'", "did you mean 'memory'?")
    told = parsed(TEXT).complaint(fault)
    assert told == "job.yaml:7: unknown field 'memroy' (did you mean 'memory'?)"


@pytest.mark.parametrize(
    ("pointer", "line"),
    [("/name", 2), ("/resources/cpu", 5), ("/files/0/path", 9), ("/files/1/content", 11), ("#/name", 2)],
)
def test_a_pointer_leads_to_its_line(pointer: str, line: int) -> None:
    assert parsed(TEXT).line_of(pointer) == line


def test_what_is_missing_points_to_what_is_around_it() -> None:
    assert parsed(TEXT).line_of("/resources/gpus/count") == 4
    assert parsed(TEXT).complaint(Fault("/vo", "the field 'vo' is required")).endswith("the field 'vo' is required")


def test_a_fault_without_its_field_in_the_words_gets_the_path() -> None:
    told = parsed(TEXT).complaint(Fault("/files/1/path", "must be relative"))
    assert told == "job.yaml:10: files[1].path: must be relative"


def test_all_faults_of_a_problem_become_lines() -> None:
    faults = [Fault("/name", "too long"), Fault("/resources/cpu", "too small")]
    bad = parsed(TEXT).complaints(Problem(422, errors=faults))
    assert bad is not None and [line.split(":")[1] for line in bad.lines] == ["2", "5"]


def test_broken_yaml_names_the_line() -> None:
    with pytest.raises(BadJobFile, match=r"job.yaml:3: not YAML"):
        parsed("name: x\nresources:\n\tcpu: 1\n")


def test_a_key_given_twice_names_the_second_line() -> None:
    with pytest.raises(BadJobFile, match=r"job.yaml:3: field 'name' is given twice"):
        parsed("name: a\nvo: b\nname: c\n")


def test_norway_is_a_country_and_times_are_text() -> None:
    job = parsed("placement: {countries: {allow: [NO]}}\nmax_runtime: 1:30\nlabels: {day: 2026-11-24, on: yes}\n").job
    assert job["placement"]["countries"]["allow"] == ["NO"]
    assert job["max_runtime"] == "1:30"
    assert job["labels"] == {"day": "2026-11-24", "on": "yes"}


def test_json_with_tabs_is_taken() -> None:
    assert parsed('{\n\t"name":\t"x"\n}').job == {"name": "x"}


def test_something_else_than_a_mapping_is_refused() -> None:
    with pytest.raises(BadJobFile, match="holds one mapping"):
        parsed("- a\n- b\n")


def test_from_brings_the_content_of_a_local_file(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("grüezi", encoding="utf-8")
    job = parsed("files:\n  - {path: x, from: ./in.txt, executable: true}\n", tmp_path).job
    assert job["files"] == [{"path": "x", "executable": True, "content": "grüezi"}]


def test_every_input_that_cannot_travel_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (jobfile.INLINE_LIMIT + 1))
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    text = "files:\n  - {path: a, from: big}\n  - {path: b, from: raw}\n  - {path: c, from: gone}\n"
    with pytest.raises(BadJobFile) as caught:
        parsed(text, tmp_path)
    big, raw, gone = caught.value.lines
    assert big.startswith("job.yaml:2: ") and "262,144" in big
    assert raw.startswith("job.yaml:3: ") and "not UTF-8" in raw
    assert gone.startswith("job.yaml:4: ") and "No such file" in gone
