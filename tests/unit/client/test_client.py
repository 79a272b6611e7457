"""The SDK against a scripted gateway."""

import asyncio

import httpx2
import pytest
from starlette.responses import Response

from serai import Job, NotUnderstood, Problem, Serai, Unreachable, WaitTimedOut
from tests.unit.client.builders import URL, Deaf, Time, a_client, a_pace
from tests.unit.client.fake_gateway import TOKEN, VO, FakeGateway, job_id, look, problem

pytestmark = pytest.mark.fast
JOB = {"name": "hello", "vo": VO, "command": ["true"]}


def busy(after: str | None = None) -> Response:
    return problem(503, "unavailable", headers={"Retry-After": after} if after else None)


async def test_a_submit_that_meets_a_busy_gateway_is_sent_again_with_the_same_key() -> None:
    gateway, time = FakeGateway(first=[busy(), busy()]), Time()
    async with a_client(gateway, time) as serai:
        job = await serai.submit(JOB)
    assert job.id == job_id(1)
    assert len({asked.headers["idempotency-key"] for asked in gateway.asked}) == 1
    assert len(gateway.asked) == 3
    assert time.pauses == [1, 2]


async def test_the_servers_retry_after_is_honoured() -> None:
    gateway, time = FakeGateway(first=[busy("7")], jobs={1: [look()]}), Time()
    async with a_client(gateway, time) as serai:
        await serai.job(job_id(1))
    assert time.pauses[0] >= 7


async def test_retries_are_bounded_and_end_with_the_problem() -> None:
    gateway, time = FakeGateway(first=[busy() for _ in range(9)]), Time()
    async with a_client(gateway, time) as serai:
        with pytest.raises(Problem) as caught:
            await serai.sites()
    assert caught.value.temporary and caught.value.code == "unavailable"
    assert len(gateway.asked) == 4


async def test_a_refusal_is_not_sent_again() -> None:
    gateway = FakeGateway(first=[problem(403, "forbidden", "only operators may")])
    async with a_client(gateway) as serai:
        with pytest.raises(Problem, match="only operators may"):
            await serai.cordon("lyon")
    assert len(gateway.asked) == 1


async def test_an_unreachable_gateway_is_tried_a_few_times() -> None:
    nowhere, time = Deaf(httpx2.ConnectError), Time()
    async with Serai(URL, TOKEN, transport=nowhere, pace=a_pace(time)) as serai:
        with pytest.raises(Unreachable, match=r"cannot reach http://gateway\.example"):
            await serai.submit(JOB)
    assert nowhere.tries == 4


@pytest.mark.parametrize(("error", "tries"), [(httpx2.ReadTimeout, 1), (httpx2.ConnectError, 4)])
async def test_what_may_not_be_repeated_is_repeated_only_if_it_was_never_sent(
    error: type[httpx2.TransportError], tries: int
) -> None:
    nowhere = Deaf(error)
    async with Serai(URL, TOKEN, transport=nowhere, pace=a_pace(Time())) as serai:
        with pytest.raises(Unreachable):
            await serai._wire.request("POST", "/v1/anything", json={})
    assert nowhere.tries == tries


async def test_a_stranger_at_the_address_is_told_as_such() -> None:
    gateway = FakeGateway(first=[Response("<html>hello</html>", media_type="text/html")])
    async with a_client(gateway) as serai:
        with pytest.raises(NotUnderstood, match="not an answer of a Serai gateway"):
            await serai.root()


async def test_jobs_come_page_by_page() -> None:
    gateway = FakeGateway(jobs={n: [look(n)] for n in range(1, 6)}, page=2)
    async with a_client(gateway) as serai:
        found = [job.id async for job in serai.jobs(states=["failed"], labels={"run": "7"})]
    assert found == [job_id(n) for n in (5, 4, 3, 2, 1)]
    assert [asked.query.get("cursor") for asked in gateway.asked] == [None, "2", "4"]
    assert gateway.asked[0].query["label"] == "run:7"


async def test_a_batch_gives_for_each_job_the_job_or_why_not() -> None:
    refusal = problem(422, "invalid_request", errors=[{"pointer": "/memroy", "detail": "unknown field 'memroy'"}])
    gateway = FakeGateway(refusals={"bad": refusal})
    async with a_client(gateway) as serai:
        good, bad = await serai.submit_many([JOB, {**JOB, "name": "bad"}])
    assert isinstance(good, Job) and good.id == job_id(1)
    assert isinstance(bad, Problem) and bad.errors[0].pointer == "/memroy"


async def test_wait_follows_each_job_to_its_end_in_the_order_asked_for() -> None:
    gateway = FakeGateway(
        jobs={1: [look(1, "queued"), look(1, "running"), look(1)], 2: [look(2, "failed", exit_code=3)]}
    )
    states: list[tuple[str, str]] = []
    async with a_client(gateway) as serai:
        second, first = await serai.wait([job_id(2), job_id(1)], seen=lambda job: states.append((job.id, job.state)))
    assert (second.exit_code, first.state) == (3, "succeeded")
    assert [state for id, state in states if id == job_id(1)] == ["queued", "running", "succeeded"]
    assert all("wait=" in asked.headers.get("prefer", "wait=") for asked in gateway.asked)


async def test_a_wait_that_takes_too_long_names_the_unfinished() -> None:
    gateway = FakeGateway(jobs={1: [look(1, "running")], 2: [look(2)]})
    async with a_client(gateway) as serai:
        with pytest.raises(WaitTimedOut) as caught:
            await serai.wait([job_id(1), job_id(2)], timeout_s=0.05)
    assert caught.value.unfinished == (job_id(1),)


async def test_waiting_for_an_unknown_job_is_a_plain_problem() -> None:
    async with a_client(FakeGateway()) as serai:
        with pytest.raises(Problem, match="no such job"):
            await serai.wait([job_id(9)])


async def test_a_wait_can_be_cancelled_cleanly() -> None:
    gateway = FakeGateway(jobs={1: [look(1, "running")]})
    async with a_client(gateway) as serai:
        waiting = asyncio.create_task(serai.wait([job_id(1)]))
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
