"""A folder for each test, nothing that runs in it when the test has ended, and the figures at the end of the run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.crash.tally import TALLIES
from tests.system.processes import running_in

_OF_OTHERS: list[str] = []


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An own folder. Tasks outlive their platform, as with Nomad: what still runs in the folder is ended by its id."""
    yield tmp_path
    for pid in running_in(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands its figures to the one that shows them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tallies"] = [str(tally) for tally in TALLIES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: a process has ended."""
    _OF_OTHERS.extend(getattr(node, "workeroutput", {}).get("tallies", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each test that broke something on purpose: how often, and what went wrong."""
    told = [*map(str, TALLIES), *_OF_OTHERS]
    if told:
        terminalreporter.section("faults")
        for line in told:
            terminalreporter.line(line)
