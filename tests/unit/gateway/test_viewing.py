"""Histories of looking at jobs: what is shown, to whom, in lists and one by one, and how a change is waited for."""

import asyncio
from uuid import uuid4

import httpx2 as httpx
import pytest

from services.gateway import event_log
from shared.contracts.events import (
    AttemptFailed,
    AttemptRunning,
    EndpointAddress,
    JobFailed,
    JobPlaced,
    JobRunning,
    JobStarting,
    JobSucceeded,
)
from shared.contracts.reasons import ReasonCode, Verdict, VerdictCode, because
from shared.job import FailureClass
from shared.runtime.clock import micros
from shared.runtime.service import drain
from tests.builders import NOON, VO
from tests.unit.gateway.world import OTHER_VO, World, attempt_event, job_event, queued, structured

pytestmark = pytest.mark.fast


async def test_a_job_is_followed_from_its_queue_to_its_end(world: World) -> None:
    job_id = await world.submit()
    await world.tell(
        queued(job_id, 1),
        job_event(JobPlaced, job_id, 2, attempt=1, site="prague"),
        attempt_event(AttemptRunning, job_id, 1, endpoints=(EndpointAddress(name="web", address="127.0.0.1:8000"),)),
        job_event(JobRunning, job_id, 3, attempt=1, site="prague"),
    )
    running = await world.job(job_id)
    assert (running["state"], running["site"], running["attempt"], running["version"]) == ("running", "prague", 1, 5)
    assert running["endpoints"] == [{"name": "web", "address": "127.0.0.1:8000"}]
    assert running["attempts"][0]["status"] == "running"

    ended = because(ReasonCode.TASK_ERROR, exit_code=3)
    await world.tell(
        attempt_event(AttemptFailed, job_id, 2, exit_code=3, failure=FailureClass.TASK_ERROR, reason=ended),
        job_event(JobFailed, job_id, 4, attempt=1, site="prague", exit_code=3, reason=ended),
    )
    job = await world.job(job_id)
    assert (job["state"], job["exit_code"], job["reason"]["code"]) == ("failed", 3, "task_error")
    assert (job["endpoints"], job["attempts"][0]["exit_code"]) == ([], 3)


async def test_repeated_and_late_events_change_nothing(world: World) -> None:
    job_id = await world.submit()
    placed = job_event(JobPlaced, job_id, 2, attempt=1, site="prague")
    await world.tell(queued(job_id, 1), placed, queued(job_id, 1), placed, job_event(JobSucceeded, job_id, 3))
    before = await world.job(job_id)
    await world.tell(placed, job_event(JobRunning, job_id, 4, attempt=1, site="prague"))

    after = await world.job(job_id)
    assert (before["state"], after["state"]) == ("succeeded", "succeeded")
    timeline = (await world.http.get(f"/v1/jobs/{job_id}/timeline", headers=world.as_("alice"))).json()["items"]
    assert [item["type"] for item in timeline] == [
        "job.accepted", "job.queued", "job.placed", "job.succeeded", "job.running",
    ]  # fmt: skip


async def test_a_hole_is_filled_from_the_events_owner_before_anything_behind_it_is_shown(world: World) -> None:
    job_id = await world.submit()
    missing = [queued(job_id, 1), job_event(JobPlaced, job_id, 2, attempt=1, site="prague")]
    last = job_event(JobStarting, job_id, 3, attempt=1, site="prague")
    world.owners.series[job_id, 0] = [structured(event) for event in (*missing, last)]
    await world.tell(last)

    await world.until(lambda: _state_is(world, job_id, "starting"))
    assert f"{job_id}/0>0" in world.owners.asked
    timeline = (await world.http.get(f"/v1/jobs/{job_id}/timeline", headers=world.as_("alice"))).json()["items"]
    assert [item["sequence"] for item in timeline] == [0, 1, 2, 3]


async def test_a_hole_in_an_attempts_series_does_not_hold_up_the_jobs_own(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id, 1), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    late = attempt_event(AttemptRunning, job_id, 3)
    world.owners.series[job_id, 1] = [structured(attempt_event(AttemptRunning, job_id, n)) for n in (1, 2, 3)]
    await world.tell(late, job_event(JobRunning, job_id, 3, attempt=1, site="prague"))

    assert (await world.job(job_id))["state"] == "running"
    await world.until(lambda: _attempt_is(world, job_id, 3))


