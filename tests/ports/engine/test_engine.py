"""JobEngine: what is promised of submitting, closing and planning."""

import asyncio
import uuid
from contextlib import aclosing
from dataclasses import replace

import pytest

from shared.engine import AllocationSeen, Closing, EvaluationSeen, JobSeen, Line, Presence, Seen, Submission, Submitted
from shared.errors import Misconfigured, Refused
from tests.ports.engine.site import DEADLINE_S, SMALL, SiteUnderTest, a_script, an_order, of

INDEX_IS_ENFORCED = (2, 0, 1)
"""Of many registers at once, one wins; before, all may, and do the same (`promises.py`)."""
RUNS_FOREVER = "while :; do sleep 1; done"


async def test_a_submitted_attempt_runs_once_to_its_end(site: SiteUnderTest) -> None:
    order = await site.submitted(a_script("exit 3"))
    end = await site.ended(order)
    (task,) = end.tasks
    exits = [event.details["exit_code"] for event in task.events if event.type == "Terminated"]
    assert (end.client_status, end.desired_status, exits) == ("failed", "run", ["3"])
    assert not (await site.dead(order)).stop
    assert len(await site.watch.allocations(order.attempt.nomad_id, "default")) == 1


async def test_submitting_again_changes_nothing(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    assert await site.engine.submit(order) == Submission(Submitted.ALREADY_THERE)
    await site.ended(order)
    assert await site.engine.submit(order) == Submission(Submitted.ALREADY_THERE)
    assert len(await site.watch.allocations(order.attempt.nomad_id, "default")) == 1


async def test_many_submits_of_one_attempt_at_once_have_one_effect(site: SiteUnderTest) -> None:
    order = an_order()
    answers = await asyncio.gather(*(site.engine.submit(order) for _ in range(8)))
    outcomes = sorted(answer.outcome for answer in answers)
    assert outcomes[0] is Submitted.ACCEPTED
    if await site.since(*INDEX_IS_ENFORCED):
        assert outcomes[1:] == [Submitted.ALREADY_THERE] * 7
    await site.ended(order)
    assert len(await site.watch.allocations(order.attempt.nomad_id, "default")) == 1


async def test_an_id_that_is_taken_by_another_nonce_is_foreign(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    stranger = an_order(job=order.attempt.job_id, nonce="n-2")
    assert (await site.engine.submit(stranger)).outcome is Submitted.FOREIGN


async def test_an_id_taken_by_work_of_another_kind_is_foreign_too(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    stranger = an_order(job=order.attempt.job_id, nonce="n-2", kind="service")
    assert (await site.engine.submit(stranger)).outcome is Submitted.FOREIGN


async def test_what_nomad_finds_invalid_comes_back_with_its_words(site: SiteUnderTest) -> None:
    ports = [{"name": "one", "port": 8080}, {"name": "two", "port": 8080}]
    answer = await site.engine.submit(an_order(kind="service", endpoints=ports))
    assert answer.outcome is Submitted.INVALID
    assert "8080" in answer.text


async def test_mock_work_that_nobody_knows_is_invalid(site: SiteUnderTest) -> None:
    answer = await site.engine.submit(an_order(metadata={"serai.mock": "dance=1"}))
    assert answer.outcome is Submitted.INVALID
    assert "dance" in answer.text


async def test_a_namespace_that_the_site_lacks_is_our_mistake(site: SiteUnderTest) -> None:
    order = an_order()
    elsewhere = type(order)(order.attempt, order.spec, order.site, order.nonce, order.traceparent, "vo-nowhere")
    with pytest.raises(Misconfigured, match="vo-nowhere"):
        await site.engine.submit(elsewhere)


async def test_an_id_closed_before_anything_ran_is_closed_for_good(site: SiteUnderTest) -> None:
    order = an_order()
    assert await site.engine.close(order.attempt, "default") is Closing.NEVER_RAN
    assert await site.engine.submit(order) == Submission(Submitted.CLOSED)
    assert (await site.engine.submit(an_order(job=order.attempt.job_id, kind="service"))).outcome is Submitted.CLOSED
    assert await site.engine.close(order.attempt, "default") is Closing.NEVER_RAN
    assert await site.watch.allocations(order.attempt.nomad_id, "default") == []


async def test_closing_what_runs_stops_it(site: SiteUnderTest) -> None:
    order = await site.submitted(a_script(RUNS_FOREVER))
    await site.reached(order, "running")
    assert await site.engine.close(order.attempt, "default") is Closing.STOPPING
    end = await site.ended(order)
    assert end.desired_status == "stop"
    assert (await site.dead(order)).stop
    assert await site.engine.close(order.attempt, "default") is Closing.ENDED
    assert await site.engine.submit(order) == Submission(Submitted.ALREADY_THERE)


async def test_closing_what_is_over_finds_it_ended(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order())
    await site.ended(order)
    assert await site.engine.close(order.attempt, "default") is Closing.ENDED


async def test_of_a_submit_and_a_close_at_once_exactly_one_wins(site: SiteUnderTest) -> None:
    orders = [an_order(metadata={"serai.mock": "run_for=0s"}) for _ in range(12)]
    races = [asyncio.gather(site.engine.submit(o), site.engine.close(o.attempt, "default")) for o in orders]
    for order, (submission, closing) in zip(orders, await asyncio.gather(*races), strict=True):
        if closing is Closing.NEVER_RAN:
            assert submission.outcome is Submitted.CLOSED
            assert await site.watch.allocations(order.attempt.nomad_id, "default") == []
        else:
            assert submission.outcome is Submitted.ACCEPTED


async def test_a_plan_says_that_there_is_room_and_changes_nothing(site: SiteUnderTest) -> None:
    order = an_order()
    assert (await site.engine.plan(order)).failures == {}
    assert await site.watch.presence(order.attempt.nomad_id, "default") is Presence.ABSENT


async def test_a_plan_says_what_is_missing(site: SiteUnderTest) -> None:
    huge = await site.engine.plan(an_order(resources=SMALL | {"memory_mib": 1_000_000}))
    assert set(huge.failures["main"].dimension_exhausted) == {"memory"}
    nowhere = await site.engine.plan(an_order(at={"datacenters": ("dc-nowhere",)}))
    assert nowhere.failures["main"].nodes_evaluated == 0
    driverless = await site.engine.plan(an_order(image="python:3.12"))
    assert driverless.failures["main"].constraint_filtered


async def test_a_plan_of_what_is_invalid_is_refused(site: SiteUnderTest) -> None:
    ports = [{"name": "one", "port": 8080}, {"name": "two", "port": 8080}]
    with pytest.raises(Refused, match="8080"):
        await site.engine.plan(an_order(kind="service", endpoints=ports))


async def test_work_that_does_not_fit_is_blocked_with_reasons_and_can_be_closed(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order(resources=SMALL | {"cpu_cores": 500}))
    seen = await site.seen_until(lambda seen: any(e.status == "blocked" for e in of(order, seen, EvaluationSeen)))
    blocked = next(e for e in of(order, seen, EvaluationSeen) if e.status == "blocked")
    assert set(blocked.failures["main"].dimension_exhausted) == {"cpu"}
    assert blocked.id in {evaluation.id for evaluation in (await site.watch.listing()).evaluations}
    assert await site.engine.close(order.attempt, "default") is Closing.STOPPING
    assert (await site.dead(order)).stop
    assert not of(order, await site.seen_until(lambda seen: bool(of(order, seen, JobSeen))), AllocationSeen)


async def test_mock_work_runs_without_a_process(site: SiteUnderTest) -> None:
    order = await site.submitted(an_order(metadata={"serai.mock": "run_for=10ms, exit_code=7"}))
    (task,) = (await site.ended(order)).tasks
    assert [event.details["exit_code"] for event in task.events if event.type == "Terminated"] == ["7"]


async def test_a_ready_engine_knows_its_namespaces(site: SiteUnderTest) -> None:
    await site.engine.ready()
    assert "default" in await site.engine.namespaces()
    assert "default" in await site.watch.namespaces()


async def test_a_namespace_that_is_missing_is_named_and_a_new_one_is_there_at_once(site: SiteUnderTest) -> None:
    name = f"vo-{uuid.uuid4().hex[:12]}"
    order = replace(an_order(), namespace=name)
    for call in (site.engine.submit(order), site.engine.close(order.attempt, name), site.engine.plan(order)):
        with pytest.raises(Misconfigured, match=name) as missing:
            await call
        assert missing.value.code == "nomad_namespace"
    await site.by_hand("POST", "/v1/namespace", {"Name": name})
    assert name in await site.engine.namespaces()
    assert name in await site.watch.namespaces()
    await site.submitted(order)
    await site.ended(order)
    assert await site.watch.presence(order.attempt.nomad_id, name) is Presence.PRESENT
    assert await site.watch.presence(order.attempt.nomad_id, "default") is Presence.ABSENT


async def test_a_stream_has_the_events_of_the_namespaces_there_were_as_it_was_opened(site: SiteUnderTest) -> None:
    name = f"vo-{uuid.uuid4().hex[:12]}"
    order, known = replace(an_order(), namespace=name), an_order()
    async with asyncio.timeout(DEADLINE_S), aclosing(site.watch.stream(0)) as stream:  # type: ignore[type-var]
        await anext(stream)
        await site.by_hand("POST", "/v1/namespace", {"Name": name})
        await site.submitted(order)
        await site.over(order)
        await site.submitted(known)
        old: list[Seen] = []
        while not of(known, old, JobSeen):
            item = await anext(stream)
            old += item.seen if isinstance(item, Line) else ()
    assert of(order, old, JobSeen) == []
    assert of(order, await site.seen_until(lambda seen: bool(of(order, seen, JobSeen))), JobSeen)
