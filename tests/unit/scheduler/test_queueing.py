"""The order of the queue."""

import pytest

from services.scheduler.queueing import QueueKey, precedence, shape_of, turn_of
from tests.builders import a_spec

pytestmark = pytest.mark.fast


def in_order(arrivals: list[str], served: int = 0) -> list[str]:
    """Owners in the order of service, when jobs arrive in this order and nothing is taken meanwhile."""
    turns: list[tuple[int, int, str]] = []
    for age, owner in enumerate(arrivals):
        first = min((turn for turn, _, _ in turns), default=None)
        last = max((turn for turn, _, who in turns if who == owner), default=None)
        turns.append((turn_of(first, last), age, owner))
    return [owner for _, _, owner in sorted(turns)]


def test_one_owner_alone_is_served_in_order_of_age() -> None:
    assert [turn_of(None, None), turn_of(0, 0), turn_of(0, 1)] == [0, 1, 2]


def test_who_comes_after_ten_thousand_jobs_of_another_is_served_next() -> None:
    order = in_order(["alice"] * 1000 + ["bob"])
    assert order.index("bob") <= 1


def test_owners_take_turns() -> None:
    assert in_order(["a", "a", "a", "b", "b", "c"]) == ["a", "b", "c", "a", "b", "a"]


def test_priority_comes_before_turn_and_turn_before_age() -> None:
    urgent, fair, old = QueueKey(precedence(90), 7, "c"), QueueKey(precedence(50), 1, "b"), QueueKey(50, 2, "a")
    assert sorted([old, fair, urgent]) == [urgent, fair, old]


def test_jobs_of_one_shape_differ_in_nothing_that_placement_looks_at() -> None:
    assert shape_of(a_spec(name="one", priority=3)) == shape_of(a_spec(name="two", env={"A": "b"}))
    for other in ({"resources": {"cpu_cores": 2}}, {"vo": "vo.other"}, {"image": "busybox"},
                  {"placement": {"deny_sites": ["prague"]}}, {"metadata": {"serai.mock": ""}}):  # fmt: skip
        assert shape_of(a_spec(**other)) != shape_of(a_spec())
    assert shape_of(a_spec(), ["prague"]) != shape_of(a_spec())