async def test_an_event_that_nobody_understands_hurts_only_itself(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id, 1))
    offset, message = world.bus.stream[-1]
    broken = type(message)(message.id, "eu.serai.job.unheard.v1", *_rest(message))
    world.bus.stream.append((offset + 1, broken))
    await world.tell(job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))

    assert (await world.job(job_id))["state"] == "placed"


async def test_hidden_and_absent_jobs_look_the_same_to_the_byte(world: World) -> None:
    job_id = await world.submit()
    for path in ("", "/timeline", "/explain", "/outputs", "/logs", "/events", "/trace", "/spec"):
        hidden = await world.http.get(f"/v1/jobs/{job_id}{path}", headers=world.as_("bob"))
        absent = await world.http.get(f"/v1/jobs/{uuid4()}{path}", headers=world.as_("bob"))
        nonsense = await world.http.get(f"/v1/jobs/nonsense{path}", headers=world.as_("bob"))
        assert hidden.status_code == absent.status_code == nonsense.status_code == 404
        assert hidden.content == absent.content == nonsense.content
        assert sorted(hidden.headers.items()) == sorted(absent.headers.items())
    cancel = await world.http.delete(f"/v1/jobs/{job_id}", headers=world.as_("bob"))
    assert cancel.status_code == 404


async def test_etags_answer_304_until_something_changes(world: World) -> None:
    job_id = await world.submit()
    first = await world.http.get(f"/v1/jobs/{job_id}", headers=world.as_("alice"))
    same = await world.http.get(
        f"/v1/jobs/{job_id}", headers=world.as_("alice", **{"If-None-Match": first.headers["etag"]})
    )
    await world.tell(queued(job_id))
    other = await world.http.get(
        f"/v1/jobs/{job_id}", headers=world.as_("alice", **{"If-None-Match": first.headers["etag"]})
    )

    assert (first.headers["etag"], same.status_code, same.content) == ('"1"', 304, b"")
    assert (other.status_code, other.headers["etag"]) == (200, '"2"')


async def test_a_long_poll_answers_when_the_job_changes(world: World) -> None:
    job_id = await world.submit()
    headers = world.as_("alice", Prefer="wait=30")
    waiting = asyncio.create_task(world.http.get(f"/v1/jobs/{job_id}", headers=headers))
    await world.job(job_id)
    assert not waiting.done()
    await world.tell(queued(job_id))
    answer = await asyncio.wait_for(waiting, 5)

    assert (answer.json()["state"], answer.headers["preference-applied"]) == ("queued", "wait=30")


async def test_a_long_poll_whose_etag_is_old_answers_at_once_and_one_without_change_says_304(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id))
    old = await world.http.get(
        f"/v1/jobs/{job_id}", headers=world.as_("alice", Prefer="wait=30", **{"If-None-Match": '"1"'})
    )
    same = await world.http.get(
        f"/v1/jobs/{job_id}", headers=world.as_("alice", Prefer="wait=0.1", **{"If-None-Match": '"2"'})
    )

    assert (old.status_code, old.json()["state"], same.status_code) == (200, "queued", 304)


async def test_a_long_poll_on_an_ended_job_answers_at_once(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id), job_event(JobFailed, job_id, 2))
    headers = world.as_("alice", Prefer="wait=30")

    async with asyncio.timeout(20):
        seen = await world.http.get(f"/v1/jobs/{job_id}", headers=headers)
        again = await world.http.get(f"/v1/jobs/{job_id}", headers=headers | {"If-None-Match": seen.headers["etag"]})

    assert (seen.status_code, seen.json()["state"], again.status_code) == (200, "failed", 304)


async def test_lists_are_filtered_and_paged_newest_first(world: World) -> None:
    ids = []
    for number in range(5):
        ids.append(await world.submit(name=f"job-{number}", labels={"run": str(number % 2), "all": "yes"}))
        world.clock.forward(1)
    await world.tell(queued(ids[1]), queued(ids[3]), job_event(JobPlaced, ids[3], 2, attempt=1, site="prague"))

    async def listed(query: str) -> list[str]:
        answer = await world.http.get(f"/v1/jobs?{query}", headers=world.as_("alice"))
        assert answer.status_code == 200, answer.text
        return [item["name"][-1] for item in answer.json()["items"]]

    assert await listed("") == ["4", "3", "2", "1", "0"]
    assert await listed("state=queued&state=placed") == ["3", "1"]
    assert await listed("site=prague") == ["3"]
    assert await listed("label=run:1&label=all:yes") == ["3", "1"]
    assert await listed("label=run:1&state=placed") == ["3"]
    assert await listed("label=run:0&state=succeeded") == []
    assert await listed(f"vo={VO}&created_after=2026-11-24T12:00:02Z") == ["4", "3"]
    assert await listed("created_before=2026-11-24T12:00:01Z") == ["0"]

    names, query = [], "limit=2"
    while query:
        page = (await world.http.get(f"/v1/jobs?{query}", headers=world.as_("alice"))).json()
        names += [item["name"][-1] for item in page["items"]]
        query = f"limit=2&cursor={page['next']}" if page["next"] else ""
    assert names == ["4", "3", "2", "1", "0"]


