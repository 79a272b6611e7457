"""Histories of handing jobs in: what is answered, what is kept, what leaves for the scheduler, and what does not."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from shared.contracts import codec
from shared.contracts.commands import CancelJob, SubmitJob
from shared.contracts.events import JobSucceeded
from tests.builders import ALICE, VO
from tests.unit.gateway.world import World, a_file, a_world, job_event, restarted, sha256

pytestmark = pytest.mark.fast


async def test_a_job_is_accepted_and_its_command_leaves_with_a_grant_for_its_exact_bytes(world: World) -> None:
    answer = await world.http.post("/v1/jobs", json=a_file(labels={"run": "7"}), headers=world.as_("alice"))

    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["owner"]["subject"], job["version"]) == ("accepted", "alice", 1)
    (message,) = await world.bus.commands(1)
    command = codec.decode(message).content
    assert isinstance(command, SubmitJob)
    assert (str(command.job_id), command.owner, command.spec.labels) == (job["id"], ALICE, {"run": "7"})
    assert message.headers["x-grant"] == f"grant:job.submit:{VO}:{sha256(message.body)}:True"
    assert message.headers["traceparent"].split("-")[1] == job["id"].replace("-", "")


async def test_what_others_may_see_leaves_out_secrets_and_the_owner_finds_them_at_spec(world: World) -> None:
    files = [{"path": "in.txt", "content": "häuser"}]
    job_id = await world.submit(env={"TOKEN": "secret"}, files=files)

    shown = await world.http.get(f"/v1/jobs/{job_id}", headers=world.as_("carol"))
    assert "secret" not in shown.text
    assert shown.json()["spec"]["env"] == ["TOKEN"]
    assert shown.json()["spec"]["files"] == [{"path": "in.txt", "size": 7, "executable": False}]
    own = await world.http.get(f"/v1/jobs/{job_id}/spec", headers=world.as_("alice"))
    assert own.json()["env"] == {"TOKEN": "secret"}
    assert (await world.http.get(f"/v1/jobs/{job_id}/spec", headers=world.as_("carol"))).status_code == 404


async def test_the_same_key_and_request_is_one_job_and_asks_for_one_grant(world: World) -> None:
    headers = world.as_("alice", **{"Idempotency-Key": "k-1"})
    first = await world.http.post("/v1/jobs", json=a_file(), headers=headers)
    again = await world.http.post("/v1/jobs", json=a_file(), headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert world.auth.grant_questions == [1]


async def test_a_repeated_request_is_answered_even_when_auth_grants_nothing_any_more(world: World) -> None:
    headers = world.as_("alice", **{"Idempotency-Key": "k-1"})
    first = await world.http.post("/v1/jobs", json=a_file(), headers=headers)
    world.auth.refuse = lambda index: True
    again = await world.http.post("/v1/jobs", json=a_file(), headers=headers)

    assert again.json()["id"] == first.json()["id"]


async def test_the_same_key_for_another_request_is_a_conflict(world: World) -> None:
    headers = world.as_("alice", **{"Idempotency-Key": "k-1"})
    await world.http.post("/v1/jobs", json=a_file(), headers=headers)
    other = await world.http.post("/v1/jobs", json=a_file(name="other"), headers=headers)

    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    bobs = await world.http.post(
        "/v1/jobs", json=a_file(name="other"), headers=world.as_("bob", **{"Idempotency-Key": "k-1"})
    )
    assert bobs.status_code == 202


async def test_two_requests_with_one_key_at_the_same_time_make_one_job(world: World) -> None:
    world.auth.hold = asyncio.Event()
    headers = world.as_("alice", **{"Idempotency-Key": "k-1"})
    posts = [asyncio.create_task(world.http.post("/v1/jobs", json=a_file(), headers=headers)) for _ in range(2)]
    await world.until(lambda: _true(bool(world.auth.grant_questions)))
    world.auth.hold.set()
    answers = await asyncio.gather(*posts)

    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    listed = await world.http.get("/v1/jobs", headers=world.as_("alice"))
    assert len(listed.json()["items"]) == 1


@pytest.mark.sqlite_only(reason="counts on reads that do not give up the event loop, so that all singles come at once")
async def test_singles_that_come_while_a_grant_question_is_under_way_share_the_next_one(world: World) -> None:
    world.auth.hold = asyncio.Event()
    posts = [
        asyncio.create_task(world.http.post("/v1/jobs", json=a_file(name=f"job-{n}"), headers=world.as_("alice")))
        for n in range(10)
    ]
    await world.until(lambda: _true(len(world.auth.grant_questions) == 1))
    world.auth.hold.set()
    answers = await asyncio.gather(*posts)

    assert {answer.status_code for answer in answers} == {202}
    assert len(world.auth.grant_questions) <= 3
    assert sum(world.auth.grant_questions) == 10


async def test_a_put_with_ones_own_id_can_be_repeated_and_never_means_another_job(world: World) -> None:
    job_id = str(uuid4())
    first = await world.http.put(f"/v1/jobs/{job_id}", json=a_file(max_wait="1h"), headers=world.as_("alice"))
    again = await world.http.put(f"/v1/jobs/{job_id}", json=a_file(max_wait=3600), headers=world.as_("alice"))
    other = await world.http.put(f"/v1/jobs/{job_id}", json=a_file(name="other"), headers=world.as_("alice"))
    bobs = await world.http.put(f"/v1/jobs/{job_id}", json=a_file(max_wait="1h"), headers=world.as_("bob"))

    assert [answer.status_code for answer in (first, again, other, bobs)] == [202, 200, 409, 409]
    assert other.json()["code"] == "job_id_taken"
    assert first.json()["id"] == again.json()["id"] == job_id
    assert world.auth.grant_questions == [1, 1]


async def test_who_may_not_hand_in_a_job_does_not_learn_by_an_id_that_there_is_one(world: World) -> None:
    taken, free = await world.submit(), str(uuid4())
    for token, refused in (("stranger", False), ("carol", True)):
        world.auth.refuse = lambda index, refused=refused: refused
        answers = [
            await world.http.put(f"/v1/jobs/{job_id}", json=a_file(), headers=world.as_(token))
            for job_id in (taken, free)
        ]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].content == answers[1].content


async def test_a_batch_takes_what_is_right_and_says_of_the_rest_why_not(world: World) -> None:
    jobs = [a_file(), a_file(vo="vo.unknown"), a_file(comand=["x"]), a_file(name="last")]
    world.auth.refuse = lambda index: index == 1
    headers = world.as_("alice", **{"Idempotency-Key": "b-1"})
    answer = await world.http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=headers)

    assert answer.status_code == 202
    document = answer.json()
    assert (document["accepted"], document["refused"]) == (1, 3)
    assert [item["status"] for item in document["items"]] == [202, 403, 422, 403]
    assert document["items"][2]["problem"]["errors"] == [
        {"pointer": "/jobs/2/comand", "detail": "unknown field 'comand'", "hint": "did you mean 'command'?"}
    ]
    assert world.auth.grant_questions == [2]
    again = await world.http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=headers)
    assert (again.status_code, again.content) == (202, answer.content)
    assert world.auth.grant_questions == [2]


async def test_a_batch_of_a_thousand_is_one_grant_question_and_a_thousand_and_one_are_too_many(world: World) -> None:
    answer = await world.http.post("/v1/jobs:batch", json={"jobs": [a_file()] * 1000}, headers=world.as_("alice"))
    more = await world.http.post("/v1/jobs:batch", json={"jobs": [a_file()] * 1001}, headers=world.as_("alice"))

    assert (answer.json()["accepted"], world.auth.grant_questions) == (1000, [1000])
    assert (more.status_code, more.json()["code"]) == (422, "invalid_request")


async def test_a_batch_of_which_nothing_is_taken_says_200(world: World) -> None:
    answer = await world.http.post("/v1/jobs:batch", json={"jobs": [{}]}, headers=world.as_("alice"))
    assert (answer.status_code, answer.json()["accepted"]) == (200, 0)


async def test_a_cancel_is_kept_shown_and_sent_once(world: World) -> None:
    job_id = await world.submit()
    first = await world.http.delete(f"/v1/jobs/{job_id}", headers=world.as_("alice"))
    again = await world.http.delete(f"/v1/jobs/{job_id}", headers=world.as_("alice"))

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["cancel_requested_at"] == again.json()["cancel_requested_at"] is not None
    assert (await world.job(job_id))["version"] == 2
    messages = await world.bus.commands(2)
    command = codec.decode(messages[1]).content
    assert isinstance(command, CancelJob)
    assert str(command.job_id) == job_id
    assert len(world.bus.published) == 2


async def test_a_manager_cancels_anothers_job_under_a_grant_that_says_so(world: World) -> None:
    job_id = await world.submit()
    await world.http.delete(f"/v1/jobs/{job_id}", headers=world.as_("carol"))

    messages = await world.bus.commands(2)
    assert messages[1].headers["x-grant"].endswith(":False")


async def test_cancelling_a_job_that_has_ended_changes_nothing(world: World) -> None:
    job_id = await world.submit()
    await world.tell(job_event(JobSucceeded, job_id, 1))
    answer = await world.http.delete(f"/v1/jobs/{job_id}", headers=world.as_("alice"))

    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert answer.json()["cancel_requested_at"] is None


async def test_while_auth_is_away_known_users_read_on_and_nobody_writes(world: World) -> None:
    job_id = await world.submit()
    world.auth.away = True
    world.clock.forward(120)

    assert (await world.job(job_id))["state"] == "accepted"
    write = await world.http.post("/v1/jobs", json=a_file(), headers=world.as_("alice"))
    assert (write.status_code, write.json()["code"]) == (503, "unavailable")
    assert int(write.headers["retry-after"]) >= 1
    unknown = await world.http.get("/v1/jobs", headers=world.as_("bob"))
    assert unknown.status_code == 503
    world.clock.forward(600)
    assert (await world.http.get(f"/v1/jobs/{job_id}", headers=world.as_("alice"))).status_code == 503


async def test_when_the_bus_takes_nothing_for_long_new_work_is_refused_and_the_accepted_is_kept(world: World) -> None:
    world.bus.away = True
    job_id = await world.submit()
    world.clock.forward(301)
    answer = await world.http.post("/v1/jobs", json=a_file(), headers=world.as_("alice"))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    world.bus.away = False
    (message,) = await world.bus.commands(1)
    assert message.headers["ce-subject"] == job_id


async def test_what_was_accepted_survives_a_restart(tmp_path: Path) -> None:
    async with a_world(tmp_path) as before:
        before.bus.away = True
        job_id = await before.submit()
    before.bus.away = False
    async with restarted(tmp_path, before.auth, before.owners, before.bus, before.clock) as after:
        (message,) = await after.bus.commands(1)
        assert message.headers["ce-subject"] == job_id
        assert (await after.job(job_id))["state"] == "accepted"


async def _true(value: bool) -> bool:
    return value
