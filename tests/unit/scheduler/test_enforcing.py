"""Ceilings and suspensions through the whole scheduler: while jobs are placed, run and end, and after a restart."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from services.scheduler import queue_store
from shared.contracts.commands import Principal, SubmitJob
from shared.contracts.policies import Policy
from shared.contracts.questions import Decision, DecisionRequest
from shared.contracts.suspensions import Stops, Suspension
from shared.job import AttemptStatus, JobState
from tests.builders import ALICE, BOB, VO, a_capacity, a_job, a_node, a_site
from tests.unit.scheduler.world import World, a_world, first

pytestmark = pytest.mark.fast
S, A = JobState, AttemptStatus
HEARD_S = 3.0
"""Longer than the scheduler goes without asking auth what is suspended and which policies are new."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    big = a_capacity(a_node(cpu_mhz=64_000, memory_mib=262_144, disk_mib=1_000_000))
    async with a_world(tmp_path, a_site("prague"), capacities={"prague": big}) as made:
        yield made


@pytest.fixture
async def ask(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.ask() as client:
        yield client


def allow(world: World, **policy: Any) -> None:
    """Auth says yes, with this policy of the VO from now on."""
    document = Policy.model_validate(policy)

    def decide(asked: DecisionRequest) -> Decision:
        return Decision(allowed=True, policy=document)

    world.auth.decide = decide


async def submit(world: World, count: int, owner: Principal = ALICE, start: int = 1, **spec: Any) -> list[SubmitJob]:
    jobs = [a_job(number, owner=owner, **spec) for number in range(start, start + count)]
    for job in jobs:
        await world.submit(job)
    return jobs


async def held(world: World, job: SubmitJob, code: str) -> str:
    """The words that tell why the job is held."""

    def told() -> bool:
        return any(event.reason is not None and event.reason.code == code for event in world.told(job.job_id))

    await world.until(told)
    return next(e.reason.message for e in world.told(job.job_id) if e.reason is not None and e.reason.code == code)


async def succeeds(world: World, job: SubmitJob) -> None:
    await world.attempt(job, A.RUNNING)
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await world.until_state(job.job_id, S.SUCCEEDED)


async def in_use(world: World) -> int:
    return (await world.store.read(queue_store.read_in_use)).of(VO).jobs


# -- ceilings -----------------------------------------------------------------------------------------------------


async def test_a6_a_flood_across_the_ceiling_of_its_user_is_placed_up_to_it_and_one_more_for_each_that_ends(
    world: World,
) -> None:
    allow(world, user={"jobs": 3})
    jobs = await submit(world, 12)
    words = await held(world, jobs[11], "ceiling_reached")
    assert f"The VO {VO} lets all jobs of one user together have 3 jobs at a time: 3 in use" in words
    assert await in_use(world) == 3

    running = [job for job in jobs if "placed" in world.states(job.job_id)]
    assert len(running) == 3
    await succeeds(world, running[0])
    await world.until(lambda: sum("placed" in world.states(job.job_id) for job in jobs) == 4)
    assert await in_use(world) == 3


async def test_who_is_at_the_ceiling_does_not_hold_up_others_behind_them(world: World) -> None:
    allow(world, user={"jobs": 1})
    await submit(world, 150, priority=100)
    [other] = await submit(world, 1, owner=BOB, start=900)
    await world.until_state(other.job_id, S.PLACED)


async def test_what_comes_free_under_a_vos_ceiling_goes_to_who_has_least_of_it(world: World) -> None:
    allow(world, vo={"jobs": 4})
    mine = await submit(world, 12)
    await world.until(lambda: sum("placed" in world.states(job.job_id) for job in mine) == 4)
    theirs = await submit(world, 4, owner=BOB, start=100)
    await held(world, theirs[0], "ceiling_reached")
    for done in range(2):
        await succeeds(world, mine[done])
        await world.until(lambda done=done: sum("placed" in world.states(job.job_id) for job in theirs) == done + 1)  # type: ignore[misc]
    assert sum("placed" in world.states(job.job_id) for job in mine) == 4, "nobody else's came between"


async def test_a_ceiling_holds_after_a_restart(world: World) -> None:
    allow(world, vo={"jobs": 2})
    jobs = await submit(world, 4)
    await world.until(lambda: sum("placed" in world.states(job.job_id) for job in jobs) == 2)
    await world.stop()
    await world.start()
    [late] = await submit(world, 1, owner=BOB, start=100)
    await held(world, late, "ceiling_reached")
    assert await in_use(world) == 2


async def test_a_policy_that_is_narrowed_kills_nothing_and_starts_nothing(world: World) -> None:
    allow(world, user={"jobs": 3})
    jobs = await submit(world, 3)
    for job in jobs:
        await world.until_state(job.job_id, S.PLACED)
        await world.attempt(job, A.RUNNING)
        await world.until_state(job.job_id, S.RUNNING)
    allow(world, user={"jobs": 1})
    [late] = await submit(world, 1, start=100)
    assert "1 jobs at a time: 3 in use" in await held(world, late, "ceiling_reached")
    assert world.engines["prague"].closed == []
    await succeeds(world, jobs[0])
    await succeeds(world, jobs[1])
    assert "placed" not in world.states(late.job_id)
    await succeeds(world, jobs[2])
    await world.until_state(late.job_id, S.PLACED)


async def test_a_policy_that_is_widened_lets_the_job_go(world: World) -> None:
    allow(world, vo={"cpu_cores": 1})
    [big] = await submit(world, 1, resources={"cpu_cores": 2})
    assert "cannot be placed as long as that holds" in await held(world, big, "ceiling_reached")
    allow(world, vo={"cpu_cores": 2})
    await world.until_state(big.job_id, S.PLACED)


async def test_explain_names_the_ceiling_with_what_is_in_use_now(world: World, ask: httpx.AsyncClient) -> None:
    allow(world, user={"cpu_cores": 3})
    jobs = await submit(world, 3, resources={"cpu_cores": 1})
    [big] = await submit(world, 1, start=10, resources={"cpu_cores": 3})
    await held(world, big, "ceiling_reached")
    answer = (await ask.get(f"/internal/jobs/{big.job_id}/explain")).json()
    assert answer["reason"]["code"] == "ceiling_reached"
    assert "3 cores at a time: 3 in use, this job asks for 3" in answer["summary"]
    assert "ask a manager of the VO" in answer["summary"]
    await succeeds(world, jobs[0])
    answer = (await ask.get(f"/internal/jobs/{big.job_id}/explain")).json()
    assert "3 cores at a time: 2 in use" in answer["summary"]


# -- suspensions --------------------------------------------------------------------------------------------------

STOP = Stops(vos=frozenset({VO}))
SUBJECT = Suspension(id="s", kind="subject", issuer=ALICE.issuer, value=ALICE.subject, reason="stolen laptop")
OF_THE_VO = Suspension(id="v", kind="vo", vo=VO, reason="no contract")
MEMBERSHIP = Suspension(id="m", kind="membership", issuer=ALICE.issuer, value=ALICE.subject, vo=VO, reason="left")
CLIENT = Suspension(id="c", kind="client", issuer=ALICE.issuer, value="portal", reason="stolen secret")
TOKEN = Suspension(id="t", kind="token", issuer=ALICE.issuer, value="jti-1", reason="in a log")
KINDS = [SUBJECT, OF_THE_VO, MEMBERSHIP, CLIENT, TOKEN]
by_kind = pytest.mark.parametrize("suspension", KINDS, ids=lambda each: each.kind)


async def running(world: World, number: int = 1, owner: Principal = ALICE, **spec: Any) -> SubmitJob:
    job = a_job(number, owner=owner, **spec)
    await world.submit(job, client="portal", token="jti-1")
    await world.until_state(job.job_id, S.PLACED)
    await world.attempt(job, A.RUNNING)
    await world.until_state(job.job_id, S.RUNNING)
    return job


@by_kind
async def test_running_jobs_of_the_suspended_are_stopped_where_the_policy_says_so_and_go_on_when_it_is_over(
    world: World, suspension: Suspension
) -> None:
    job = await running(world)
    world.auth.suspend(suspension, stops=STOP)
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(job) in engine.closed)
    world.engines["prague"].end(first(job))
    await world.attempt(job, A.STOPPED)

    assert suspension.reason in await held(world, job, "suspended")
    assert world.states(job.job_id)[-1] == "queued"
    world.auth.suspend()
    world.clock.forward(HEARD_S)
    again = await world.until_state(job.job_id, S.PLACED, times=2)
    assert again.attempt == 2
    assert (await world.job(job.job_id)).retries_used == 0