async def test_jobs_of_the_same_moment_are_all_on_some_page(world: World) -> None:
    ids = {await world.submit(labels={"a": "b"}) for _ in range(7)}
    for filters in ("limit=3", "limit=3&state=accepted", "limit=3&label=a:b"):
        seen, cursor = [], ""
        while cursor is not None:
            query = f"{filters}&cursor={cursor}" if cursor else filters
            page = (await world.http.get(f"/v1/jobs?{query}", headers=world.as_("alice"))).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert (len(seen), set(seen)) == (7, ids)


async def test_a_cursor_belongs_to_its_list_and_its_reader(world: World) -> None:
    for _ in range(3):
        await world.submit()
    cursor = (await world.http.get("/v1/jobs?limit=1", headers=world.as_("alice"))).json()["next"]
    for token, query in (
        ("alice", f"state=queued&cursor={cursor}"), ("bob", f"cursor={cursor}"),
        ("alice", "cursor=nonsense"), ("alice", f"cursor={cursor[:-2]}xx"), ("alice", "cursor=%00"),
    ):  # fmt: skip
        answer = await world.http.get(f"/v1/jobs?{query}", headers=world.as_(token))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_a_manager_sees_the_vos_jobs_and_a_member_only_his_own(world: World) -> None:
    await world.submit("alice", name="hers")
    await world.submit("bob", name="his")

    async def names(token: str, query: str) -> list[str] | int:
        answer = await world.http.get(f"/v1/jobs?{query}", headers=world.as_(token))
        return answer.status_code if answer.is_error else sorted(item["name"] for item in answer.json()["items"])

    assert await names("carol", "view=vo") == ["hers", "his"]
    assert await names("carol", "") == []
    assert await names("bob", "") == ["his"]
    assert await names("bob", "view=vo") == 403
    assert await names("bob", f"view=vo&vo={OTHER_VO}") == 403
    assert await names("stranger", f"vo={OTHER_VO}") == []


async def test_why_is_answered_by_the_scheduler_and_before_it_knows_the_job_by_us(world: World) -> None:
    job_id = await world.submit()
    why = await world.http.get(f"/v1/jobs/{job_id}/explain", headers=world.as_("alice"))
    dry = await world.http.post(
        "/v1/jobs:explain", json={"name": "x", "vo": VO, "command": ["x"]}, headers=world.as_("alice")
    )

    assert (why.json()["state"], "on its way" in why.json()["summary"]) == ("accepted", True)
    assert dry.json()["summary"] == "would go to prague"
    assert "read-alice" in world.owners.asked


async def test_why_of_a_job_that_has_ended_tells_every_sites_verdict_at_its_last_placement(world: World) -> None:
    job_id = await world.submit()
    receipt = (
        Verdict(site="prague", code=VerdictCode.FITS, message="prague can take the job now."),
        Verdict(site="lyon", code=VerdictCode.GPU_MISSING, message="lyon has no GPU."),
    )
    await world.tell(
        queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague", receipt=receipt),
        job_event(JobSucceeded, job_id, 3, attempt=1, site="prague"),
    )  # fmt: skip
    why = await world.http.get(f"/v1/jobs/{job_id}/explain", headers=world.as_("alice"))
    assert [(each["site"], each["code"]) for each in why.json()["verdicts"]] == [
        ("prague", "fits"), ("lyon", "gpu_missing"),
    ]  # fmt: skip


