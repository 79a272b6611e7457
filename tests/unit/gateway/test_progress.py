"""B9 at the gateway: a running job reads itself and tells of its progress; every other route is closed to it."""

from typing import Any
from uuid import uuid4

import orjson
import pytest

from services.gateway.reporting import pause_s
from shared.contracts.commands import Principal, ReportProgress
from shared.contracts.events import JobProgress, JobQueued, JobRunning
from shared.contracts.questions import Context, WorkloadIdentity
from tests.builders import ALICE, VO
from tests.unit.gateway.test_bad_input import GUARDED
from tests.unit.gateway.world import World, context

pytestmark = pytest.mark.fast
TASK = Principal(issuer="https://nomad.prague.example", subject="prague:ns:job:main:main:serai")
HALF = {"fraction": 0.5, "message": "half", "results": {"loss": 0.25, "epoch": 3, "phase": "train", "best": True}}


def a_task(name: str) -> Context:
    workload = WorkloadIdentity(job=name, namespace="default", allocation="a1", sites=("prague",))
    return context(TASK).model_copy(update={"memberships": (), "workload": workload})


async def a_running_job(world: World) -> str:
    """A job of alice's; its task's token is `task`."""
    job = await world.submit()
    world.auth.contexts["task"] = a_task(f"{job}-001")
    world.owners.living.add(f"{job}-001")
    return job


async def tell(world: World, job: str, body: Any = HALF, token: str = "task") -> Any:
    return await world.http.post(f"/v1/jobs/{job}/progress", json=body, headers=world.as_(token))


async def test_a_report_leaves_as_a_command_in_the_name_of_the_job(world: World) -> None:
    job = await a_running_job(world)
    answer = await tell(world, job)
    assert (answer.status_code, answer.json()["attempt"]) == (202, 1)
    _, message = await world.bus.commands(2)
    command = ReportProgress.model_validate_json(message.body)
    assert (str(command.job_id), command.attempt, command.vo, command.reported_by) == (job, 1, VO, TASK)
    assert (command.fraction, command.message, command.results) == tuple(HALF.values())
    assert message.routing_key == "job.report"


async def test_what_was_told_is_shown_until_the_job_is_queued_again(world: World) -> None:
    job = await world.submit()
    fields: dict[str, Any] = {"job_id": job, "vo": VO, "owner": ALICE, "name": "count", "attempt": 1, "site": "prague"}
    await world.tell(JobRunning(**fields, sequence=1), JobProgress(**fields, sequence=2, **HALF))
    shown = await world.job(job)
    assert shown["state"] == "running"
    assert shown["progress"] == {"attempt": 1, "at": "2026-11-24T12:00:00Z", **HALF}
    async with world.stream(f"/v1/jobs/{job}/events") as frames:
        kinds = [(await frames.next()).data["type"] for _ in range(2)]
    assert kinds == ["eu.serai.job.running.v1", "eu.serai.job.progress.v1"]
    await world.tell(JobQueued(**(fields | {"site": None}), sequence=3))
    assert (await world.job(job))["progress"] is None


async def test_a_job_reads_itself_while_it_runs(world: World) -> None:
    job = await a_running_job(world)
    answer = await world.http.get(f"/v1/jobs/{job}", headers=world.as_("task"))
    assert (answer.status_code, answer.json()["id"]) == (200, job)
    again = await world.http.get(f"/v1/jobs/{job}", headers=world.as_("task"))
    assert again.status_code == 200, "also by the short way of known callers"
    world.owners.living.clear()
    ended = await world.http.get(f"/v1/jobs/{job}", headers=world.as_("task"))
    assert (ended.status_code, ended.json()["code"]) == (403, "forbidden")