@by_kind
async def test_running_jobs_of_the_suspended_run_to_their_end_where_no_policy_stops_them(
    world: World, suspension: Suspension
) -> None:
    job = await running(world)
    world.auth.suspend(suspension)
    world.clock.forward(HEARD_S)
    queued = a_job(2)
    await world.submit(queued, client="portal", token="jti-1")
    assert suspension.reason in await held(world, queued, "suspended")
    assert world.engines["prague"].closed == []
    await world.attempt(job, A.SUCCEEDED, exit_code=0)
    await world.until_state(job.job_id, S.SUCCEEDED)


async def test_a_policy_that_stops_elsewhere_stops_nothing_here(world: World) -> None:
    stopped, job = await running(world, 1, owner=BOB), await running(world, 2)
    bob = SUBJECT.model_copy(update={"id": "b", "value": BOB.subject, "stop_running": True})
    world.auth.suspend(SUBJECT, bob, stops=Stops(vos=frozenset({"vo.other"}), sites=frozenset({"lyon"})))
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(stopped) in engine.closed)
    assert first(job) not in world.engines["prague"].closed


async def test_what_was_held_is_looked_at_as_soon_as_the_suspension_ends(tmp_path: Path) -> None:
    """Not only when its pause is over, which is long: nobody looks at ten thousand held jobs all the time."""
    async with a_world(tmp_path, a_site("prague"), decision_cache_s=60) as world:
        world.auth.suspend(SUBJECT)
        world.clock.forward(HEARD_S)
        [job] = await submit(world, 1)
        await held(world, job, "suspended")
        assert (await world.job(job.job_id)).not_before is not None
        world.auth.suspend()
        world.clock.forward(HEARD_S)
        await world.until_state(job.job_id, S.PLACED)


