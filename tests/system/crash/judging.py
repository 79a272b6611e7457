"""What became of a load: waits for the end of everything that was accepted, then asks the witnesses of `oracle.py`.

Used by every test that breaks something under load, whatever it breaks.
"""

import asyncio
from typing import Any, Final

from tests import pacing
from tests.system.crash import oracle
from tests.system.crash.load import HandedIn, Users
from tests.system.crash.oracle import Wrong, lost

ALL_ENDED_S: Final = 60.0
FINAL: Final = ("succeeded", "failed", "cancelled", "rejected")


async def all_end(users: Users[Any], within_s: float = ALL_ENDED_S) -> list[Wrong]:
    """Wait for the end of everything that was accepted, then ask the witnesses."""
    waiting = list(users.jobs)
    ended: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(within_s):
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


async def judged(users: Users[Any], one: HandedIn, job: dict[str, Any]) -> list[Wrong]:
    """One job's promises."""
    runs = oracle.runs_of(one.marks)
    timeline = (await users.ask("GET", f"/v1/jobs/{one.job_id}/timeline")).json()["items"]
    wrong = oracle.judge_runs(runs, one.sort.runs) + oracle.still_running(runs)
    wrong += oracle.judge_timeline(timeline, one.sort.state)
    if job["state"] != one.sort.state:
        wrong.append(lost(f"ended {job['state']}: {job.get('reason')}"))
    told = [f"{item['type']}/{item['attempt']}" for item in timeline]
    return [Wrong(each.kind, f"{one.job_id} ({one.sort.script[-40:]}): {each.what}; {told}") for each in wrong]


async def every_job_once(users: Users[Any]) -> list[Wrong]:
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
