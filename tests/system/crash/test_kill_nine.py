"""The whole platform is killed with SIGKILL under load, twenty times, and has kept its promises.

Its agents die with it; the commands that they started live on, under the executors beside them, and are found again.
Where the machine itself dies (executors and commands too) the attempts are honestly `lost`, and `on_lost` decides.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import pacing
from tests.system.crash import oracle
from tests.system.crash.load import HandedIn, Sort, Users
from tests.system.crash.oracle import END, START, Run, Wrong, lost
from tests.system.crash.process import Process
from tests.system.crash.tally import TALLIES, Tally
from tests.system.crash.world import VO

pytestmark = pytest.mark.crash

KILLS = 20
EVERY_START = 5
"""Every so many kills come while the platform starts."""
SEED = 3
USERS = 3
PAUSE_S = 0.35
ALL_ENDED_S = 60.0
FINAL = ("succeeded", "failed", "cancelled", "rejected")
SITES = f"""
- {{name: prague, country: CZ, vos: [{VO}], cores: 8, memory_mib: 4096}}
- {{name: lyon, country: FR, vos: [{VO}], cores: 8, memory_mib: 4096}}
"""


@pytest.fixture
async def users(tmp_path: Path) -> AsyncIterator[Users]:
    """Users of a platform that is not started yet."""
    process = Process(tmp_path, SITES, 23_200)
    (tmp_path / "marks").mkdir()
    users = Users(process, tmp_path / "marks", random.Random(SEED))
    yield users
    await process.kill()
    await users.client.aclose()
    for pid in process.executors():
        os.kill(pid, signal.SIGKILL)


async def live_a_moment(users: Users, *, starting: bool) -> None:
    """Start and kill; with `starting` before it is ready, or soon after."""
    if starting:
        await users.process.spawn()
        await pacing.pause(users.rng.uniform(0.3, 1.5))
    else:
        await users.process.start()
        await pacing.pause(users.rng.uniform(0.05, 1.5))
    assert users.process.runs, "it ended by itself"
    await users.process.kill()


def lived_through_a_kill(users: Users, one: HandedIn) -> list[Run]:
    """Starts of the job's command that were under way when the platform was killed."""
    runs = [run for run in oracle.runs_of(one.marks) if run.ended is not None]
    return [run for run in runs if any(run.started < at < (run.ended or 0) for at in users.process.kills)]


async def all_end(users: Users) -> list[Wrong]:
    """Wait for the end of everything that was accepted, then ask the witnesses."""
    waiting = list(users.jobs)
    ended: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(ALL_ENDED_S):
            while waiting:
                for one in list(waiting):
                    job = await users.state(one)
                    if job.get("state") in FINAL:
                        ended[one.key] = job
                        waiting.remove(one)
                await pacing.pause(0.2)
    except TimeoutError:
        states = [(await users.state(one)).get("state") for one in waiting]
        return [lost(f"{len(waiting)} jobs have not ended: {sorted(map(str, states))}")]
    return [wrong for one in users.jobs for wrong in await judged(users, one, ended[one.key])]


async def judged(users: Users, one: HandedIn, job: dict[str, Any]) -> list[Wrong]:
    """One job's promises."""
    runs = oracle.runs_of(one.marks)
    timeline = (await users.ask("GET", f"/v1/jobs/{one.job_id}/timeline")).json()["items"]
    wrong = oracle.judge_runs(runs, one.sort.runs) + oracle.still_running(runs)
    wrong += oracle.judge_timeline(timeline, one.sort.state)
    if job["state"] != one.sort.state:
        wrong.append(lost(f"ended {job['state']}: {job.get('reason')}"))
    told = [f"{item['type']}/{item['attempt']}" for item in timeline]
    return [Wrong(each.kind, f"{one.job_id} ({one.sort.script[-40:]}): {each.what}; {told}") for each in wrong]


async def every_job_once(users: Users) -> list[Wrong]:
    """Each key that got a 202 made one job, and there are no others."""
    names: list[str] = []
    cursor: str | None = None
    while True:
        asked = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        page = (await users.ask("GET", "/v1/jobs", params=asked)).json()
        names += [item["name"] for item in page["items"]]
        cursor = page.get("next")
        if not cursor:
            break
    keys = {one.key for one in users.jobs}
    wrong = [oracle.doubled(f"{name}: {names.count(name)} jobs") for name in set(names) if names.count(name) > 1]
    return wrong + [lost(f"job of {key} is not there") for key in keys - set(names)]


async def test_twenty_kills_under_load_lose_nothing_and_double_nothing(users: Users) -> None:
    tally = Tally("kill -9 under load", KILLS)
    TALLIES.append(tally)
    working = [asyncio.create_task(users.hand_in_for_ever(PAUSE_S), name=f"user-{n}") for n in range(USERS)]

    for number in range(KILLS):
        await live_a_moment(users, starting=number % EVERY_START == EVERY_START - 1)
        tally.points += 1
    for work in working:
        work.cancel()
    await asyncio.wait(working)
    await users.process.start()
    await asyncio.gather(*(users.finish(one) for one in users.jobs))
    wrong = await all_end(users) + await every_job_once(users)

    found_again = sum(len(lived_through_a_kill(users, one)) for one in users.jobs)
    tally.name += f" ({len(users.jobs)} jobs, {found_again} commands lived through a kill)"
    for number, each in enumerate(wrong):
        tally.wrong[str(number)] = [each]
    assert len(users.jobs) > 2 * KILLS and found_again > KILLS
    assert not wrong, f"{tally}\n{tally.details()}"


async def machine_dies(users: Users) -> None:
    """The platform, the executors and every command: nothing is left of what ran."""
    executors = users.process.executors()
    await users.process.kill()
    for pid in executors:
        os.kill(pid, signal.SIGKILL)
    for one in users.jobs:
        for run in oracle.runs_of(one.marks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL)


async def runs(users: Users, sort: Sort, on_lost: str) -> HandedIn:
    """A job whose command has begun."""
    one = await users.hand_in(sort, on_lost)
    async with asyncio.timeout(10):
        await users.until(lambda: oracle.runs_of(one.marks))
    return one


ONCE_LONG = Sort(f'{START}; case "$NOMAD_JOB_ID" in *-001) exec sleep 600;; esac; {END}', "succeeded", (False, True))


async def test_what_died_with_its_machine_is_lost_and_on_lost_decides(users: Users) -> None:
    """`retry` runs it again as a further attempt, though it asked for no retries; `fail` and `wait` never do."""
    await users.process.start()
    retried, failed, waited = [await runs(users, ONCE_LONG, what) for what in ("retry", "fail", "wait")]

    await machine_dies(users)
    await users.process.start()

    async with asyncio.timeout(ALL_ENDED_S):
        for one in users.jobs:
            while (await users.state(one))["state"] not in FINAL:
                await pacing.pause(0.1)
    for one in users.jobs:
        timeline = (await users.ask("GET", f"/v1/jobs/{one.job_id}/timeline")).json()["items"]
        assert "attempt.lost" in [item["type"] for item in timeline]
        assert oracle.judge_timeline(timeline, (await users.state(one))["state"]) == []
    assert (await users.state(retried))["state"] == "succeeded"
    assert [run.attempt[-3:] for run in oracle.runs_of(retried.marks)] == ["001", "002"]
    for one in (failed, waited):
        assert (await users.state(one))["state"] == "failed"
        assert [run.attempt[-3:] for run in oracle.runs_of(one.marks)] == ["001"]
