"""What a run of tests started ends with it, however it ends; what others started does not."""

import os
import subprocess

import pytest

from tests import leftovers

pytestmark = pytest.mark.fast


def started(run: str, *command: str) -> subprocess.Popen[bytes]:
    """A program of that run, in a session of its own as servers are."""
    environment = os.environ | {leftovers.MARK: run}
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE)


def test_programs_of_the_run_end_and_others_do_not() -> None:
    ours, others = started("ours", "sleep", "1000"), started("others", "sleep", "1000")
    try:
        assert leftovers.end("ours") == ["sleep 1000"]
        assert ours.wait(10) < 0
        assert others.poll() is None
    finally:
        others.kill()
        others.wait()


def test_one_that_does_not_listen_is_killed() -> None:
    stubborn = started("stubborn", "sh", "-c", "trap '' TERM; echo ready; sleep 1000 & wait; wait")
    assert stubborn.stdout is not None
    assert stubborn.stdout.readline() == b"ready\n"
    assert len(leftovers.end("stubborn")) >= 1
    assert stubborn.wait(10) < 0


def test_a_run_within_another_leaves_the_end_to_that() -> None:
    environment = {"PATH": "/bin"}
    run = leftovers.mark(environment)
    assert run is not None
    assert environment[leftovers.MARK] == run
    assert leftovers.mark(environment) is None
