"""A folder for each test, nothing that runs in it when the test has ended, and the figures at the end of the run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.crash.tally import TALLIES
from tests.system.processes import running_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An own folder. Tasks outlive their platform, as with Nomad: what still runs in the folder is ended by its id."""
    yield tmp_path
    for pid in running_in(tmp_path):
        os.kill(pid, signal.SIGKILL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each test that broke something on purpose: how often, and what went wrong."""
    if TALLIES:
        terminalreporter.section("faults")
        for tally in TALLIES:
            terminalreporter.line(str(tally))
