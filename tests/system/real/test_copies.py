"""Two copies of each service side by side: users and subscribers may be at any of them, and each may go at any time."""

import asyncio
from typing import Any, Final

import httpx2 as httpx

from tests import pacing
from tests.system.crash.load import Sort
from tests.system.crash.oracle import END, START
from tests.system.real import marks
from tests.system.real.whole import Whole
from tests.system.real.working import a_load

pytestmark = marks.REAL

QUICK: Final = Sort(f"{START}; {END}", "succeeded", (True,))
LOAD_S: Final = 4.0
BESIDE_S: Final = 0.5
"""How long the load goes on with one copy less before that copy comes back."""


async def test_a_job_handed_in_at_one_gateway_is_seen_and_waited_for_at_the_other(platform: Whole) -> None:
    one, other = platform.up.addresses["gateway"]
    async with platform.users(1) as users:
        done = await users.hand_in(QUICK)
        job_id, told = done.job_id, {"Authorization": f"Bearer {users.token}"}
        seen = [await platform.http.get(f"{gateway}/v1/jobs/{job_id}", headers=told) for gateway in (one, other)]
        assert [answer.status_code for answer in seen] == [200, 200]
        async with asyncio.timeout(20):
            ends = await asyncio.gather(*(ended(platform.http, gateway, job_id, told) for gateway in (one, other)))
        assert ends == ["succeeded", "succeeded"]


async def ended(http: httpx.AsyncClient, gateway: str, job_id: str, told: dict[str, str]) -> str:
    """The final state of a job, waited for by long polls at one gateway."""
    etag = ""
    while True:
        headers = {**told, "Prefer": "wait=5", **({"If-None-Match": etag} if etag else {})}
        answer = await http.get(f"{gateway}/v1/jobs/{job_id}", headers=headers)
        if answer.status_code == 200:
            etag = answer.headers["etag"]
            job: dict[str, Any] = answer.json()
            if job["state"] in ("succeeded", "failed", "cancelled", "rejected"):
                return str(job["state"])


async def test_a_stream_is_resumed_at_the_other_gateway_without_a_gap_or_a_double(platform: Whole) -> None:
    async with a_load(platform, 2, stay_s=0.4) as load:
        async with load.working():
            await pacing.pause(LOAD_S)
        changes = load.sse.at.total() - 1
        await load.judged("stream resumed at the other gateway", changes)
        assert len(load.sse.at) == 2 and changes >= LOAD_S, load.sse.at


async def test_copies_rolled_one_after_the_other_under_load_answer_every_request(platform: Whole) -> None:
    """SIGTERM, a moment with one copy less, start; as an operator rolls out a release."""
    codes = {}
    async with a_load(platform, 3) as load:
        async with load.working():
            for copy in platform.copies():
                assert copy.process is not None
                process = copy.process
                await copy.stop()
                codes[copy.name] = process.returncode
                await pacing.pause(BESIDE_S)
                await copy.start()
                await platform.ready()
        assert set(codes.values()) == {0}, codes
        assert not load.users.broken, load.users.broken
        await load.judged(f"graceful roll, answers {dict(load.users.answers)}", len(codes))
