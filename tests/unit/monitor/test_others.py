"""What others hold of the nodes: from listings and the stream together, whatever comes twice, late or in silence."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor import others
from services.monitor.others import NOTHING, Others
from shared.engine import AllocationSeen, JobSeen, Line
from tests.unit.monitor.builders import allocation_seen, an_attempt

pytestmark = pytest.mark.fast

HALF = (500, 64, 10)


def theirs(id: str, index: int, uses: tuple[int, int, int] = HALF, node: str = "n1") -> AllocationSeen:
    return AllocationSeen(id, "somebody", "default", index, node_id=node, client_status="running", uses=uses)


def ended(id: str, index: int, node: str = "n1") -> AllocationSeen:
    return replace(theirs(id, index, NOTHING, node), client_status="complete")


def listed(*allocations: AllocationSeen, most: int = others.MOST) -> Others:
    found = Others(most)
    found.asked()
    found.listed(allocations)
    return found


def test_what_they_take_and_free_on_the_stream_is_counted_by_node() -> None:
    found = listed(theirs("a", 1))
    assert found.saw([theirs("b", 2), theirs("c", 3, node="n2")])
    assert found.room == {"n1": (1000, 128, 20), "n2": HALF}
    assert found.saw([ended("a", 4)])
    assert found.room["n1"] == HALF


def test_ours_are_counted_by_the_scheduler_and_not_here() -> None:
    found = listed(allocation_seen(an_attempt(), 1, "running", uses=HALF, node_id="n1"))
    assert not found.saw([allocation_seen(an_attempt(), 2, "running", uses=HALF, node_id="n1")])
    assert found.room == {}


def test_a_sight_that_comes_again_or_late_counts_once() -> None:
    found = listed(theirs("a", 5))
    assert not found.saw([theirs("a", 5), theirs("a", 3), theirs("a", 7)])
    assert found.saw([ended("a", 8)])
    assert not found.saw([theirs("a", 7), ended("a", 8)])
    assert found.room["n1"] == NOTHING


def test_what_the_stream_told_since_the_listing_was_asked_for_is_newer_than_the_listing() -> None:
    found = listed(theirs("a", 1), theirs("b", 2))
    found.asked()
    found.saw([ended("a", 8), theirs("c", 9)])
    found.listed([theirs("a", 1), theirs("b", 2)])
    assert found.room == {"n1": (1000, 128, 20)}, "b and c"
    assert not found.saw([ended("a", 8), theirs("c", 9)])


def test_what_went_in_silence_is_gone_with_the_next_listing() -> None:
    found = listed(theirs("a", 1), theirs("b", 2))
    found.saw([theirs("c", 3)])
    found.asked()
    found.listed([theirs("b", 2)])
    assert found.room == {"n1": HALF}


def test_after_the_indexes_began_anew_small_ones_are_news() -> None:
    found = listed(theirs("a", 900))
    found.forget()
    found.listed([theirs("a", 3)])
    assert found.saw([ended("a", 4)])
    assert found.room["n1"] == NOTHING


def test_of_too_many_the_rest_is_counted_when_it_is_listed_and_never_twice() -> None:
    found = listed(theirs("a", 1), theirs("b", 2), most=1)
    assert found.room == {"n1": (1000, 128, 20)}
    assert not found.saw([theirs("b", 3), ended("b", 4), theirs("c", 5)])
    assert found.saw([ended("a", 6)])
    assert found.room == {"n1": HALF}
    found.asked()
    found.listed([theirs("c", 5)])
    assert found.room == {"n1": HALF}
    assert found.saw([ended("c", 7)])


def test_a_purged_job_holds_nothing_though_no_line_tells_of_its_allocations() -> None:
    """As recorded at Nomad 2.0.6: the purge of a running job is the last that the stream says of it."""
    running, queued = theirs("a", 1), replace(theirs("b", 2), client_status="pending")
    found = listed(running, queued, replace(theirs("c", 3), job_id="another"))
    purge = others.purges([Line(5, (JobSeen("somebody", "default", 1, deleted=True),))])
    assert found.purged(purge)
    assert found.room == {"n1": HALF}
    assert not found.purged(purge)
    assert not found.saw([running])


def test_what_a_job_of_the_same_name_takes_after_the_purge_counts() -> None:
    found = listed(theirs("a", 1))
    found.saw([theirs("b", 6)])
    assert found.purged({("default", "somebody"): 5})
    assert found.room == {"n1": HALF}
    elsewhere = {("elsewhere", "somebody"): 9}
    assert not found.purged(elsewhere)


def test_jobs_that_were_only_stopped_and_ours_are_no_purges_of_others() -> None:
    ours = allocation_seen(an_attempt(), 1, "running").job_id
    lines = [Line(5, (JobSeen("somebody", "default", 5, stop=True), JobSeen(ours, "default", 5, deleted=True)))]
    assert others.purges(lines) == {}


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["n1", "n2"]), st.sampled_from([HALF, (1, 2, 3), NOTHING])),
    max_size=30,
)  # fmt: skip


@given(STEPS, st.integers(0, 30), st.integers(0, 30))
def test_stream_and_listing_together_come_to_what_is_there(
    steps: Sequence[tuple[str, str, tuple[int, int, int]]], asked: int, came: int
) -> None:
    """Each step is one allocation's news; the listing shows all news up to some moment behind its asking."""
    news = [theirs(id, index, uses, f"{node}-{id}") for index, (id, node, uses) in enumerate(steps, 1)]
    found = Others()
    for number, one in enumerate(news):
        if number == asked:
            found.asked()
        if number == asked + came:
            found.listed({seen.id: seen for seen in news[: asked + came // 2]}.values())
        found.saw([one])
        found.saw([one])
    at_last = {one.id: one for one in news}
    expected = {one.node_id: one.uses for one in at_last.values() if one.uses != NOTHING}
    assert {node: use for node, use in found.room.items() if use != NOTHING} == expected


def test_room_is_told_soon_and_less_often_where_that_never_ends_or_the_site_is_large() -> None:
    assert others.patience_s([], 3, 100.0) == others.SOON_S
    assert others.patience_s([10.0], 3, 100.0) == others.SOON_S
    assert others.patience_s([99.8], 3, 100.0) == pytest.approx(0.8)
    assert others.patience_s([90.0 + number for number in range(10)], 3, 100.0) == pytest.approx(9.0)
    assert others.patience_s([99.0], 5000, 100.0) == pytest.approx(99.0)
