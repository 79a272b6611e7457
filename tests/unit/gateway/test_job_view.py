"""Whatever order events come in, and however often: a job's view is what its events say, and finals stay."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import job_view
from services.gateway.job_view import JobView, Standing
from shared.contracts import events
from shared.contracts.events import AttemptEvent, JobEvent
from shared.job import FINAL_JOB_STATES
from tests.builders import NOON, a_job, job_id
from tests.unit.gateway.world import attempt_event, job_event

pytestmark = pytest.mark.fast

KINDS = st.lists(st.sampled_from((*events.JOB_EVENTS, *events.ATTEMPT_EVENTS)), max_size=20)


def _history(kinds: list[type[JobEvent] | type[AttemptEvent]]) -> list[JobEvent | AttemptEvent]:
    """Events of these kinds, numbered as their owners would: an attempt begins with each `job.placed`."""
    counts: dict[int, int] = {}
    attempt, made = 0, []
    for kind in kinds:
        if issubclass(kind, events.JobPlaced):
            attempt += 1
        series = attempt if issubclass(kind, AttemptEvent) else 0
        if issubclass(kind, AttemptEvent) and attempt == 0:
            continue
        counts[series] = counts.get(series, 0) + 1
        if issubclass(kind, AttemptEvent):
            made.append(attempt_event(kind, str(job_id(1)), counts[series], attempt))
        else:
            made.append(job_event(kind, str(job_id(1)), counts[series], attempt=attempt))
    return made


def _take(view: JobView, event: JobEvent | AttemptEvent) -> JobView:
    return job_view.apply(view, event, NOON) if job_view.standing(view, event) is Standing.NEXT else view


@given(KINDS, st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_like_the_right_order(
    kinds: list[type[JobEvent] | type[AttemptEvent]], random: object
) -> None:
    history = _history(kinds)
    straight = job_view.accepted(a_job(1))
    for event in history:
        straight = _take(straight, event)
    shuffled = [*history, *history]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    view = job_view.accepted(a_job(1))
    for event in shuffled * (len(history) + 1):
        view = _take(view, event)
    assert (view.state, view.sequence, view.version) == (straight.state, straight.sequence, straight.version)
    assert [a.sequence for a in view.attempts] == [a.sequence for a in straight.attempts]


@given(KINDS)
def test_a_final_state_never_changes_and_the_version_grows_with_every_step(
    kinds: list[type[JobEvent] | type[AttemptEvent]],
) -> None:
    view = job_view.accepted(a_job(1))
    for event in _history(kinds):
        after = job_view.apply(view, event, NOON)
        assert after.version == view.version + 1
        if view.state in FINAL_JOB_STATES:
            assert (after.state, after.finished_at, after.attempt) == (view.state, view.finished_at, view.attempt)
        view = after


def test_an_attempt_of_old_does_not_change_where_the_job_answers() -> None:
    view = job_view.accepted(a_job(1))
    web = events.EndpointAddress(name="web", address="127.0.0.1:1")
    for event in (
        job_event(events.JobPlaced, str(job_id(1)), 1, attempt=1, site="prague"),
        job_event(events.JobQueued, str(job_id(1)), 2, attempt=1),
        job_event(events.JobPlaced, str(job_id(1)), 3, attempt=2, site="bari"),
        attempt_event(events.AttemptRunning, str(job_id(1)), 1, 1, endpoints=(web,)),
    ):
        view = job_view.apply(view, event, NOON)
    assert (view.endpoints, view.attempts[0].endpoints, view.site) == ((), (web,), "bari")


def test_the_first_cancel_request_counts_and_none_after_the_end() -> None:
    view = job_view.accepted(a_job(1))
    once = job_view.cancel_requested(view, NOON)
    assert job_view.cancel_requested(once, NOON + timedelta(hours=1)) is once
    ended = job_view.apply(view, job_event(events.JobSucceeded, str(job_id(1)), 1), NOON)
    assert job_view.cancel_requested(ended, NOON) is ended
