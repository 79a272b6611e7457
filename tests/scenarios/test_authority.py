"""Nothing runs without authority: auth is away, says no at dispatch, a grant grows old, a message is forged."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from services.embedded.sites import BIO, CLIMATE
from shared.adapters.rabbitmq import throwaway
from shared.contracts.envelope import Message
from shared.errors import Unavailable
from tests.scenarios.world import Movable, a_site, a_world, until, work

SITES = (a_site("prague"), a_site("lyon", country="FR"))


async def test_while_auth_is_away_reads_go_on_for_a_bounded_time_and_writes_are_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    auth = Movable()
    async with a_world(
        tmp_path, *SITES, apps=auth.between, auth={"context_cache_s": 0},
        gateway={"context_cache_s": 0.05, "stale_context_s": 2.5}, scheduler={"decision_cache_s": 0},
    ) as world:  # fmt: skip
        alice = world.alice
        running = (await alice.runs(work("1h", at=["prague"]))).id
        await alice.job(running)
        auth.away = True
        refused = await alice.http.post("/v1/jobs", json=work())
        assert refused.status_code == 503 and refused.json()["code"] == "unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        cancelled = await alice.http.delete(f"/v1/jobs/{running}")
        assert cancelled.status_code == 503
        assert (await alice.http.get(f"/v1/jobs/{running}")).json()["state"] == "running"

        async def shut() -> int:
            answer = await alice.http.get(f"/v1/jobs/{running}")
            return answer.status_code if answer.status_code != 200 else 0

        assert await until(shut) == 503, "the known context is too old now"
        auth.away = False
        assert (await alice.job(running)).raw["cancel_requested_at"] is None, "what was answered 503 left nothing"
        job = await alice.submit(work())
        await alice.sees(job, "succeeded")


async def test_while_auth_is_away_questions_to_other_services_go_on_as_long_as_their_grant_and_then_wait(
    tmp_path: Path,
) -> None:
    """Views are the gateway's own; why, logs and outputs are asked of others, with a read grant that auth renews."""
    auth = Movable()
    async with a_world(
        tmp_path, *SITES, apps=auth.between, auth={"context_cache_s": 0, "read_grant_life_s": 3.0},
        gateway={"context_cache_s": 0.05, "stale_context_s": 30},
    ) as world:  # fmt: skip
        running = (await world.alice.runs(work("1h", at=["prague"]))).id
        await world.alice.why(running)
        auth.away = True
        assert (await world.alice.http.get(f"/v1/jobs/{running}/explain")).status_code == 200

        async def asked() -> dict[str, Any]:
            answer = await world.alice.http.get(f"/v1/jobs/{running}/explain")
            return {} if answer.status_code == 200 else {"status": answer.status_code, **answer.headers}

        told = await until(asked)
        assert told["status"] == 503
        assert int(told["retry-after"]) >= 1
        assert (await world.alice.http.get(f"/v1/jobs/{running}")).status_code == 200
        auth.away = False
        await world.alice.why(running)


async def test_a_job_accepted_before_auth_went_away_waits_says_so_and_runs_when_it_is_back(tmp_path: Path) -> None:
    auth = Movable()
    async with a_world(tmp_path, *SITES, apps=auth.between, scheduler={"decision_cache_s": 0}) as world:
        alice = world.alice
        await world.olga.serai.cordon("prague")
        waiting = await alice.submit(work(at=["prague"]))

        async def cordoned() -> bool:
            return (await alice.verdicts(waiting)).get("prague") == "cordoned"

        await until(cordoned)
        start = await world.olga.http.post("/v1/sites/prague:uncordon")
        assert start.status_code == 202
        await alice.sees(waiting, "succeeded")
        running = (await alice.runs(work("300ms", exit_code=1, retries={"attempts": 1}))).id
        auth.away = True

        async def told() -> bool:
            return "waiting_for_authorisation" in await alice.reasons(running)

        await until(told)
        assert "The auth service cannot be asked at the moment; the job waits." in await alice.words(running)
        assert (await alice.why(running))["reason"]["code"] == "waiting_for_authorisation"
        auth.away = False
        assert (await alice.sees(running, "failed")).attempt == 2


