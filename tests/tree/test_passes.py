"""`tests/passes`: what a second run, alone, may forgive, and what not."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILS_ONCE = """
from pathlib import Path

def test_steady(): pass

def test_shaky():
    seen = Path("seen")
    if not seen.exists():
        seen.touch()
        raise AssertionError("crowded out")
"""
BROKEN = "def test_broken(): raise AssertionError('always')\n"
MANY = "".join(f"def test_{number}(): raise AssertionError('always')\n" for number in range(4))


def passes(folder: Path, tests: str) -> tuple[int, str]:
    """Exit code and output of a run over these tests."""
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, str(ROOT / "tests" / "passes"), "-p", "no:schemathesis", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout


def test_one_that_fails_among_others_and_passes_alone_is_named(tmp_path: Path) -> None:
    code, output = passes(tmp_path, FAILS_ONCE)
    assert code == 0
    assert "crowded out" in output
    assert output.rstrip().endswith("FLAKY, failed among the others and passed alone:\n  test_some.py::test_shaky")


def test_one_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    code, output = passes(tmp_path, FAILS_ONCE + BROKEN)
    assert code == 1
    assert "FLAKY" not in output


def test_many_at_once_are_no_accident(tmp_path: Path) -> None:
    code, output = passes(tmp_path, MANY)
    assert (code, output.count("short test summary")) == (1, 1)


def test_a_run_that_could_not_be_made_is_not_made_again(tmp_path: Path) -> None:
    code, output = passes(tmp_path, "import nothing_of_this_name\n")
    assert (code, output.count("short test summary")) == (2, 1)
