"""The figures of tests that break something on purpose, shown at the end of a run: how often, and what went wrong.

A plugin that `conftest.py` registers: the process that shows them collects no tests itself when several share them.
"""

from typing import Any

import pytest

from tests.system.crash.tally import TALLIES

_OF_OTHERS: list[str] = []


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
    told = [*map(str, TALLIES), *_OF_OTHERS]
    if told:
        terminalreporter.section("faults")
        for line in told:
            terminalreporter.line(line)
