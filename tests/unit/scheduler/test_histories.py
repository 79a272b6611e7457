"""Histories of whole jobs through the whole service: given these messages, when this one comes, then that happens."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.commands import SubmitJob
from shared.contracts.events import (
    JobCancelled,
    JobEnded,
    JobFailed,
    JobPlaced,
    SiteReachable,
    SiteStray,
    SiteUnreachable,
)
from shared.contracts.questions import Decision
from shared.contracts.routes import SCHEDULER_COMMANDS
from shared.engine import Submission, Submitted
from shared.errors import OutcomeUnknown, Unavailable
from shared.ids import AttemptId
from shared.job import AttemptStatus, FailureClass, JobState
from shared.site import SiteCapacity, SiteHealth
from tests.builders import ALICE, BOB, NOON, VO, a_job, a_node, a_site, job_id
from tests.unit.scheduler.world import World, a_world, first

pytestmark = pytest.mark.fast
S, A = JobState, AttemptStatus


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague")) as made:
        yield made


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_site("prague"), a_site("lyon", country="FR")) as made:
        yield made


# -- the straight way ---------------------------------------------------------------------------------------------


async def test_a_job_runs_and_succeeds(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    await world.attempt(job, A.STARTING, node="node-1")
    await world.attempt(job, A.RUNNING, node="node-1")
    await world.attempt(job, A.SUCCEEDED, node="node-1", exit_code=0)
    ended = await world.until_state(job.job_id, S.SUCCEEDED)

    assert world.states(job.job_id) == ["queued", "placed", "starting", "running", "succeeded"]
    assert [event.sequence for event in world.told(job.job_id)] == [1, 2, 3, 4, 5]
    assert (ended.attempt, ended.site) == (1, "prague")
    await world.settled()
    assert await world.owed() == []
    assert world.engines["prague"].closed == []


async def test_the_order_carries_everything_the_site_needs(world: World) -> None:
    job = a_job(env={"A": "b"})
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    (order,) = world.engines["prague"].orders
    assert (order.attempt, order.spec, order.site.name) == (first(job), job.spec, "prague")
    assert order.traceparent.startswith(f"00-{job.job_id.hex}-")
    assert len(order.nonce) == 32


async def test_the_receipt_says_why_not_elsewhere(two: World) -> None:
    job = a_job(placement={"allow_sites": ["lyon"]})
    await two.submit(job)
    placed = await two.until_state(job.job_id, S.PLACED)
    assert isinstance(placed, JobPlaced)
    assert [(verdict.site, verdict.code.value) for verdict in placed.receipt] == [
        ("lyon", "fits"), ("prague", "site_not_allowed"),
    ]  # fmt: skip


async def test_the_same_command_twice_makes_one_job(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    await world.submit(job, jti="another")
    await world.settled()
    await world.engines["prague"].until(lambda engine: len(engine.nonces) > 0)
    assert world.states(job.job_id) == ["queued", "placed"]
    assert len(world.engines["prague"].nonces) == 1


async def test_many_jobs_at_once_are_all_placed_within_the_room_there_is(tmp_path: Path) -> None:
    big = SiteCapacity(nodes=tuple(a_node(f"n{n}", cpu_mhz=10_000, memory_mib=10_000) for n in range(4)))
    async with a_world(tmp_path, a_site("prague"), capacities={"prague": big}) as world:
        jobs = [a_job(n, resources={"cpu_cores": 0.5}) for n in range(1, 101)]
        await world.bus.publish([world.message(job, ALICE, VO, str(job.job_id)) for job in jobs])
        await world.engines["prague"].until(lambda engine: len(engine.living) == 80)
        await world.until(lambda: all(world.told(job.job_id)[1:] or waits(world, job) for job in jobs))
        assert world.engines["prague"].most_at_once <= 8
        assert len(world.engines["prague"].living) == 80
        waiting = [job for job in jobs if "placed" not in world.states(job.job_id)]
        assert len(waiting) == 20
        assert all(waits(world, job) for job in waiting)


def waits(world: World, job: SubmitJob) -> bool:
    """Whether the last that was told of the job is that it waits for room."""
    last = [event.reason.code for event in world.told(job.job_id)[-1:] if event.reason]
    return last == ["waiting_for_room"]


async def test_calls_that_wait_for_others_are_made_as_soon_as_those_have_ended(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague"), calls_per_cluster=1, tick_s=10) as world:
        jobs = [a_job(n, resources={"cpu_cores": 0.1}) for n in range(1, 5)]
        await world.bus.publish([world.message(job, ALICE, VO, str(job.job_id)) for job in jobs])
        await world.engines["prague"].until(lambda engine: len(engine.living) == 4)
        assert world.engines["prague"].most_at_once == 1


async def test_freed_room_wakes_who_waits_for_it_without_a_tick(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague"), tick_s=10) as world:
        one, other = (a_job(n, resources={"cpu_cores": 3}) for n in (1, 2))
        await world.submit(one)
        await world.until_state(one.job_id, S.PLACED)
        await world.submit(other)
        await world.until_state(other.job_id, S.QUEUED)
        await world.attempt(one, A.SUCCEEDED)
        await world.until_state(other.job_id, S.PLACED)


async def test_freed_room_goes_to_the_next_job(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague")) as world:
        one, other = (a_job(n, resources={"cpu_cores": 3}) for n in (1, 2))
        await world.submit(one)
        await world.until_state(one.job_id, S.PLACED)
        await world.submit(other)
        await world.until_state(other.job_id, S.QUEUED, times=2)
        await world.attempt(one, A.SUCCEEDED)
        await world.until_state(other.job_id, S.PLACED)


# -- trying again -------------------------------------------------------------------------------------------------


async def test_a_failed_attempt_is_closed_and_then_tried_again(world: World) -> None:
    job = a_job(retries={"attempts": 1})
    await world.submit(job)
    await world.engines["prague"].until(lambda engine: len(engine.orders) == 1)
    world.engines["prague"].end(first(job))
    await world.fails(job, FailureClass.TASK_ERROR)
    await world.until_state(job.job_id, S.PLACED, times=2)
    await world.fails(job, FailureClass.TASK_ERROR, number=2)
    ended = await world.until_state(job.job_id, S.FAILED)

    assert world.states(job.job_id) == ["queued", "placed", "queued", "placed", "failed"]
    assert world.engines["prague"].closed == [first(job)]
    assert ended.reason is not None and ended.reason.code == "task_error"
    assert isinstance(ended, JobEnded) and ended.exit_code == 3


async def test_a_register_in_doubt_is_sent_again_with_the_same_nonce(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    engine.answers = [OutcomeUnknown("no answer"), OutcomeUnknown("no answer")]
    await world.submit(job)
    for tries in (1, 2):
        await world.until_tried(job.job_id, tries)
        world.clock.forward(1)
    await engine.until(lambda engine: len(engine.orders) == 3)
    assert len({order.nonce for order in engine.orders}) == 1
    await world.until_kept(lambda c: c.exec_driver_sql("select count(*) from owed").scalar() == 0)


async def test_a_register_is_not_sent_again_once_the_site_has_shown_the_job(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    engine.away = True
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    await world.attempt(job, A.RUNNING)
    await world.until_state(job.job_id, S.RUNNING)
    assert await world.owed() == []
    engine.away = False
    assert engine.orders == []


async def test_a_site_that_refuses_the_job_leaves_it_to_the_others(two: World) -> None:
    job = a_job(placement={"prefer_sites": ["prague"]})
    two.engines["prague"].answers = [Submission(Submitted.INVALID, "1 error occurred")]
    await two.submit(job)
    placed = await two.until_state(job.job_id, S.PLACED, times=2)
    assert placed.site == "lyon"
    assert two.states(job.job_id) == ["queued", "placed", "queued", "placed"]


async def test_a_job_that_every_site_refuses_has_failed(world: World) -> None:
    job = a_job()
    world.engines["prague"].answers = [Submission(Submitted.INVALID, "1 error occurred")]
    await world.submit(job)
    ended = await world.until_state(job.job_id, S.FAILED)
    assert ended.reason is not None and ended.reason.code == "refused_by_site"
    assert "1 error occurred" in ended.reason.message


async def test_an_attempt_that_does_not_start_goes_to_another_site(two: World) -> None:
    engine, job = two.engines["prague"], a_job(placement={"prefer_sites": ["prague"]}, start_deadline_s=60)
    await two.submit(job)
    await engine.until(lambda engine: len(engine.living) == 1)
    await two.attempt(job, A.PENDING)
    await two.settled()
    two.clock.forward(61)
    await engine.until(lambda engine: first(job) in engine.closed)
    assert two.states(job.job_id) == ["queued", "placed"]
    await two.attempt(job, A.STOPPED)
    placed = await two.until_state(job.job_id, S.PLACED, times=2)
    assert (placed.site, placed.attempt) == ("lyon", 2)


# -- cancelling ---------------------------------------------------------------------------------------------------


async def test_a_cancel_that_comes_before_its_job_is_applied_when_the_job_comes(world: World) -> None:
    job = a_job()
    await world.cancel(job.job_id, ALICE, VO)
    await world.settled()
    await world.submit(job)
    await world.until_state(job.job_id, S.CANCELLED)
    assert world.states(job.job_id) == ["queued", "cancelled"]
    assert world.engines["prague"].orders == []


async def test_a_running_job_is_cancelled_when_its_site_has_stopped_it(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    await world.submit(job)
    await engine.until(lambda engine: len(engine.living) == 1)
    await world.attempt(job, A.RUNNING)
    await world.cancel(job.job_id, ALICE, VO)
    await engine.until(lambda engine: first(job) in engine.closed)
    await world.until_state(job.job_id, S.CANCELLING)
    engine.end(first(job))
    await world.attempt(job, A.STOPPED)
    ended = await world.until_state(job.job_id, S.CANCELLED)
    assert isinstance(ended, JobCancelled) and ended.confirmed


async def test_a_site_that_is_away_owes_the_stop_after_the_cancel_is_over(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    await world.submit(job)
    await engine.until(lambda engine: len(engine.living) == 1)
    engine.away = True
    await world.cancel(job.job_id, ALICE, VO)
    await world.until_state(job.job_id, S.CANCELLING)
    world.clock.forward(901)
    ended = await world.until_state(job.job_id, S.CANCELLED)
    assert isinstance(ended, JobCancelled) and not ended.confirmed
    assert (str(job.job_id), 1, "close") in await world.owed()
    engine.end(first(job))
    engine.away = False
    await world.tell_site(SiteReachable, "prague")
    await engine.until(lambda engine: first(job) in engine.closed)
    await world.until_kept(lambda c: c.exec_driver_sql("select count(*) from owed").scalar() == 0)


async def test_nobody_cancels_what_their_grant_does_not_reach(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    await world.cancel(job.job_id, BOB, VO)
    await world.settled()
    assert world.states(job.job_id) == ["queued", "placed"]
    (letter,) = await world.bus.dead_letters(SCHEDULER_COMMANDS)
    assert letter.reason.startswith("grant_invalid")
    await world.cancel(job.job_id, BOB, VO, own=False)
    await world.until_state(job.job_id, S.CANCELLING)


# -- losing a node, a site ----------------------------------------------------------------------------------------


async def test_a_node_that_stays_away_is_left_behind(two: World) -> None:
    job = a_job(placement={"prefer_sites": ["prague"]})
    await two.submit(job)
    await two.engines["prague"].until(lambda engine: len(engine.living) == 1)
    await two.attempt(job, A.RUNNING)
    await two.attempt(job, A.DISCONNECTED)
    await two.observed("prague", SiteCapacity(nodes=()))
    await two.settled()
    two.clock.forward(121)
    placed = await two.until_state(job.job_id, S.PLACED, times=2)
    assert (placed.site, placed.attempt) == ("lyon", 2)
    assert first(job) in two.engines["prague"].closed


async def lose_prague(world: World) -> None:
    world.engines["prague"].away = True
    await world.tell_site(SiteUnreachable, "prague", since=world.clock())
    world.registry.set_health("prague", SiteHealth.CRITICAL)
    await world.settled()
    await world.until_kept(
        lambda c: c.exec_driver_sql("select count(*) from sites where critical_since is not null").scalar() == 1
    )
    world.clock.forward(301)


@pytest.mark.parametrize(("on_lost", "then"), [("retry", "placed"), ("fail", "failed")])
async def test_a_lost_site_does_not_lose_the_job(two: World, on_lost: str, then: str) -> None:
    job = a_job(placement={"prefer_sites": ["prague"]}, on_lost=on_lost)
    await two.submit(job)
    await two.engines["prague"].until(lambda engine: len(engine.living) == 1)
    await two.attempt(job, A.RUNNING)
    await two.until_state(job.job_id, S.RUNNING)
    await lose_prague(two)
    if then == "placed":
        placed = await two.until_state(job.job_id, S.PLACED, times=2)
        assert placed.site == "lyon"
    else:
        ended = await two.until_state(job.job_id, S.FAILED)
        assert ended.reason is not None and ended.reason.code == "site_lost"
    assert (str(job.job_id), 1, "close") in await two.owed()


async def test_a_job_that_waits_for_its_site_stays_where_it_is(two: World) -> None:
    waits, other = (a_job(n, placement={"prefer_sites": ["prague"]}, on_lost=on)
                    for n, on in ((1, "wait"), (2, "retry")))  # fmt: skip
    for job in (waits, other):
        await two.submit(job)
    await two.engines["prague"].until(lambda engine: len(engine.living) == 2)
    for job in (waits, other):
        await two.attempt(job, A.RUNNING)
        await two.until_state(job.job_id, S.RUNNING)
    await lose_prague(two)
    await two.until_state(other.job_id, S.PLACED, times=2)
    assert two.states(waits.job_id)[-1] == "running"
    await two.attempt(waits, A.SUCCEEDED)
    await two.until_state(waits.job_id, S.SUCCEEDED)


async def test_the_forgotten_attempt_of_a_site_that_comes_back_is_stopped(two: World) -> None:
    job = a_job(placement={"prefer_sites": ["prague"]})
    await two.submit(job)
    await two.engines["prague"].until(lambda engine: len(engine.living) == 1)
    await two.attempt(job, A.RUNNING)
    await two.until_state(job.job_id, S.RUNNING)
    await lose_prague(two)
    await two.until_state(job.job_id, S.PLACED, times=2)
    two.engines["prague"].away = False
    await two.tell_site(SiteReachable, "prague")
    await two.engines["prague"].until(lambda engine: first(job) in engine.closed)
    await two.attempt(job, A.SUCCEEDED, number=1)
    await two.settled()
    assert two.states(job.job_id)[-1] == "placed"
    await two.attempt(job, A.SUCCEEDED, number=2, site="lyon")
    await two.until_state(job.job_id, S.SUCCEEDED)


async def test_a_critical_check_alone_gives_nothing_up(two: World) -> None:
    job, later = a_job(1, placement={"prefer_sites": ["prague"]}), a_job(2)
    await two.submit(job)
    await two.until_state(job.job_id, S.PLACED)
    await two.attempt(job, A.RUNNING)
    await two.until_state(job.job_id, S.RUNNING)
    two.registry.set_health("prague", SiteHealth.CRITICAL)
    await two.until_kept(
        lambda c: c.exec_driver_sql("select count(*) from sites where critical_since is not null").scalar() == 1
    )
    two.clock.forward(1000)
    await two.submit(later)
    assert (await two.until_state(later.job_id, S.PLACED)).site == "lyon"
    assert two.states(job.job_id)[-1] == "running"


async def test_strays_are_stopped_and_current_attempts_are_not(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    await world.submit(job)
    await engine.until(lambda engine: len(engine.living) == 1)
    await world.tell_site(SiteStray, "prague", job_id=job.job_id, attempt=1)
    await world.tell_site(SiteStray, "prague", job_id=job_id(99), attempt=1)
    await engine.until(lambda engine: AttemptId(job_id(99), 1) in engine.closed)
    assert first(job) not in engine.closed
    await world.attempt(job, A.SUCCEEDED)
    await world.until_state(job.job_id, S.SUCCEEDED)
    await world.tell_site(SiteStray, "prague", job_id=job.job_id, attempt=1)
    await engine.until(lambda engine: first(job) in engine.closed)


# -- deadlines ----------------------------------------------------------------------------------------------------


async def test_a_job_that_no_site_takes_in_time_fails_with_every_verdict(two: World) -> None:
    job = a_job(resources={"gpus": {"count": 1}}, max_wait_s=3)
    await two.submit(job)
    told = await two.until_state(job.job_id, S.QUEUED, times=2)
    assert told.reason is not None and told.reason.code == "no_site_fits"
    two.clock.forward(4)
    ended = await two.until_state(job.job_id, S.FAILED)
    assert isinstance(ended, JobFailed)
    assert ended.reason is not None and ended.reason.code == "not_placed_in_time"
    assert {(verdict.site, verdict.code.value) for verdict in ended.verdicts} == {
        ("prague", "gpu_missing"), ("lyon", "gpu_missing"),
    }  # fmt: skip


async def test_max_runtime_is_kept_by_the_schedulers_own_clock(world: World) -> None:
    engine, job = world.engines["prague"], a_job(max_runtime_s=60)
    await world.submit(job)
    await engine.until(lambda engine: len(engine.living) == 1)
    await world.attempt(job, A.RUNNING)
    await world.until_state(job.job_id, S.RUNNING)
    world.clock.forward(61)
    await engine.until(lambda engine: first(job) in engine.closed)
    engine.end(first(job))
    await world.attempt(job, A.STOPPED)
    ended = await world.until_state(job.job_id, S.FAILED)
    assert ended.reason is not None and ended.reason.code == "max_runtime_exceeded"


# -- operators ----------------------------------------------------------------------------------------------------


async def test_nothing_more_is_placed_at_a_cordoned_site_until_it_is_uncordoned(world: World) -> None:
    await world.cordon("prague", BOB)
    await world.settled()
    job = a_job()
    await world.submit(job)
    told = await world.until_state(job.job_id, S.QUEUED, times=2)
    assert told.reason is not None and told.reason.code == "waiting_for_site"
    assert "repairs" in told.reason.message
    await world.uncordon("prague", BOB)
    await world.until_state(job.job_id, S.PLACED)


# -- authority ----------------------------------------------------------------------------------------------------


async def test_a_command_with_another_body_than_was_granted_is_never_executed(world: World) -> None:
    job = a_job()
    await world.submit(job, body_sha256="0" * 64)
    ended = await world.until_state(job.job_id, S.REJECTED)
    assert ended.reason is not None and ended.reason.code == "dead_lettered"
    (letter,) = await world.bus.dead_letters(SCHEDULER_COMMANDS)
    assert letter.reason.startswith("grant_invalid")
    assert world.engines["prague"].orders == []


LATER = "eu.serai.job.submit.v9"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"body": b"\x00\xff no JSON"}, "undecodable"),
        ({"body": b"[]"}, "undecodable"),
        ({"body": b"{}"}, "undecodable"),
        ({"body": b'{"job": {"of": "a later release"}}', "type": LATER}, "version 9"),
        ({"type": "eu.serai.job.summit.v1"}, "unknown message type"),
    ],
    ids=["bytes", "list", "empty", "later version", "type"],
)
async def test_a_submission_that_cannot_be_read_ends_its_job_by_what_its_grant_says(
    world: World, changed: dict[str, Any], why: str
) -> None:
    job = a_job()
    sent = world.message(job, job.owner, job.spec.vo, str(job.job_id))
    await world.bus.publish([replace(sent, **changed)])
    ended = await world.until_state(job.job_id, S.REJECTED)
    assert (ended.vo, ended.owner, ended.sequence) == (job.spec.vo, job.owner, 1)
    assert ended.reason is not None and ended.reason.code == "dead_lettered" and why in ended.reason.message
    (letter,) = await world.bus.dead_letters(SCHEDULER_COMMANDS)
    assert letter.message.body == changed.get("body", sent.body)


@pytest.mark.parametrize("lost", ["ce-subject", "x-grant"])
async def test_a_submission_that_says_of_no_job_hurts_nobody_else(world: World, lost: str) -> None:
    job = a_job()
    sent = world.message(job, job.owner, job.spec.vo, str(job.job_id))
    await world.bus.publish([replace(sent, body=b"?", headers={**sent.headers, lost: "?"})])
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    assert len(await world.bus.dead_letters(SCHEDULER_COMMANDS)) == 1


async def test_an_unreadable_submission_cannot_end_a_job_that_is_known(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    sent = world.message(job, job.owner, job.spec.vo, str(job.job_id))
    await world.bus.publish([replace(sent, id="another", body=b"?")])
    await world.settled()
    assert world.states(job.job_id) == ["queued", "placed"]


async def test_a_forged_submission_cannot_end_a_job_that_is_known(world: World) -> None:
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    await world.submit(job, body_sha256="0" * 64)
    await world.settled()
    assert world.states(job.job_id) == ["queued", "placed"]


async def test_an_expired_grant_is_put_to_auth_and_a_no_ends_the_job(world: World) -> None:
    world.auth.decide = lambda asked: Decision(allowed=False, code="not_in_vo", message="left the VO")
    job = a_job()
    await world.submit(job, at=NOON - timedelta(hours=2))
    ended = await world.until_state(job.job_id, S.REJECTED)
    assert ended.reason is not None and ended.reason.code == "authorisation_expired"
    assert ended.sequence == 1
    assert await world.bus.dead_letters(SCHEDULER_COMMANDS) == []


async def test_an_expired_grant_that_auth_still_stands_for_runs(world: World) -> None:
    job = a_job()
    await world.submit(job, at=NOON - timedelta(hours=2))
    await world.until_state(job.job_id, S.PLACED)
    assert [asked.site for asked in world.auth.asked] == [None, "prague"]


async def test_while_auth_is_away_jobs_wait_and_go_on_when_it_is_back(world: World) -> None:
    world.auth.away = True
    job = a_job()
    await world.submit(job)
    told = await world.until_state(job.job_id, S.QUEUED, times=2)
    assert told.reason is not None and told.reason.code == "waiting_for_authorisation"
    world.auth.away = False
    world.clock.forward(1)
    await world.until_state(job.job_id, S.PLACED)


async def test_an_owner_who_left_the_vo_while_the_job_waited_has_it_rejected(world: World) -> None:
    world.auth.decide = lambda asked: Decision(allowed=False, code="not_in_vo", message="left the VO")
    job = a_job()
    await world.submit(job)
    ended = await world.until_state(job.job_id, S.REJECTED)
    assert ended.reason is not None and ended.reason.code == "not_authorised"


async def test_a_site_that_policy_closes_to_the_owner_is_passed_over(two: World) -> None:
    two.auth.decide = lambda asked: Decision(allowed=asked.site != "prague", message="not at prague")
    job = a_job(placement={"prefer_sites": ["prague"]})
    await two.submit(job)
    assert (await two.until_state(job.job_id, S.PLACED)).site == "lyon"


# -- going down and coming up -------------------------------------------------------------------------------------


async def test_a_restart_loses_nothing_that_was_owed(world: World) -> None:
    engine, job = world.engines["prague"], a_job()
    engine.away = True
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    await world.until_tried(job.job_id, 1)
    await world.stop()
    engine.away = False
    world.clock.forward(1)
    await world.start()
    await engine.until(lambda engine: len(engine.living) == 1)
    assert len(engine.orders) == 1


async def test_a_leader_that_was_deposed_writes_nothing(world: World) -> None:
    """Another copy takes the lease: this one stops placing, and goes on once the lease is free again."""
    world.clock.forward(60)
    other = await world.store.acquire_lease("scheduler", "another copy", 3600, world.clock())
    assert other is not None
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.QUEUED)
    await world.settled()
    assert (await world.job(job.job_id)).state is S.QUEUED
    await world.store.release_lease(other)
    await world.until_state(job.job_id, S.PLACED)
    kept = await world.job(job.job_id)
    assert kept.attempt is not None and kept.attempt.fence > other.fence


async def test_sites_that_answer_nothing_but_errors_do_not_hold_up_the_others(two: World) -> None:
    two.engines["prague"].answers = [Unavailable("500") for _ in range(50)]
    stuck, fine = a_job(1, placement={"allow_sites": ["prague"]}), a_job(2, placement={"allow_sites": ["lyon"]})
    for job in (stuck, fine):
        await two.submit(job)
    await two.engines["lyon"].until(lambda engine: len(engine.living) == 1)
    await two.until_tried(stuck.job_id, 1)
    assert len(two.engines["prague"].living) == 0