async def test_logs_arrive_while_they_are_written(world: World) -> None:
    job_id = await world.submit()
    world.owners.log_lines = [b"hello\n"]
    nothing = await world.http.get(f"/v1/jobs/{job_id}/logs", headers=world.as_("alice"))
    assert nothing.status_code == 404
    async with (
        asyncio.timeout(20),
        world.http.stream("GET", f"/v1/jobs/{job_id}/logs?follow=true", headers=world.as_("alice")) as answer,
    ):
        chunks = answer.aiter_raw()
        first = asyncio.create_task(anext(chunks))
        await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
        assert await first == b"hello\n"
        world.owners.log_end.set()
        assert await anext(chunks) == b"the end\n"


async def test_followed_logs_wait_until_the_monitor_has_heard_of_the_attempt(world: World) -> None:
    job_id = await world.submit()
    world.owners.log_known, world.owners.log_lines = False, [b"hello\n"]
    await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    now = await world.http.get(f"/v1/jobs/{job_id}/logs", headers=world.as_("alice"))
    assert now.status_code == 404
    path = f"/v1/jobs/{job_id}/logs?follow=true"
    async with asyncio.timeout(20), world.http.stream("GET", path, headers=world.as_("alice")) as answer:
        world.owners.log_known = True
        await world.tell(attempt_event(AttemptRunning, job_id, 1))
        assert await anext(answer.aiter_raw()) == b"hello\n"


async def test_a_log_goes_on_where_its_reader_was(world: World) -> None:
    job_id = await world.submit()
    world.owners.log_lines = [b"one\n", b"two\n"]
    await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    path = f"/v1/jobs/{job_id}/logs"
    rest = await world.http.get(f"{path}?attempt=1&offset=4", headers=world.as_("alice"))
    assert rest.content == b"two\n"
    for query, word in (("offset=4", "attempt"), ("attempt=1&offset=4&tail=2", "tail")):
        refused = await world.http.get(f"{path}?{query}", headers=world.as_("alice"))
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/offset")
        assert word in refused.json()["errors"][0]["detail"]


async def test_a_followed_log_is_cut_when_the_gateway_stops_so_that_nobody_takes_it_for_whole(world: World) -> None:
    job_id = await world.submit()
    world.owners.log_lines = [b"hello\n"]
    await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    path = f"/v1/jobs/{job_id}/logs?follow=true"
    async with asyncio.timeout(20), world.http.stream("GET", path, headers=world.as_("alice")) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"hello\n"
        await drain([world.service])
        with pytest.raises(httpx.TransportError):
            await anext(chunks)


async def test_a_long_poll_is_answered_when_the_gateway_stops(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id))
    etag = (await world.http.get(f"/v1/jobs/{job_id}", headers=world.as_("alice"))).headers["etag"]
    headers = world.as_("alice", **{"Prefer": "wait=30", "If-None-Match": etag})
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(world.http.get(f"/v1/jobs/{job_id}", headers=headers))
        await drain([world.service])
        assert (await waiting).status_code == 304


async def test_logs_of_others_are_the_managers_alone(world: World) -> None:
    job_id = await world.submit()
    await world.tell(queued(job_id), job_event(JobPlaced, job_id, 2, attempt=1, site="prague"))
    world.auth.contexts["olga"] = world.auth.contexts["carol"].model_copy(
        update={"memberships": (world.auth.contexts["carol"].memberships[0].model_copy(
            update={"verbs": frozenset({"job.view_own", "job.view_vo"})}
        ),)}
    )  # fmt: skip
    assert (await world.http.get(f"/v1/jobs/{job_id}/logs", headers=world.as_("carol"))).status_code == 200
    assert (await world.job(job_id, "olga"))["state"] == "placed"
    assert (await world.http.get(f"/v1/jobs/{job_id}/logs", headers=world.as_("olga"))).status_code == 403


async def test_outputs_are_listed_and_fetched(world: World) -> None:
    job_id = await world.submit()
    listed = await world.http.get(f"/v1/jobs/{job_id}/outputs", headers=world.as_("alice"))
    content = await world.http.get(f"/v1/jobs/{job_id}/outputs/result.txt", headers=world.as_("alice"))
    missing = await world.http.get(f"/v1/jobs/{job_id}/outputs/other", headers=world.as_("alice"))

    assert [output["name"] for output in listed.json()["outputs"]] == ["result.txt"]
    assert content.content == b"42\n"
    assert missing.status_code == 404


