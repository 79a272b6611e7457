"""The whole platform is stopped in the middle and started again on its folder: nothing is lost or run twice."""

import asyncio
from contextlib import aclosing
from pathlib import Path

from serai.values import Event
from services.embedded.sites import BIO
from tests.scenarios.world import a_port, a_site, a_world, shell, site_is, work

SITES = (a_site("prague"), a_site("lyon", country="FR"))


async def test_jobs_of_every_state_go_on_where_they_were(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, end_tasks=False) as before:
        alice = before.alice
        ended = await alice.submit(work())
        await alice.sees(ended, "succeeded")
        await before.olga.serai.cordon("lyon", "new cooling")
        await site_is(alice, "lyon", cordoned=True)
        running = (await alice.runs(work("2s", at=["prague"]))).id
        waiting = await alice.submit(work(at=["lyon"]))
        await alice.sees(waiting, "queued")
        fresh = [await alice.submit(work("100ms", at=["prague"])) for _ in range(5)]
        position = (await alice.hears(ended))[-1].position
    async with a_world(tmp_path, *SITES) as after:
        alice = after.alice
        for job in (running, *fresh):
            now = await alice.sees(job, "succeeded")
            assert (now.attempt, now.site) == (1, "prague"), await alice.story(job)
            assert len(await alice.attempt(job, 1)) == len(set(await alice.attempt(job, 1)))
        assert (await alice.job(ended)).state == "succeeded"
        assert (await alice.site("lyon"))["cordon_reason"] == "new cooling"
        await after.olga.serai.uncordon("lyon")
        assert (await alice.sees(waiting, "succeeded")).site == "lyon"
        told: list[Event] = []
        async with asyncio.timeout(20), aclosing(alice.serai.events(after=position)) as facts:  # type: ignore[type-var]
            async for fact in facts:
                assert isinstance(fact, Event), "no gap: it is the same log"
                told.append(fact)
                if fact.job_id == waiting and fact.kind == "job.succeeded":
                    break
        doubled = [each for each in told if sum(other.id == each.id for other in told) > 1]
        assert not doubled, [(each.kind, each.id, each.position, each.sequence) for each in doubled]
        for job in (running, *fresh, waiting):
            heard = {event.id for event in told if event.job_id == job}
            missed = [e.kind for e in (await alice.timeline(job))[1:] if e.id not in heard]
            assert missed == [], missed


async def test_people_stay_who_they_are_when_the_platform_answers_at_another_port(tmp_path: Path) -> None:
    """Bob is no manager: he finds a job because it is his, and the token that he had still holds."""
    own, one = work(vo=BIO), a_port()
    other = one + 20
    async with a_world(tmp_path, *SITES, port=one) as before:
        job = await before.bob.submit(own)
        await before.bob.sees(job, "succeeded")
        token = before.bob.http.headers["Authorization"]
        issuer = before.up.issuer
    async with a_world(tmp_path, *SITES, port=other) as after:
        assert after.up.issuer == issuer
        assert (await after.bob.job(job)).state == "succeeded"
        answer = await after.alice.http.get(f"/v1/jobs/{job}", headers={"Authorization": token})
        assert (answer.status_code, answer.json()["owner"]["subject"]) == (200, "bob")


async def test_a_process_that_ran_on_while_the_platform_was_away_is_found_again(tmp_path: Path) -> None:
    async with a_world(tmp_path, *SITES, mock=False, end_tasks=False) as before:
        script = "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; exit 4"
        job = (await before.alice.runs(shell(script, outputs=[{"name": "go", "path": "go"}]))).id
        folder = before.folder(await before.alice.job(job))
    folder.joinpath("go").write_text("gone on\n")
    async with a_world(tmp_path, *SITES, mock=False) as after:
        failed = await after.alice.sees(job, "failed")
        assert (failed.exit_code, failed.attempt) == (4, 1)
        log = b"".join([chunk async for chunk in after.alice.serai.logs(job)])
        assert log == b"before\nafter\n"
        assert await after.alice.serai.output(job, "go") == b"gone on\n"


async def test_a_cancel_whose_stop_was_still_owed_is_carried_out_after_the_restart(tmp_path: Path) -> None:
    short = {"cancel_grace_s": 0.3}
    async with a_world(tmp_path, *SITES, end_tasks=False, scheduler=short) as before:
        alice = before.alice
        job = (await alice.runs(work("1h", at=["prague"]))).id
        await before.go_away("prague")
        await alice.serai.cancel(job)
        assert (await alice.sees(job, "cancelled")).raw["confirmed"] is False
    async with a_world(tmp_path, *SITES, scheduler=short) as after:
        await after.over_at("prague", job)
        assert (await after.alice.steps(job))[-1] == "cancelled 1 prague"