async def test_a_site_that_policy_closes_to_a_vo_is_passed_over_with_that_reason(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, auth={"site_vos": {"prague": [BIO]}}) as world:
        alice = world.alice
        job = await alice.submit(work(at=["prague", "lyon"]))
        assert (await alice.sees(job, "succeeded")).site == "lyon"
        placed = next(event for event in await alice.timeline(job) if event.kind == "job.placed")
        assert {verdict["site"]: verdict["code"] for verdict in placed.data["receipt"]}["prague"] == "policy_forbids"
        allowed = await alice.submit(work(at=["prague"], vo=BIO))
        assert (await alice.sees(allowed, "succeeded")).site == "prague"
        closed = await alice.submit(work(at=["prague"], vo=CLIMATE, max_wait=1))
        failed = await alice.sees(closed, "failed")
        assert failed.reason_code == "not_placed_in_time"


async def test_a_command_whose_grant_grew_old_on_the_way_is_decided_anew(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, auth={"grant_life_s": 0.001}) as world:
        job = await world.alice.submit(work("1h"))
        await world.alice.sees(job, "running")
        await world.alice.serai.cancel(job)
        await world.alice.sees(job, "cancelled")


class Forger:
    """A bus on which the submissions of jobs of one name are changed on their way."""

    def __init__(self, bus: Any, name: bytes, change: Callable[[bytes], bytes]) -> None:
        self._bus = bus
        self._name = name
        self._change = change

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._bus.publish([self._changed(message) for message in messages])

    def _changed(self, message: Message) -> Message:
        if "job.submit" in message.type and self._name in message.body:
            return dataclasses.replace(message, body=self._change(message.body))
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


ON_BOTH_BUSES = pytest.mark.parametrize("bus", ["embedded", pytest.param("amqp", marks=pytest.mark.rabbitmq)])


@ON_BOTH_BUSES
@pytest.mark.parametrize(
    ("change", "why"),
    [(lambda body: body.replace(b'"true"', b'"rm"'), "grant"), (lambda body: b"\xff" + body, "undecodable")],
    ids=["forged", "unreadable"],
)
async def test_a_command_that_was_changed_on_its_way_is_never_carried_out_its_job_is_rejected_and_nobody_else_is_hurt(
    tmp_path: Path, bus: Literal["embedded", "amqp"], change: Callable[[bytes], bytes], why: str
) -> None:
    if bus == "amqp" and throwaway.installed() is None:
        pytest.skip("no RabbitMQ here: 'apt-get install rabbitmq-server'")

    def around(name: str, port: Any) -> Any:
        return Forger(port, b"poison", change) if name == "bus" else port

    async with a_world(tmp_path, *SITES, around=around, bus=bus) as world:
        alice = world.alice
        jobs = [await alice.submit(work(name="poison" if number == 2 else "honest")) for number in range(5)]
        poisoned = jobs.pop(2)
        for job in jobs:
            await alice.sees(job, "succeeded")
        rejected = await alice.sees(poisoned, "rejected")
        assert rejected.reason_code == "dead_lettered"
        assert why in (rejected.reason or "")
        assert not [name for site in world.agents for name in world.at_site(site) if name.startswith(poisoned)]
        after = await alice.submit(work())
        await alice.sees(after, "succeeded")


class MovableBus:
    """A bus that can be away for those who publish."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self.away = False

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            raise Unavailable("the bus is away")
        await self._bus.publish(messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


async def test_while_the_bus_is_away_jobs_are_taken_for_a_bounded_time_and_none_is_lost(tmp_path: Path) -> None:
    buses: list[MovableBus] = []

    def around(name: str, port: Any) -> Any:
        if name == "bus":
            buses.append(MovableBus(port))
            return buses[-1]
        return port

    async with a_world(tmp_path, *SITES, around=around, gateway={"outbox_limit_s": 0.5}) as world:
        alice = world.alice
        before = await alice.submit(work())
        await alice.sees(before, "succeeded")
        buses[0].away = True
        taken = [await alice.submit(work())]

        async def full() -> int:
            answer = await alice.http.post("/v1/jobs", json=work(), headers={"Idempotency-Key": f"n{len(taken)}"})
            if answer.status_code == 503:
                return int(answer.headers["retry-after"])
            taken.append(answer.json()["id"])
            return 0

        assert await until(full) >= 1
        assert (await alice.why(taken[0]))["summary"] == "The job is accepted and on its way to the scheduler."
        assert (await alice.job(before)).state == "succeeded"
        buses[0].away = False
        for job in taken:
            assert (await alice.sees(job, "succeeded")).attempt == 1
