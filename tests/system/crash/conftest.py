"""Tells the figures at the end of the run."""

import pytest

from tests.system.crash.tally import TALLIES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each crash test that ran."""
    if TALLIES:
        terminalreporter.section("crashes")
        for tally in TALLIES:
            terminalreporter.line(str(tally))