async def test_operators_cordon_sites_and_others_do_not(world: World) -> None:
    answer = await world.http.post("/v1/sites/prague:cordon", json={"reason": "power"}, headers=world.as_("oscar"))
    (message,) = await world.bus.commands(1)
    assert (answer.status_code, message.type) == (202, "eu.serai.site.cordon.v1")
    world.clock.forward(1)
    answer = await world.http.post("/v1/sites/prague:uncordon", headers=world.as_("oscar"))
    assert (answer.status_code, answer.json()["command"]) == (202, "site.uncordon")

    assert (await world.http.post("/v1/sites/prague:cordon", headers=world.as_("carol"))).status_code == 403
    unknown = await world.http.post("/v1/sites/atlantis:cordon", headers=world.as_("oscar"))
    assert (unknown.status_code, "prague" in unknown.json()["detail"]) == (404, True)
    sites = await world.http.get("/v1/sites", headers=world.as_("bob"))
    assert [site["name"] for site in sites.json()["sites"]] == ["prague"]


@pytest.mark.parametrize("reason", ["a\x00b", "one\ntwo", "\x1b[31mred", "x" * 501])
async def test_what_an_operator_says_is_one_line_without_control_characters(world: World, reason: str) -> None:
    """It is shown to everybody, and a NUL cannot be kept: it would be taken, and then not be done."""
    answer = await world.http.post("/v1/sites/prague:cordon", json={"reason": reason}, headers=world.as_("oscar"))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/reason")
    assert world.bus.published == []


async def test_the_index_leads_everywhere_and_pages_load_nothing_from_elsewhere(world: World) -> None:
    index = (await world.http.get("/v1")).json()
    assert index["issuers"][0]["issuer"] == "https://issuer.example"
    for path in (*index["documents"].values(), "/docs/docs.js", "/docs/docs.css", "/problems/not_found", "/healthz"):
        answer = await world.http.get(path)
        assert answer.status_code == 200, path
        assert "http://" not in answer.text and "https://" not in answer.text.replace(
            "https://json-schema.org/draft/2020-12/schema", ""
        ), path
    whoami = (await world.http.get("/v1/whoami", headers=world.as_("carol"))).json()
    assert (whoami["principal"]["subject"], whoami["memberships"][0]["vo"]) == ("carol", VO)


async def test_readiness_names_the_culprit(world: World) -> None:
    assert (await world.http.get("/readyz")).status_code == 200
    world.bus.away = True
    answer = await world.http.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["bus"]) == (503, "the bus is away")


async def test_head_and_options_are_answered_everywhere(world: World) -> None:
    job_id = await world.submit()
    head = await world.http.head(f"/v1/jobs/{job_id}", headers=world.as_("alice"))
    stream = await asyncio.wait_for(world.http.head("/v1/events", headers=world.as_("alice")), 5)
    options = await world.http.options(f"/v1/jobs/{job_id}")

    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", '"1"')
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"


async def test_spans_are_shown_where_they_are_kept(world: World) -> None:
    job_id = await world.submit()
    answer = (await world.http.get(f"/v1/jobs/{job_id}/trace", headers=world.as_("alice"))).json()
    assert answer["spans"] == [{"trace_id": job_id.replace("-", "")}]


async def test_when_the_log_has_forgotten_a_job_its_timeline_comes_from_the_owners(world: World) -> None:
    job_id = await world.submit()
    events = [queued(job_id, 1), job_event(JobSucceeded, job_id, 2)]
    await world.tell(*events)
    world.owners.series[job_id, 0] = [structured(event) for event in events]
    world.clock.forward(31 * 86_400)
    world.auth.contexts["alice"] = world.auth.contexts["alice"].model_copy(
        update={"expires_at": world.clock.now.replace(year=2030)}
    )
    await world.store.transact(lambda connection: event_log.forget(connection, micros(NOON) + 1, 500))
    answer = await world.http.get(f"/v1/jobs/{job_id}/timeline", headers=world.as_("alice"))

    assert [item["type"] for item in answer.json()["items"]] == ["job.accepted", "job.queued", "job.succeeded"]
    assert f"{job_id}/0>0" in world.owners.asked


async def _state_is(world: World, job_id: str, state: str) -> bool:
    return bool((await world.job(job_id))["state"] == state)


async def _attempt_is(world: World, job_id: str, sequence: int) -> bool:
    return bool((await world.job(job_id))["attempts"][0]["sequence"] == sequence)


def _rest(message: object) -> tuple[object, ...]:
    return tuple(getattr(message, name) for name in ("exchange", "routing_key", "body", "content_type", "headers"))
