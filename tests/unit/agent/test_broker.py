"""The ring buffer's rules, as measured on a real agent (reference/nomad-verified.md, table a)."""

import json

import pytest

from services.embedded.agent.broker import Broker, Subscription
from services.embedded.agent.rows import Event, Line

ALL = {"*": frozenset(("*",))}


def line(index: int, topic: str = "Job", key: str = "j", namespace: str = "default") -> Line:
    return Line(index, [Event(topic, "T", key, namespace, None, {topic: {"ID": key}}, index)])


def read(broker: Broker, subscription: Subscription) -> list[int]:
    return [json.loads(text)["Index"] for text in broker.next_bytes(subscription).splitlines()]


def holding(*indexes: int, size: int = 5) -> Broker:
    broker = Broker(size)
    for index in indexes:
        broker.publish(line(index))
    return broker


@pytest.mark.parametrize(
    ("asked", "first", "why"),
    [
        (23, 23, "the last index is delivered again: no gap"),
        (21, 21, "the middle"),
        (19, 19, "two lines of one index: from the first of them"),
        (3, 19, "pruned: the oldest, silently"),
        (22, 23, "in a hole: the next higher"),
        (1023, 23, "newer than the newest: the newest"),
        (0, 19, "everything"),
    ],
)
def test_where_a_reader_starts(asked: int, first: int, why: str) -> None:
    broker = holding(19, 19, 20, 21, 23)
    assert read(broker, broker.subscribe(ALL, None, asked))[0] == first, why


def test_both_lines_of_a_shared_index_come() -> None:
    broker = holding(19, 19, 20)
    assert read(broker, broker.subscribe(ALL, None, 19)) == [19, 19, 20]


def test_the_buffer_holds_one_more_than_its_size() -> None:
    broker = holding(*range(1, 20))
    assert read(broker, broker.subscribe(ALL, None, 0)) == [14, 15, 16, 17, 18, 19]


def test_an_empty_buffer_replays_nothing_and_then_goes_live() -> None:
    broker = holding()
    subscription = broker.subscribe(ALL, None, 23)
    assert read(broker, subscription) == []
    broker.publish(line(8))
    assert read(broker, subscription) == [8]


def test_lines_without_wanted_events_are_left_out() -> None:
    broker = Broker(10)
    for made in (line(1), line(2, "Node", namespace=""), line(3, key="other"), line(4, namespace="vo-b")):
        broker.publish(made)
    assert read(broker, broker.subscribe({"Job": frozenset(("j",))}, frozenset(("default",)), 0)) == [1]
    assert read(broker, broker.subscribe({"Node": frozenset(("*",))}, frozenset(("default",)), 0)) == [2]
    assert read(broker, broker.subscribe(ALL, frozenset(("vo-b",)), 0)) == [2, 4], "nodes belong to no namespace"


def test_a_filtered_line_holds_only_what_was_asked_for() -> None:
    broker = Broker(10)
    both = Line(7, [*line(7).events, *line(7, "Node").events])
    broker.publish(both)
    found = json.loads(broker.next_bytes(broker.subscribe({"Job": frozenset(("*",))}, None, 0)))
    assert [event["Topic"] for event in found["Events"]] == ["Job"]


def test_a_reader_that_is_too_slow_is_dropped_without_a_word() -> None:
    broker = holding(1)
    subscription = broker.subscribe(ALL, None, 1)
    for index in range(2, 12):
        broker.publish(line(index))
    assert broker.next_bytes(subscription) == b""
    assert subscription.dropped


def test_readers_are_woken() -> None:
    broker = holding(1)
    woken: list[int] = []
    subscription = broker.subscribe(ALL, None, 1)
    subscription.wake = lambda: woken.append(1)
    broker.publish(line(2))
    broker.unsubscribe(subscription)
    broker.publish(line(3))
    assert woken == [1]
