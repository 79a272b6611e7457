"""Who sees what: members, managers and observers of two VOs, and the operator of the sites."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio
import uuid6

from serai.errors import Problem
from serai.values import Event
from services.embedded.sites import BIO, CLIMATE
from tests.scenarios.world import Person, World, a_site, a_world, site_is, until, work

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    sites = (a_site("prague"), a_site("lyon", country="FR", vos=[CLIMATE]), a_site("bari", country="IT"))
    async with a_world(tmp_path_factory.mktemp("who"), *sites) as up:
        yield up


async def test_everyone_is_told_who_they_are_to_the_platform(world: World) -> None:
    alice, olga = await world.alice.serai.whoami(), await world.olga.serai.whoami()
    assert alice["principal"]["subject"] == "alice"
    assert {m["vo"]: m["role"] for m in alice["memberships"]} == {CLIMATE: "manager", BIO: "member"}
    climate = next(m for m in alice["memberships"] if m["vo"] == CLIMATE)
    assert {"job.submit", "job.view_vo", "job.logs_vo"} <= set(climate["verbs"])
    assert (olga["memberships"], olga["platform_roles"]) == ([], ["site-operator"])
    assert "site.cordon" in olga["platform_verbs"]
    nobody = await world.alice.http.get("/v1/whoami", headers={"Authorization": ""})
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")


async def test_a_hidden_job_is_answered_as_one_that_does_not_exist_to_the_byte(world: World) -> None:
    hidden = await world.alice.submit(work(vo=BIO))
    await world.alice.sees(hidden, "succeeded")
    absent = str(uuid6.uuid7())
    for who in (world.bob, world.olga):
        for path in ("", "/timeline", "/explain", "/events", "/logs", "/outputs", "/outputs/x", "/trace", "/spec"):
            seen = await who.http.get(f"/v1/jobs/{hidden}{path}")
            unknown = await who.http.get(f"/v1/jobs/{absent}{path}")
            assert (seen.status_code, seen.content) == (404, unknown.content), path
        cancelled = await who.http.delete(f"/v1/jobs/{hidden}")
        assert (cancelled.status_code, cancelled.json()["code"]) == (404, "not_found")
        assert hidden not in [job.id async for job in who.serai.jobs()]


async def test_an_observer_sees_the_vo_but_neither_submits_nor_cancels_nor_reads_logs(world: World) -> None:
    bob, job = world.bob, await world.alice.runs(work("1h", at=["prague"]))
    assert (await bob.job(job.id)).state == "running"
    assert job.id in [each.id async for each in bob.serai.jobs(whole_vo=True, vo=CLIMATE)]
    submitted = await bob.http.post("/v1/jobs", json=work(vo=CLIMATE))
    assert (submitted.status_code, submitted.json()["code"]) == (403, "forbidden")
    assert "observer" in submitted.json()["detail"]
    logs = await bob.http.get(f"/v1/jobs/{job.id}/logs")
    assert logs.status_code == 403 and "managers" in logs.json()["detail"]
    assert (await bob.http.get(f"/v1/jobs/{job.id}/spec")).status_code == 404
    cancelled = await bob.http.delete(f"/v1/jobs/{job.id}")
    assert (cancelled.status_code, cancelled.json()["code"]) == (403, "forbidden")
    assert (await world.alice.job(job.id)).raw["cancel_requested_at"] is None
    await world.alice.serai.cancel(job.id)
    await world.alice.sees(job.id, "cancelled")


async def test_members_see_their_own_jobs_and_managers_those_of_all(world: World) -> None:
    bobs = await world.bob.submit(work(vo=BIO))
    await world.bob.sees(bobs, "succeeded")
    with pytest.raises(Problem) as hidden:
        await world.alice.job(bobs)
    assert hidden.value.code == "not_found", "alice is a plain member of the bio VO"
    with pytest.raises(Problem) as refused:
        [job async for job in world.alice.serai.jobs(whole_vo=True, vo=BIO)]
    assert refused.value.code == "forbidden"


async def test_the_event_stream_tells_everyone_what_they_may_know_and_nothing_else(world: World) -> None:
    async def first_ends(person: Person, after: str, count: int) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(20), aclosing(person.serai.events(states=["succeeded"], after=after)) as facts:  # type: ignore[type-var]
            async for fact in facts:
                assert isinstance(fact, Event)
                if fact.kind == "job.succeeded":
                    found.append(fact.job_id or "")
                    if len(found) == count:
                        return found
        raise AssertionError("the stream ended")

    position = await world.alice.mark()
    alice_bio, bob_bio = await world.alice.submit(work(vo=BIO)), await world.bob.submit(work(vo=BIO))
    await world.alice.sees(alice_bio, "succeeded")
    await world.bob.sees(bob_bio, "succeeded")
    alice_climate = await world.alice.submit(work())
    await world.alice.sees(alice_climate, "succeeded")
    assert await first_ends(world.alice, position, 2) == [alice_bio, alice_climate]
    assert await first_ends(world.bob, position, 2) == [bob_bio, alice_climate], "he observes the climate VO"


async def test_only_the_operator_may_cordon_a_site(world: World) -> None:
    for who in (world.alice, world.bob):
        answer = await who.http.post("/v1/sites/prague:cordon", json={"reason": "mine"})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    unknown = await world.olga.http.post("/v1/sites/nowhere:cordon", json={})
    assert unknown.status_code == 404 and "bari, lyon, prague" in unknown.json()["detail"]
    assert not (await world.alice.site("prague"))["cordoned"]


async def test_a_cordoned_site_keeps_what_runs_gets_nothing_new_and_goes_on_when_uncordoned(world: World) -> None:
    alice, olga = world.alice, world.olga
    running = await alice.runs(work("1h", at=["lyon"]))
    await olga.serai.cordon("lyon", "new cooling")
    shown = await site_is(alice, "lyon", cordoned=True)
    assert shown["cordon_reason"] == "new cooling"
    waiting = await alice.submit(work(at=["lyon"]))
    elsewhere = await alice.submit(work(at=["lyon", "bari"]))
    assert (await alice.sees(elsewhere, "succeeded")).site == "bari"

    async def told() -> bool:
        return bool((await alice.why(waiting))["reason"]["code"] == "waiting_for_site")

    await until(told)
    why = await alice.why(waiting)
    assert "lyon is cordoned by an operator: new cooling" in why["summary"]
    assert (await alice.verdicts(waiting))["lyon"] == "cordoned"
    assert (await alice.job(running.id)).state == "running"
    await olga.serai.uncordon("lyon")
    assert (await alice.sees(waiting, "succeeded")).site == "lyon"
    await alice.serai.cancel(running.id)
    await alice.sees(running.id, "cancelled")
