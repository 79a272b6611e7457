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

import pytest

from tests import pacing
from tests.system.crash import oracle
from tests.system.crash.judging import ALL_ENDED_S, FINAL, all_end, every_job_once
from tests.system.crash.load import HandedIn, Sort, Users
from tests.system.crash.oracle import END, START, Run
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
SITES = f"""
- {{name: prague, country: CZ, vos: [{VO}], cores: 8, memory_mib: 4096}}
- {{name: lyon, country: FR, vos: [{VO}], cores: 8, memory_mib: 4096}}
"""


@pytest.fixture
async def users(tmp_path: Path) -> AsyncIterator[Users[Process]]:
    """Users of a platform that is not started yet."""
    process = Process(tmp_path, SITES, 17_400)
    (tmp_path / "marks").mkdir()
    users = Users(process, tmp_path / "marks", random.Random(SEED))
    yield users
    await process.kill()
    await users.client.aclose()
    for pid in process.executors():
        os.kill(pid, signal.SIGKILL)


async def live_a_moment(users: Users[Process], *, starting: bool) -> None:
    """Start and kill; with `starting` before it is ready, or soon after."""
    if starting:
        await users.platform.spawn()
        await pacing.pause(users.rng.uniform(0.3, 1.5))
    else:
        await users.platform.start()
        await pacing.pause(users.rng.uniform(0.05, 1.5))
    assert users.platform.runs, "it ended by itself"
    await users.platform.kill()


def lived_through_a_kill(users: Users[Process], one: HandedIn) -> list[Run]:
    """Starts of the job's command that were under way when the platform was killed."""
    runs = [run for run in oracle.runs_of(one.marks) if run.ended is not None]
    return [run for run in runs if any(run.started < at < (run.ended or 0) for at in users.platform.kills)]


async def test_twenty_kills_under_load_lose_nothing_and_double_nothing(users: Users[Process]) -> None:
    tally = Tally("kill -9 under load", KILLS)
    TALLIES.append(tally)
    working = [asyncio.create_task(users.hand_in_for_ever(PAUSE_S), name=f"user-{n}") for n in range(USERS)]

    for number in range(KILLS):
        await live_a_moment(users, starting=number % EVERY_START == EVERY_START - 1)
        tally.points += 1
    for work in working:
        work.cancel()
    await asyncio.wait(working)
    await users.platform.start()
    await asyncio.gather(*(users.finish(one) for one in users.jobs))
    wrong = await all_end(users) + await every_job_once(users)

    found_again = sum(len(lived_through_a_kill(users, one)) for one in users.jobs)
    tally.name += f" ({len(users.jobs)} jobs, {found_again} commands lived through a kill)"
    for number, each in enumerate(wrong):
        tally.wrong[str(number)] = [each]
    assert len(users.jobs) > KILLS and found_again > KILLS / 4, "else it was no load: even a busy machine does more"
    assert not wrong, f"{tally}\n{tally.details()}"


async def machine_dies(users: Users[Process]) -> None:
    """The platform, the executors and every command: nothing is left of what ran."""
    executors = users.platform.executors()
    await users.platform.kill()
    for pid in executors:
        os.kill(pid, signal.SIGKILL)
    for one in users.jobs:
        for run in oracle.runs_of(one.marks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL)


async def runs(users: Users[Process], sort: Sort, on_lost: str) -> HandedIn:
    """A job whose command has begun."""
    one = await users.hand_in(sort, on_lost)
    async with asyncio.timeout(10):
        await users.until(lambda: oracle.runs_of(one.marks))
    return one


ONCE_LONG = Sort(f'{START}; case "$NOMAD_JOB_ID" in *-001) exec sleep 600;; esac; {END}', "succeeded", (False, True))


async def test_what_died_with_its_machine_is_lost_and_on_lost_decides(users: Users[Process]) -> None:
    """`retry` runs it again as a further attempt, though it asked for no retries; `fail` and `wait` never do."""
    await users.platform.start()
    retried, failed, waited = [await runs(users, ONCE_LONG, what) for what in ("retry", "fail", "wait")]

    await machine_dies(users)
    await users.platform.start()

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
