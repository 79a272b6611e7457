"""Whatever comes, in whatever order, however often: the promises of the job's life hold."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import deadlines, jobs
from services.scheduler.deadlines import Deadline, Graces
from services.scheduler.decisions import (
    AttemptSeen,
    Call,
    CancelAsked,
    Drop,
    Finished,
    IdClosed,
    Input,
    Owe,
    Passed,
    Registered,
    RegisterRefused,
    RegisterTaken,
    RegisterVoid,
    StrayEnded,
    Tell,
    Waits,
)
from services.scheduler.jobs import Rules
from services.scheduler.records import Job, Outcome, Standing
from services.scheduler.retry import Limits
from shared.contracts.events import JobEvent
from shared.contracts.reasons import ReasonCode, because
from shared.engine import Closing
from shared.job import ATTEMPT_OUTCOMES, FINAL_JOB_STATES, AttemptStatus, FailureClass, JobState
from tests.builders import NOON, a_job
from tests.examples import examples
from tests.unit.scheduler.builders import placed

pytestmark = pytest.mark.fast

RULES = Rules(Limits(most_attempts=6), outcome_s=2)
GRACES = Graces()

numbers = st.sampled_from([0, 0, 0, 1, 2, 3])
"""0 stands for the latest attempt."""
outcomes = st.builds(
    lambda status, failure: Outcome(status, failure if status is AttemptStatus.FAILED else None, 3),
    st.sampled_from(sorted(ATTEMPT_OUTCOMES)),
    st.sampled_from(list(FailureClass)),
)
alive = st.sampled_from(sorted(set(AttemptStatus) - ATTEMPT_OUTCOMES))
things: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda n, seq, status: AttemptSeen(n, seq, status, "node"), numbers, st.integers(1, 9), alive),
    st.builds(lambda n, seq, out: AttemptSeen(n, seq, out.status, None, out), numbers, st.integers(1, 9), outcomes),
    st.builds(Registered, numbers),
    st.builds(RegisterVoid, numbers),
    st.builds(RegisterTaken, numbers),
    st.builds(lambda n: RegisterRefused(n, "bad"), numbers),
    st.builds(IdClosed, numbers, st.sampled_from(list(Closing))),
    st.just(CancelAsked(NOON)),
    st.just(Waits(because(ReasonCode.WAITING_FOR_ROOM))),
    st.sampled_from(["site lost", "again"]),
    *[st.just("place")] * 4,
    *[st.just("deadline")] * 3,
    st.builds(lambda hours: ("hours", hours), st.integers(1, 30)),
)
specs = st.fixed_dictionaries(
    {
        "on_lost": st.sampled_from(["retry", "wait", "fail"]),
        "kind": st.sampled_from(["batch", "service"]),
        "retries": st.fixed_dictionaries({"attempts": st.integers(0, 3)}),
    }
)


class Checked:
    """A job whose promises are checked after every step."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.now = NOON
        self.events: list[JobEvent] = []
        self.owed: set[tuple[Call, int]] = set()
        self.standings: dict[int, Standing] = {}
        self.finished = 0
        self.last: Input | None = None
        decision = jobs.submitted(a_job(**spec), 0, NOON)
        self.job: Job = decision.job
        self._take(decision)

    def tell(self, thing: Any) -> None:
        self.now += timedelta(seconds=1)
        match thing:
            case ("hours", int(hours)):
                self.now += timedelta(hours=hours)
            case "place" if self.job.state is JobState.QUEUED:
                self.input(placed(f"site-{self.job.number}"))
            case "deadline":
                self.now = max(self.now, deadlines.next_due(self.job, GRACES) or self.now)
                for deadline in deadlines.due(self.job, self.now, GRACES)[:1]:
                    self.input(Passed(deadline))
            case "site lost":
                self.input(Passed(Deadline.SITE_GRACE))
            case "again" if self.last is not None and not isinstance(self.last, Passed | type(placed())):
                self.input(self.last)
            case str():
                return
            case _:
                self.input(thing)

    def input(self, told: Input) -> None:
        if getattr(told, "number", None) == 0:
            told = replace(told, number=max(self.job.number, 1))  # type: ignore[call-arg]
        self.last = told
        before = self.job
        decision = jobs.decide(before, told, self.now, RULES)
        self.job = decision.job
        self._take(decision)
        self._check(before, told)

    def _take(self, decision: jobs.Decision) -> None:
        for effect in decision.effects:
            match effect:
                case Tell(event):
                    self.events.append(event)
                case Owe(call, number):
                    self.owed.add((call, number))
                case Drop(call, number):
                    self.owed.discard((call, number))
                case StrayEnded(number):
                    self.owed.discard((Call.CLOSE, number))
                    self.standings[number] = Standing.ENDED
                case Finished():
                    self.finished += 1
        if self.job.attempt is not None:
            self.standings[self.job.number] = self.job.attempt.standing

    def _check(self, before: Job, told: Input) -> None:
        assert [event.sequence for event in self.events] == list(range(1, self.job.sequence + 1))
        if before.state in FINAL_JOB_STATES:
            assert self.job.state is before.state and self.job.sequence == before.sequence
        older = getattr(told, "number", before.number) != before.number
        if older:
            assert (self.job.state, self.job.sequence) == (before.state, before.sequence)
        known = before.attempt is not None and before.attempt.outcome is not None
        if known and isinstance(told, AttemptSeen) and told.outcome is not None:
            assert self.job.state is before.state, "the first outcome stands"
        self._check_attempts(before)

    def _check_attempts(self, before: Job) -> None:
        current = [n for n, standing in self.standings.items() if standing in (Standing.OPEN, Standing.CLOSING)]
        flying = self.job.state in (JobState.PLACED, JobState.STARTING, JobState.RUNNING, JobState.CANCELLING)
        assert current == ([self.job.number] if flying else [])
        for number, standing in self.standings.items():
            if standing in (Standing.CLOSING, Standing.ABANDONED):
                assert (Call.CLOSE, number) in self.owed
                assert (Call.SUBMIT, number) not in self.owed
            if standing is Standing.ENDED:
                assert (Call.SUBMIT, number) not in self.owed
        assert self.finished == (1 if self.job.state in FINAL_JOB_STATES else 0)
        if self.job.state is JobState.QUEUED and before.state is not JobState.QUEUED:
            self._check_given_up()

    def _check_given_up(self) -> None:
        """Another attempt only when nothing can start under this one's id, or its site is lost."""
        left, told = self.job.attempt, self.last
        assert left is not None
        stopped = left.outcome is not None and left.outcome.status is AttemptStatus.STOPPED
        refused = isinstance(told, RegisterRefused)
        assert left.closed or stopped or refused or told == Passed(Deadline.SITE_GRACE)


