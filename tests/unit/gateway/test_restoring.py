"""A gateway's database that was restored from a backup: what it has forgotten, and what comes back by itself.

docs/postgresql.md, "After a restore", says it to operators.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from services.gateway import event_log
from shared.contracts.envelope import Message
from shared.contracts.events import JobPlaced, JobSucceeded
from tests.unit.gateway.world import World, a_file, a_world, job_event, queued, restarted

pytestmark = pytest.mark.fast


def copied(source: Path, target: Path) -> None:
    """One moment of a database, while it is written to."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


async def test_b2_what_a_restored_gateway_shows_forgets_and_takes_anew(tmp_path: Path) -> None:
    lived, restored = tmp_path / "lived", tmp_path / "restored"
    lived.mkdir()
    restored.mkdir()
    key, own = {"Idempotency-Key": "after-the-backup"}, str(uuid4())
    async with a_world(lived) as before:
        old = await before.submit()
        await before.tell(queued(old))
        copied(lived / "gateway.sqlite", restored / "gateway.sqlite")
        await before.tell(job_event(JobPlaced, old, 2, attempt=1, site="prague"))
        keyed = (await before.http.post("/v1/jobs", json=a_file(), headers=before.as_("alice", **key))).json()["id"]
        assert (await before.http.put(f"/v1/jobs/{own}", json=a_file(), headers=before.as_("alice"))).status_code == 202
        await before.tell(queued(keyed), queued(own), job_event(JobSucceeded, old, 3, attempt=1, site="prague"))
        async with before.stream("/v1/events") as frames:
            await before.tell(queued(await before.submit()))
            place = (await frames.next()).id

    async with restarted(restored, before.auth, before.owners, before.bus, before.clock) as after:
        await after.caught_up()
        job = await after.job(old)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), "told again by the broker's stream"
        again = await after.http.post("/v1/jobs", json=a_file(), headers=after.as_("alice", **key))
        assert again.status_code == 202 and again.json()["id"] != keyed, "a forgotten key: a second job"
        put = await after.http.put(f"/v1/jobs/{own}", json=a_file(), headers=after.as_("alice"))
        assert (put.status_code, put.json()["id"]) == (202, own)
        await after.until(lambda: _sent(after, own, 2))
        assert len({message.id for message in _submissions(after, own)}) == 1, "one command to the scheduler"
        seen = await after.http.get(f"/v1/jobs/{keyed}", headers=after.as_("alice"))
        assert seen.status_code == 404, "it runs on, unknown here"
        state = await after.store.read(event_log.state)
        async with after.stream("/v1/events", **{"Last-Event-ID": place}) as frames:
            first = await frames.next()
            assert first.event == "gap" or int(place.partition("-")[2]) <= state.head


def _submissions(world: World, job_id: str) -> list[Message]:
    sent = world.bus.published
    return [
        each for each in sent if each.type.startswith("eu.serai.job.submit") and each.headers["ce-subject"] == job_id
    ]


async def _sent(world: World, job_id: str, count: int) -> bool:
    return len(_submissions(world, job_id)) == count
