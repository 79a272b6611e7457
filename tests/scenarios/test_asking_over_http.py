"""The public HTTP API at work over a whole platform: handing in safely, waiting, lists, event streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
import uuid6

from serai.errors import Problem
from serai.values import Event, Gap, Job
from services.embedded.sites import BIO
from tests.scenarios.world import World, a_job, a_site, a_world, check_whole, work

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    sites = (a_site("prague", cores=200, memory_mib=65_536, disk_mib=100_000), a_site("lyon", country="FR"))
    async with a_world(tmp_path_factory.mktemp("asking"), *sites, monitor={"relist_interval_s": 30}) as up:
        yield up


# -- handing in ---------------------------------------------------------------------------------------------------


async def test_a_batch_of_1000_with_bad_ones_among_them_takes_each_by_itself(world: World) -> None:
    good = work(labels={"batch": "big"})
    bad: list[dict[str, Any]] = [
        good | {"resources": {"cpu": -1}},
        good | {"comand": ["true"]},
        good | {"vo": "vo.ocean.example"},
        {"name": "nothing to do", "vo": BIO},
    ]
    jobs = [good if number % 10 == 0 else bad[number % 4] for number in range(1000)]
    answers = await world.alice.serai.submit_many(jobs)
    ids = [answer.id for answer in answers if isinstance(answer, Job)]
    assert len(set(ids)) == 100 and all(isinstance(answer, Job) for answer in answers[::10])
    refused = {number: answer for number, answer in enumerate(answers) if isinstance(answer, Problem)}
    negative, slip, stranger, empty = ([refused[n] for n in refused if n % 4 == kind] for kind in range(4))
    codes = {(answer.status, answer.code) for answer in (*negative, *slip, *empty)}
    assert codes == {(422, "invalid_request")}
    assert negative[-1].errors[0].pointer == "/resources/cpu"
    assert "command" in slip[-1].errors[0].hint
    assert stranger[-1].code == "forbidden"
    assert "you are not in the VO 'vo.ocean.example'" in stranger[-1].detail
    ended = await world.alice.serai.wait(ids, timeout_s=30)
    assert {job.state for job in ended} == {"succeeded"}
    for id in ids[::20]:
        assert (await world.alice.steps(id))[-1].startswith("succeeded 1 ")


async def test_a_batch_of_which_nothing_can_be_taken_is_answered_200_and_keeps_nothing(world: World) -> None:
    answer = await world.alice.http.post("/v1/jobs:batch", json={"jobs": [{"name": "?"}, a_job(vo="vo.ocean.example")]})
    assert (answer.status_code, answer.json()["accepted"], answer.json()["refused"]) == (200, 0, 2)
    too_many = await world.alice.http.post("/v1/jobs:batch", json={"jobs": [a_job()] * 1001})
    assert too_many.status_code == 422 and "send 1 to 1000 at a time" in too_many.text


async def test_a_put_with_an_id_of_ones_own_may_be_repeated_but_not_with_other_content(world: World) -> None:
    alice, id = world.alice, str(uuid6.uuid7())
    first = await alice.http.put(f"/v1/jobs/{id}", json=work())
    assert (first.status_code, first.headers["location"]) == (202, f"/v1/jobs/{id}")
    again = await alice.http.put(f"/v1/jobs/{id}", json=work())
    assert (again.status_code, again.json()["id"]) == (200, id)
    other = await alice.http.put(f"/v1/jobs/{id}", json=work("1s"))
    assert (other.status_code, other.json()["code"]) == (409, "job_id_taken")
    somebody_else = await world.bob.http.put(f"/v1/jobs/{id}", json=work(vo=BIO))
    assert somebody_else.status_code == 409 and "alice" not in somebody_else.text
    await alice.sees(id, "succeeded")
    assert len(await alice.attempt(id, 1)) == len(set(await alice.attempt(id, 1))), "it ran once"


async def test_a_request_repeated_with_its_key_is_one_job_and_the_key_is_good_for_that_request_only(
    world: World,
) -> None:
    alice, key = world.alice, {"Idempotency-Key": "6a2d"}
    job = work("100ms", labels={"key": "6a2d"})
    answers = await asyncio.gather(*(alice.http.post("/v1/jobs", json=job, headers=key) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([job async for job in alice.serai.jobs(labels={"key": "6a2d"})]) == 1
    await alice.sees(answers[0].json()["id"], "succeeded")
    late = await alice.http.post("/v1/jobs", json=job, headers=key)
    assert (late.status_code, late.json()["state"]) == (202, "succeeded")
    other = await alice.http.post("/v1/jobs", json=work(), headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    bobs = await world.bob.http.post("/v1/jobs", json=work(vo=BIO), headers=key)
    assert bobs.status_code == 202, "keys belong to who sent them"


async def test_a_bad_job_is_told_what_where_and_how_to_mend_it_and_leaves_nothing_behind(world: World) -> None:
    before = [job.id async for job in world.alice.serai.jobs()]
    wrong = {
        "/resources/memory": a_job(resources={"memory": "lots"}), "/max_runtime": a_job(max_runtime=-5),
        "/labels": a_job(labels=3), "/placement/sites/alow": a_job(placement={"sites": {"alow": ["prague"]}}),
    }  # fmt: skip
    for pointer, job in wrong.items():
        answer = await world.alice.http.post("/v1/jobs", json=job)
        assert answer.status_code == 422, answer.text
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        page = await world.alice.http.get(answer.json()["type"])
        assert page.status_code == 200 and "JSON pointer" in page.text
    huge = await world.alice.http.post("/v1/jobs", json=a_job(env={"A": "x" * 2_000_000}))
    assert (huge.status_code, huge.json()["code"]) == (413, "too_large")
    broken = await world.alice.http.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["code"]) == (400, "undecodable")
    nobody = await world.alice.http.post("/v1/jobs", json=a_job(), headers={"Authorization": "Bearer nonsense"})
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert [job.id async for job in world.alice.serai.jobs()] == before


async def test_a_batch_repeated_with_its_key_has_the_same_answer_and_makes_no_further_jobs(world: World) -> None:
    batch = {"jobs": [work(labels={"twice": "no"}), {"name": "?"}]}
    first, again = [
        await world.alice.http.post("/v1/jobs:batch", json=batch, headers={"Idempotency-Key": "b-1"}) for _ in range(2)
    ]
    assert (first.status_code, first.content) == (202, again.content)
    assert len([job async for job in world.alice.serai.jobs(labels={"twice": "no"})]) == 1


async def test_what_there_is_not_is_told_as_a_problem_too(world: World) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("PATCH", "/v1/jobs", 405), ("GET", "/v1/jobs/x", 404)):
        answer = await world.alice.http.request(method, path)
        assert (answer.status_code, answer.json()["status"]) == (status, status), path
        assert answer.headers["content-type"] == "application/problem+json"


# -- waiting ------------------------------------------------------------------------------------------------------


async def test_an_answer_that_was_asked_to_wait_comes_with_the_change_and_an_etag_spares_the_rest(world: World) -> None:
    alice = world.alice
    job = await alice.runs(work("300ms"))
    tag = {"If-None-Match": (await alice.http.get(f"/v1/jobs/{job.id}")).headers["etag"]}
    unchanged = await alice.http.get(f"/v1/jobs/{job.id}", headers=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    changed = await alice.http.get(f"/v1/jobs/{job.id}", headers={**tag, "Prefer": "wait=15"})
    assert changed.status_code == 200 and changed.headers["etag"] != tag["If-None-Match"]
    assert changed.headers["preference-applied"] == "wait=15"
    await alice.sees(job.id, "succeeded")
    last = (await alice.http.get(f"/v1/jobs/{job.id}")).headers["etag"]
    patient = await alice.http.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": last, "Prefer": "wait=0.2"})
    assert patient.status_code == 304, "nothing changes any more"


# -- lists --------------------------------------------------------------------------------------------------------


async def test_lists_are_filtered_by_vo_state_site_label_and_time_and_paged_without_loss(world: World) -> None:
    alice = world.alice
    at_lyon = [await alice.submit(work(at=["lyon"], labels={"list": "a", "n": str(n)})) for n in range(3)]
    in_bio = await alice.submit(work(at=["prague"], vo=BIO, labels={"list": "a"}))
    running = (await alice.runs(work("1h", at=["lyon"], labels={"list": "a"}))).id
    for job in (*at_lyon, in_bio):
        await alice.sees(job, "succeeded")

    async def listed(**asked: Any) -> list[str]:
        return [job.id async for job in alice.serai.jobs(labels={"list": "a", **asked.pop("labels", {})}, **asked)]

    everything = [running, in_bio, *reversed(at_lyon)]
    assert await listed() == everything
    assert await listed(page=2) == everything
    assert await listed(vo=BIO) == [in_bio]
    assert await listed(states=["running"]) == [running]
    assert await listed(states=["succeeded"], sites=["lyon"]) == [*reversed(at_lyon)]
    assert await listed(labels={"n": "1"}) == [at_lyon[1]]
    middle = (await alice.job(at_lyon[2])).created_at
    assert await listed(created_after=middle) == [running, in_bio]
    await alice.serai.cancel(running)
    await alice.sees(running, "cancelled")
    wrong = await alice.http.get("/v1/jobs", params={"lable": "list:a"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unknown_parameter") and "label" in wrong.json()["detail"]
    elsewhere = (await alice.http.get("/v1/jobs", params={"limit": 1})).json()["next"]
    foreign = await world.bob.http.get("/v1/jobs", params={"cursor": elsewhere})
    assert (foreign.status_code, foreign.json()["code"]) == (400, "invalid_cursor")


# -- event streams ------------------------------------------------------------------------------------------------


async def test_a_stream_resumed_at_any_event_tells_the_rest_and_nothing_twice(world: World) -> None:
    alice = world.alice
    job = await alice.submit(work(exit_code=3, retries={"attempts": 2}))
    live = await alice.hears(job)
    check_whole(live)
    assert live[-1].kind == "job.failed"
    assert [event.id for event in live] == [event.id for event in (await alice.timeline(job))[1:]]
    for place, event in enumerate(live[:-1]):
        assert [each.id for each in await alice.hears(job, event.position)] == [each.id for each in live[place + 1 :]]
    over = await alice.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": live[-1].position})
    assert over.status_code == 204, "there is nothing more to hear"


async def test_a_reader_of_everything_that_comes_back_after_a_break_misses_nothing(world: World) -> None:
    alice, label = world.alice, {"stream": "broken"}
    start = await alice.mark()
    jobs = [await alice.submit(work(labels=label)) for _ in range(5)]
    told: list[Event] = []

    async def listen(after: str, ends: int) -> str:
        """Hear what follows until so many jobs have ended; where the next reader goes on."""
        async with asyncio.timeout(20), aclosing(alice.serai.events(labels=label, after=after)) as facts:  # type: ignore[type-var]
            async for fact in facts:
                assert isinstance(fact, Event)
                told.append(fact)
                if sum(event.kind == "job.succeeded" for event in told) == ends:
                    break
        return told[-1].position

    position = await listen(start, ends=1)
    jobs += [await alice.submit(work(labels=label)) for _ in range(5)]
    position = await listen(position, ends=4)
    for job in jobs:
        await alice.sees(job, "succeeded")
    await listen(position, ends=10)
    for job in jobs:
        own = [event.id for event in told if event.job_id == job]
        assert own == [event.id for event in (await alice.timeline(job))[1:]][: len(own)]
        assert [event.kind for event in told if event.job_id == job][-1].endswith("succeeded")


async def test_a_reader_with_an_id_of_another_log_is_told_of_the_gap(world: World) -> None:
    job = await world.alice.submit(work())
    await world.alice.sees(job, "succeeded")
    facts = world.alice.serai.events(job_id=job, after="abcdef-1")
    async with asyncio.timeout(20), aclosing(facts) as told:  # type: ignore[type-var]
        first = await anext(aiter(told))
    assert isinstance(first, Gap)
    nonsense = await world.alice.http.get("/v1/events", headers={"Last-Event-ID": "nonsense"})
    assert (nonsense.status_code, nonsense.json()["code"]) == (400, "invalid_cursor")


async def test_a_quiet_stream_beats(world: World) -> None:
    async with world.alice.http.stream("GET", "/v1/events") as answer, asyncio.timeout(20):
        async for line in answer.aiter_lines():
            if line.startswith(": heartbeat"):
                break