@examples(400)
@given(specs, st.lists(things, min_size=12, max_size=60))
def test_any_history_keeps_every_promise(spec: dict[str, Any], history: list[Any]) -> None:
    checked = Checked(spec)
    for thing in history:
        checked.tell(thing)


@examples(200)
@given(st.permutations(["starting", "running", "succeeded"]), st.lists(st.integers(0, 2), max_size=6))
def test_the_same_reports_in_any_order_end_the_same(order: list[str], doubled: list[int]) -> None:
    """A succeeded attempt makes a succeeded job, whatever came before or after, once or often."""
    sequences = {"starting": 1, "running": 2, "succeeded": 3}
    checked = Checked({})
    checked.tell("place")
    for name in [*order, *(order[index] for index in doubled)]:
        status = AttemptStatus(name)
        out = Outcome(status) if name == "succeeded" else None
        checked.input(AttemptSeen(1, sequences[name], status, None, out))
    assert checked.job.state is JobState.SUCCEEDED
    assert checked.owed == set()


@examples(200)
@given(specs, st.lists(things, min_size=8, max_size=30), st.integers(0, 25))
def test_telling_everything_twice_changes_nothing(spec: dict[str, Any], history: list[Any], cut: int) -> None:
    """Redelivery of any prefix of the messages: what was decided stays decided for a job that is over."""
    checked = Checked(spec)
    for thing in history:
        checked.tell(thing)
    if checked.job.state in FINAL_JOB_STATES:
        sequence = checked.job.sequence
        for thing in history[:cut]:
            checked.tell(thing)
        assert checked.job.sequence == sequence
