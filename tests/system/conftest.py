"""A folder for each test, and nothing that runs in it when the test has ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import running_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An own folder. Tasks outlive their platform, as with Nomad: what still runs in the folder is ended by its id."""
    yield tmp_path
    for pid in running_in(tmp_path):
        os.kill(pid, signal.SIGKILL)
