"""Streams that break: resumed where they were, gaps told, ends recognised."""

import pytest

from serai import Event, Gap, Problem, Serai, Unreachable
from shared.runtime.in_process import InProcessTransport
from tests.unit.client.builders import URL, Time, a_client, a_pace
from tests.unit.client.fake_gateway import TOKEN, FakeGateway, event, frames, job_id, problem, sse

pytestmark = pytest.mark.fast

QUEUED, RUNNING, DONE = event(1, "job.queued"), event(2, "job.running"), event(3, "job.succeeded")


async def heard(gateway: FakeGateway, time: Time | None = None) -> list[Event | Gap]:
    async with a_client(gateway, time) as serai:
        return [fact async for fact in serai.events(job_id=job_id(1))]


def kinds(facts: list[Event | Gap]) -> list[str]:
    return [fact.kind if isinstance(fact, Event) else "gap" for fact in facts]


async def test_a_broken_stream_goes_on_behind_the_last_event() -> None:
    gateway = FakeGateway(
        streams=[sse(frames(("e-1", QUEUED), ("e-2", RUNNING))), sse(frames(("e-3", DONE), end="final"))]
    )
    assert kinds(await heard(gateway)) == ["job.queued", "job.running", "job.succeeded"]
    assert [asked.headers.get("last-event-id") for asked in gateway.asked] == [None, "e-2"]


async def test_half_an_event_is_not_an_event() -> None:
    whole = frames(("e-1", QUEUED), ("e-2", RUNNING))
    gateway = FakeGateway(streams=[sse(whole[:-20]), sse(frames(("e-2", RUNNING), end="final"))])
    assert kinds(await heard(gateway)) == ["job.queued", "job.running"]
    assert gateway.asked[1].headers["last-event-id"] == "e-1"


async def test_a_heartbeat_with_an_id_moves_the_position_only() -> None:
    gateway = FakeGateway(streams=[sse(frames(("e-1", QUEUED)) + b": heartbeat\nid: e-9\n\n")])
    assert kinds(await heard(gateway)) == ["job.queued"]
    assert gateway.asked[1].headers["last-event-id"] == "e-9"


async def test_no_content_ends_the_stream() -> None:
    gateway = FakeGateway(streams=[sse(frames(("e-1", DONE)))])
    assert kinds(await heard(gateway)) == ["job.succeeded"]
    assert len(gateway.asked) == 2


async def test_a_gap_is_told_where_it_is() -> None:
    gap = {"reason": "too_old", "last_event_id": "e-1", "resumed_at": "e-7"}
    gateway = FakeGateway(streams=[sse(frames(("e-1", QUEUED))), sse(frames(("e-7", gap), ("e-8", DONE), end="final"))])
    facts = await heard(gateway)
    assert kinds(facts) == ["job.queued", "gap", "job.succeeded"]
    assert isinstance(facts[1], Gap) and facts[1].message == "too_old"


async def test_events_carry_what_their_readers_need() -> None:
    failed = event(4, "job.failed", site="prague", attempt=2, reason={"code": "task_error", "message": "It failed."})
    (fact,) = await heard(FakeGateway(streams=[sse(frames(("e-4", failed), end="final"))]))
    assert isinstance(fact, Event)
    assert (fact.position, fact.sequence, fact.attempt, fact.site) == ("e-4", 4, 2, "prague")
    assert (fact.job_id, fact.reason) == (job_id(1), "It failed.")


async def test_a_stream_that_ended_with_its_token_says_so() -> None:
    gateway = FakeGateway(
        streams=[sse(frames(("e-1", QUEUED), end="token_expired")), problem(401, "token_expired", "has expired")]
    )
    with pytest.raises(Problem, match="has expired"):
        await heard(gateway)


async def test_a_gateway_that_stays_away_is_given_up_with_growing_pauses() -> None:
    gateway, time = FakeGateway(streams=[problem(503, "unavailable") for _ in range(9)]), Time()
    with pytest.raises(Problem):
        await heard(gateway, time)
    assert time.pauses == [1, 2, 4]


async def test_what_is_heard_begins_a_new_row_of_tries() -> None:
    away = [problem(503, "unavailable") for _ in range(5)]
    back = sse(frames(("e-1", QUEUED)))
    gateway = FakeGateway(streams=[*away[:3], back, *away[3:], sse(frames(("e-2", DONE), end="final"))])
    assert kinds(await heard(gateway, Time())) == ["job.queued", "job.succeeded"]


async def test_an_answer_that_is_no_event_stream_is_not_endlessly_asked_for() -> None:
    gateway = FakeGateway(streams=[sse(b"") for _ in range(9)])
    with pytest.raises(Unreachable, match="ended"):
        await heard(gateway)


async def test_logs_come_as_they_were_written() -> None:
    gateway = FakeGateway(logs={"stdout": b"out\n", "stderr": b"\xff"}, jobs={})
    async with a_client(gateway) as serai:
        out = [chunk async for chunk in serai.logs(job_id(1))]
        err = [chunk async for chunk in serai.logs(job_id(1), stream="stderr", attempt=2, tail=5)]
    assert (b"".join(out), b"".join(err)) == (b"out\n", b"\xff")
    assert gateway.asked[1].query == {"stream": "stderr", "attempt": "2", "tail": "5"}


def streamed(gateway: FakeGateway) -> Serai:
    """A client that gets each byte as it is written, as over a socket."""
    return Serai(URL, TOKEN, transport=InProcessTransport(gateway.app), pace=a_pace(Time()))


async def test_a_log_that_breaks_off_goes_on_where_it_was() -> None:
    gateway = FakeGateway(logs={"stdout": b"one\ntwo\nthree\n"}, log_breaks=[4, 4])
    async with streamed(gateway) as serai:
        out = [chunk async for chunk in serai.logs(job_id(1), attempt=1, follow=True)]
    assert b"".join(out) == b"one\ntwo\nthree\n"
    assert [asked.query.get("offset") for asked in gateway.asked] == [None, "4", "8"]


async def test_a_log_without_a_place_to_go_on_from_says_that_it_broke_off() -> None:
    gateway = FakeGateway(logs={"stdout": b"one\ntwo\n"}, log_breaks=[4])
    async with streamed(gateway) as serai:
        with pytest.raises(Unreachable):
            _ = [chunk async for chunk in serai.logs(job_id(1), attempt=1, tail=6, follow=True)]
