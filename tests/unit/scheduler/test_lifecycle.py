"""The table of the job's life decides every pair."""

import pytest

from services.scheduler import lifecycle
from services.scheduler.lifecycle import IGNORED, TABLE, IllegalStep, JobStep
from shared.job import FINAL_JOB_STATES, JobState

pytestmark = pytest.mark.fast

PAIRS = [(state, step) for state in JobState for step in JobStep]


@pytest.mark.parametrize(("state", "step"), PAIRS, ids=lambda value: value.value)
def test_every_pair_moves_or_is_ignored_or_is_an_error(state: JobState, step: JobStep) -> None:
    moves, ignored = (state, step) in TABLE, (state, step) in IGNORED
    assert not (moves and ignored)
    if moves:
        assert lifecycle.step(state, step) is TABLE[state, step]
    elif ignored:
        assert lifecycle.step(state, step) is None
        assert IGNORED[state, step]
    else:
        with pytest.raises(IllegalStep):
            lifecycle.step(state, step)


def test_final_states_never_change() -> None:
    assert not [state for state, _ in TABLE if state in FINAL_JOB_STATES]
    assert all((state, step) in IGNORED for state in FINAL_JOB_STATES for step in JobStep)


def test_every_state_but_accepted_can_be_reached_and_every_live_one_can_end() -> None:
    reached, frontier = {JobState.ACCEPTED}, {JobState.ACCEPTED}
    while frontier:
        frontier = {after for (before, _), after in TABLE.items() if before in frontier} - reached
        reached |= frontier
    assert reached == set(JobState)
    for state in set(JobState) - FINAL_JOB_STATES - {JobState.ACCEPTED}:
        assert any(after in FINAL_JOB_STATES for (before, _), after in TABLE.items() if before is state)


def test_a_cancelled_job_that_finished_first_has_succeeded() -> None:
    assert lifecycle.step(JobState.CANCELLING, JobStep.ATTEMPT_SUCCEEDED) is JobState.SUCCEEDED


def test_a_job_being_cancelled_is_never_queued_again() -> None:
    with pytest.raises(IllegalStep):
        lifecycle.step(JobState.CANCELLING, JobStep.REQUEUED)
