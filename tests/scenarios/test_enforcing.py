"""Policies and suspensions over the whole path: written at auth by a manager or an administrator, felt at the sites."""

import asyncio
from pathlib import Path
from typing import Any

from services.auth.operator_client import AuthClient, connect
from services.embedded.sites import BIO, CLIMATE
from tests.scenarios.world import Person, a_site, a_world, until, work

WIDE = a_site("prague", cores=64, memory_mib=65_536)
FELT_S = 5.0
"""Seconds within which a suspension is effective everywhere."""


async def acting(folder: Path, person: str) -> AuthClient:
    """Somebody at the operators' command."""
    return await asyncio.to_thread(connect, "", folder / "data", person)


async def set_policy(folder: Path, document: dict[str, Any]) -> None:
    alice, path = await acting(folder, "alice"), f"/v1/vos/{CLIMATE}/policy"
    seen = await asyncio.to_thread(alice.ask, "GET", path)
    headers = {"If-Match": seen.headers["etag"]}
    await asyncio.to_thread(lambda: alice.ask("PUT", path, json=document, headers=headers))


async def suspend(folder: Path, **body: Any) -> str:
    ada = await acting(folder, "ada")
    made = await asyncio.to_thread(lambda: ada.ask("POST", "/v1/suspensions", json={"reason": "no contract", **body}))
    return str(made.json()["id"])


async def lift(folder: Path, suspension: str) -> None:
    ada = await acting(folder, "ada")
    await asyncio.to_thread(lambda: ada.ask("DELETE", f"/v1/suspensions/{suspension}"))


async def held(person: Person, job: str, code: str) -> dict[str, Any]:
    """What explain says of a queued job once it is held for this reason."""

    async def why() -> dict[str, Any] | None:
        told = await person.why(job)
        return told if (told.get("reason") or {}).get("code") == code else None

    return await until(why, f"{job} is held: {code}") or {}


async def test_a6_a_ceiling_is_kept_exactly_and_the_job_says_which_how_much_and_whom_to_ask(tmp_path: Path) -> None:
    async with a_world(tmp_path, WIDE) as world:
        await set_policy(tmp_path, {"user": {"jobs": 2}})
        alice = world.alice
        jobs = await asyncio.gather(*(alice.submit(work("1h")) for _ in range(6)))

        async def two() -> list[str]:
            found = [job for job in jobs if (await alice.job(job)).state == "running"]
            return found if len(found) == 2 else []

        running = await until(two)
        waiting = next(job for job in jobs if job not in running)
        told = await held(alice, waiting, "ceiling_reached")
        assert f"The VO {CLIMATE} lets all jobs of one user together have 2 jobs at a time: 2 in use" in told["summary"]
        assert "ask a manager of the VO" in told["summary"]
        assert len(world.live_at("prague")) == 2
        await alice.serai.cancel(running[0])
        await alice.sees(running[0], "cancelled")
        await until(two)
        assert len(world.live_at("prague")) == 2


async def test_a_job_that_could_never_fit_is_refused_when_it_is_handed_in_and_leaves_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path, WIDE) as world:
        await set_policy(tmp_path, {"user": {"cpu_cores": 2}})
        answer = await world.alice.http.post("/v1/jobs", json=work(resources={"cpu": 3}))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "all jobs of one user together have at most 2 cores" in answer.json()["detail"]
        assert (await world.alice.http.get("/v1/jobs")).json()["items"] == []
        assert world.at_site("prague") == {}


async def test_running_jobs_of_a_suspended_vo_are_stopped_within_five_seconds_and_go_on_when_it_is_lifted(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, WIDE) as world:
        await set_policy(tmp_path, {"on_suspension": "stop"})
        alice = world.alice
        job = (await alice.runs(work("1h"))).id
        begun = asyncio.get_running_loop().time()
        suspension = await suspend(tmp_path, kind="vo", vo=CLIMATE)
        await world.over_at("prague", job)
        assert asyncio.get_running_loop().time() - begun < FELT_S + 2, "five seconds and the stop itself"
        told = await held(alice, job, "suspended")
        assert "no contract" in told["summary"]
        refused = await alice.http.post("/v1/jobs", json=work())
        assert refused.status_code == 403
        await lift(tmp_path, suspension)
        assert (await alice.sees(job, "running")).attempt == 2


async def test_without_such_a_policy_a_suspended_vo_lets_its_jobs_end_and_holds_what_is_queued(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague", cores=1)) as world:
        alice = world.alice
        running = (await alice.runs(work("6s", resources={"cpu": 1}))).id
        queued = await alice.submit(work(resources={"cpu": 1}))
        suspension = await suspend(tmp_path, kind="vo", vo=CLIMATE)
        assert (await alice.sees(running, "succeeded")).attempt == 1
        await held(alice, queued, "suspended")
        await lift(tmp_path, suspension)
        await alice.sees(queued, "succeeded")


async def test_a_job_that_a_suspension_held_goes_on_seconds_after_that_has_ended_by_itself(tmp_path: Path) -> None:
    """Nobody lifts it. Auth's answers are kept for a minute, and so long is the pause of a held job."""
    async with a_world(tmp_path, WIDE, scheduler={"decision_cache_s": 60.0}) as world:
        alice = world.alice
        await suspend(tmp_path, kind="subject", issuer=world.up.issuer, value="bob", for_s=3600)
        await world.olga.serai.cordon("prague")
        queued = await alice.submit(work())
        begun = asyncio.get_running_loop().time()
        await suspend(tmp_path, kind="vo", vo=CLIMATE, for_s=4)
        assert (await world.olga.http.post("/v1/sites/prague:uncordon")).status_code == 202
        await held(alice, queued, "suspended")
        await alice.sees(queued, "succeeded")
        assert asyncio.get_running_loop().time() - begun < 4 + FELT_S
        assert (await alice.http.post("/v1/jobs", json=work())).status_code == 202


async def test_what_a_suspended_person_runs_is_stopped_and_nobody_elses(tmp_path: Path) -> None:
    async with a_world(tmp_path, WIDE) as world:
        mine = (await world.alice.runs(work("1h"))).id
        theirs = (await world.bob.runs(work("1h", vo=BIO))).id
        await suspend(
            tmp_path, kind="subject", issuer=world.up.issuer, value="alice", stop_running=True
        )  # fmt: skip
        await world.over_at("prague", mine)
        assert [name for name in world.live_at("prague") if name.startswith(theirs)]

        async def shut_out() -> bool:
            return (await world.alice.http.get("/v1/jobs")).status_code == 403

        await until(shut_out)


async def test_c12_a_membership_that_ended_while_the_job_was_queued_is_seen_when_it_would_be_placed(
    tmp_path: Path,
) -> None:
    """Auth has not seen the membership for longer than its word counts; the owner is away meanwhile."""
    async with a_world(
        tmp_path, WIDE, auth={"membership_life_s": 2.0, "context_cache_s": 0}, gateway={"context_cache_s": 0.1}
    ) as world:
        await world.olga.serai.cordon("prague")
        job = await world.alice.submit(work())
        forgotten = asyncio.get_running_loop().time() + 2.5

        async def passed() -> bool:
            return asyncio.get_running_loop().time() > forgotten

        await until(passed)
        assert (await world.olga.http.post("/v1/sites/prague:uncordon")).status_code == 202
        rejected = await world.alice.sees(job, "rejected")
        assert rejected.reason_code == "not_authorised"
        assert world.at_site("prague") == {}, "no call to Nomad was made for it"