async def test_b9_every_other_route_is_closed_to_it(world: World) -> None:
    job = await a_running_job(world)
    mine = {("GET", "/v1/jobs/{id}"), ("POST", "/v1/jobs/{id}/progress")}
    for method, path in GUARDED:
        for id in (job, str(uuid4())):
            if (method, path) in mine and id == job:
                continue
            body = HALF if path.endswith("progress") else {"name": "x", "vo": VO, "command": ["true"]}
            answer = await world.http.request(
                method, path.replace("{id}", id), headers=world.as_("task"), json=None if method == "GET" else body
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    assert len(await world.bus.commands(1)) == len(world.bus.published), "nothing was left behind"


async def test_b9_another_attempt_a_twin_and_another_job_are_not_it(world: World) -> None:
    job = await a_running_job(world)
    for name in (f"{job}-002", f"{job}-0010", f"{job}-00", job, f"{job}x-001", f"x{job}-001", f"{uuid4()}-001"):
        world.auth.contexts[name] = a_task(name)
        for answer in (
            await tell(world, job, token=name), await world.http.get(f"/v1/jobs/{job}", headers=world.as_(name)),
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), name
    assert len(world.bus.published) <= 1


async def test_b9_people_do_not_tell_of_a_jobs_progress_not_even_of_their_own(world: World) -> None:
    job = await a_running_job(world)
    answer = await tell(world, job, token="alice")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_b9_a_job_that_has_ended_is_not_heard(world: World) -> None:
    job = await a_running_job(world)
    world.owners.living.clear()
    answer = await tell(world, job)
    assert (answer.status_code, "over" in answer.json()["detail"]) == (403, True)


async def test_reports_come_one_in_a_while(world: World) -> None:
    job = await a_running_job(world)
    assert (await tell(world, job)).status_code == 202
    early = await tell(world, job)
    assert (early.status_code, early.json()["code"]) == (429, "too_many_requests")
    assert int(early.headers["retry-after"]) in (1, 2)
    world.clock.forward(2)
    assert (await tell(world, job)).status_code == 202


@pytest.mark.parametrize(("age_s", "pause"), [(0, 2), (999, 2), (1_000, 2), (5_000, 10), (31_536_000, 63_072)])
def test_the_older_an_attempt_the_more_seldom(age_s: float, pause: float) -> None:
    assert pause_s(age_s, 2) == pytest.approx(pause)


def test_a_year_of_reports_is_a_few_thousand() -> None:
    age, count = 0.0, 0
    while age < 31_536_000:
        age += pause_s(age, 2)
        count += 1
    assert count < 6_000


NOT_TOLD: list[tuple[Any, str]] = [
    ({"fraction": 1.01}, "/fraction"), ({"fraction": -0.1}, "/fraction"), ({"fraction": "1"}, "/fraction"),
    ({"message": "x" * 501}, "/message"), ({"results": {"a": None}}, "/results/a"), ({"result": 1}, "/result"),
    ({"results": {"a": {"b": 1}}}, "/results/a"), ({"results": {"a": [1]}}, "/results/a"),
    ({"results": {"": 1}}, "/results/"), ({"results": {f"n{n}": n for n in range(17)}}, "/results"),
    ({"results": {"a": "x" * 257}}, "/results/a"), ([], ""),
]  # fmt: skip


async def test_what_cannot_be_told_is_refused(world: World) -> None:
    job = await a_running_job(world)
    for body, pointer in NOT_TOLD:
        answer = await tell(world, job, body)
        assert answer.status_code == 422, (body, answer.text)
        assert any(error["pointer"].startswith(pointer) for error in answer.json()["errors"]), body


async def test_a_figure_that_is_no_number_is_no_json(world: World) -> None:
    job = await a_running_job(world)
    headers = world.as_("task") | {"Content-Type": "application/json"}
    answer = await world.http.post(f"/v1/jobs/{job}/progress", content=b'{"fraction": NaN}', headers=headers)
    assert answer.status_code == 400


async def test_numbers_keep_their_kind(world: World) -> None:
    job = await a_running_job(world)
    assert (await tell(world, job, {"results": {"n": 3, "x": 3.0, "b": True, "s": "3"}})).status_code == 202
    _, message = await world.bus.commands(2)
    assert orjson.loads(message.body)["results"] == {"n": 3, "x": 3.0, "b": True, "s": "3"}
