"""Cuts a run at all points into parts."""

import pytest

from tests.system.crash.points import PARTS, Part


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`part`: all points in parts that several processes can share (`-n`), or one part that is a sample."""
    if "part" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all-points")
        parts = [Part(number, PARTS) for number in range(PARTS)] if whole else [Part(0, 1)]
        metafunc.parametrize("part", parts, ids=str)