async def test_a_suspension_that_says_so_stops_what_no_policy_would(world: World) -> None:
    job = await running(world)
    world.auth.suspend(SUBJECT.model_copy(update={"stop_running": True}))
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(job) in engine.closed)


async def test_nobody_else_is_stopped(world: World) -> None:
    mine, theirs = await running(world, 1), await running(world, 2, owner=BOB)
    world.auth.suspend(SUBJECT, stops=STOP)
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(mine) in engine.closed)
    assert first(theirs) not in world.engines["prague"].closed
    await world.attempt(theirs, A.SUCCEEDED, exit_code=0)
    await world.until_state(theirs.job_id, S.SUCCEEDED)


async def test_what_was_placed_a_moment_before_the_suspension_was_heard_of_is_stopped_too(world: World) -> None:
    """The suspension is known already when the job comes to run: the second look finds it."""
    world.auth.suspend(OF_THE_VO, stops=Stops(sites=frozenset({"prague"})))
    job = a_job()
    await world.submit(job)
    await world.until_state(job.job_id, S.PLACED)
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(job) in engine.closed)


async def test_a_task_that_fails_while_it_is_being_stopped_does_not_fail_the_job(world: World) -> None:
    job = await running(world)
    world.auth.suspend(SUBJECT, stops=STOP)
    world.clock.forward(HEARD_S)
    await world.engines["prague"].until(lambda engine: first(job) in engine.closed)
    world.engines["prague"].end(first(job))
    await world.attempt(job, A.FAILED, failure="task_error", exit_code=143)
    await held(world, job, "suspended")


async def test_a_held_job_can_be_cancelled(world: World) -> None:
    world.auth.suspend(SUBJECT)
    world.clock.forward(HEARD_S)
    [job] = await submit(world, 1)
    await held(world, job, "suspended")
    await world.cancel(job.job_id, ALICE, VO)
    await world.until_state(job.job_id, S.CANCELLED)


async def test_a_suspension_that_ends_by_itself_lets_the_job_go_on_at_that_moment(tmp_path: Path) -> None:
    """Nobody tells of it; the pause of the held job and of auth's answers are longer."""
    async with a_world(tmp_path, a_site("prague"), decision_cache_s=60) as world:
        until = world.clock() + timedelta(seconds=30)
        world.auth.suspend(SUBJECT.model_copy(update={"until": until}))
        world.clock.forward(HEARD_S)
        [job] = await submit(world, 1)
        await held(world, job, "suspended")
        world.clock.now = until - timedelta(microseconds=1)
        await world.settled()
        assert "placed" not in world.states(job.job_id)
        world.clock.now = until
        await world.until_state(job.job_id, S.PLACED)


async def test_where_auths_clock_is_behind_the_job_goes_on_seconds_after_the_end(tmp_path: Path) -> None:
    """The scheduler knows that it is over and asks; auth still says no, for a moment."""
    async with a_world(tmp_path, a_site("prague"), decision_cache_s=60) as world:
        no = Decision(allowed=False, code="subject_suspended", message="your access is suspended")
        world.auth.decide = lambda asked: no
        [job] = await submit(world, 1)
        await held(world, job, "suspended")
        allow(world)
        world.clock.forward(HEARD_S)
        await world.until_state(job.job_id, S.PLACED)


async def test_c12_a_membership_that_auth_no_longer_sees_ends_the_queued_job_with_words(world: World) -> None:
    world.auth.decide = lambda asked: Decision(allowed=False, code="not_in_vo", message="you are not in the VO")
    [job] = await submit(world, 1)
    ended = await world.until_state(job.job_id, S.REJECTED)
    assert ended.reason is not None and "you are not in the VO" in ended.reason.message


async def test_auths_word_of_a_suspension_holds_the_job_too(world: World) -> None:
    """The scheduler heard nothing of it yet; auth says it at dispatch."""
    no = Decision(allowed=False, code="subject_suspended", message="your access is suspended (stolen laptop)")
    world.auth.decide = lambda asked: no
    [job] = await submit(world, 1)
    assert "stolen laptop" in await held(world, job, "suspended")
    allow(world)
    world.clock.forward(90)
    await world.until_state(job.job_id, S.PLACED)
