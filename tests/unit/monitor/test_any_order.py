"""Whatever order, doubling or loss of lines: a legal life, outcomes that stand, numbers without holes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor import evidence
from services.monitor.attempts import TABLE, TOLD_LATE
from services.monitor.evidence import Evidence
from shared.contracts.events import AttemptEvent
from shared.engine import AllocationSeen, JobSeen, Line
from shared.job import ATTEMPT_OUTCOMES
from tests.examples import examples
from tests.unit.monitor.recordings.replaying import NAMES, Replay, lines

pytestmark = pytest.mark.fast

quick = examples(200)


@st.composite
def disorder(draw: st.DrawFn) -> list[Line]:
    """Lines of a recording in any order, some often, some never."""
    every = lines(draw(st.sampled_from(NAMES)))
    return draw(st.lists(st.sampled_from(every), max_size=2 * len(every)))


@quick
@given(disorder())
def test_any_order_gives_a_legal_life(said: list[Line]) -> None:
    replay = Replay().feed(said)
    for attempt, told in replay.told.items():
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        check_life(told)
        assert replay.records[attempt].sequence == len(told)


def check_life(told: list[AttemptEvent]) -> None:
    before = None
    for event in told:
        assert (before, event.status) in TABLE or (before, event.status) in TOLD_LATE
        before = before if (before, event.status) in TOLD_LATE else event.status
    assert sum(event.status in ATTEMPT_OUTCOMES for event in told) <= 2


@quick
@given(disorder(), st.integers(0, 1000))
def test_a_restart_at_any_moment_changes_nothing(said: list[Line], cut: int) -> None:
    place = cut % (len(said) + 1)
    assert Replay().feed(said[:place]).restarted().feed(said[place:]).told == Replay().feed(said).told


@quick
@given(st.sampled_from(NAMES).flatmap(lambda name: st.permutations(lines(name))))
def test_what_is_known_in_the_end_does_not_depend_on_the_order(said: list[Line]) -> None:
    in_order = sorted(said, key=lambda line: line.index)
    assert known_of(said) == known_of(in_order)


def known_of(said: list[Line]) -> dict[str, tuple[object, object]]:
    found: dict[str, Evidence] = {}
    for line in said:
        for seen in line.seen:
            if isinstance(seen, AllocationSeen | JobSeen):
                id = seen.id if isinstance(seen, JobSeen) else seen.job_id
                found[id] = evidence.fold(found.get(id, Evidence()), seen)
    return {id: (one.allocations, one.job) for id, one in found.items()}
