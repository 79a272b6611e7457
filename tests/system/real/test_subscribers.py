"""A subscriber outside, over TLS, while the gateway that feeds it is killed under a burst of jobs: nothing is lost, and
what comes twice comes under the same id.
"""

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aio_pika

from tests import pacing
from tests.system.crash.load import Users
from tests.system.crash.tally import TALLIES, Tally
from tests.system.crash.world import VO
from tests.system.real import marks
from tests.system.real.leases import leader
from tests.system.real.whole import Whole

pytestmark = marks.REAL

JOBS: Final = 200
AT_A_TIME: Final = 50
DEADLINE_S: Final = 120.0
JOB: Final = {"vo": VO, "command": ["true"], "resources": {"cpu": 0.05, "memory": "16MiB"}}


@dataclass
class Listener:
    """A reader with plain aio-pika that connects again whenever it is cut off. `delivered`: position and id of all that
    came, in order; `at` is when, by the loop's clock.
    """

    url: str
    delivered: list[tuple[int, str]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aio_pika.exceptions.AMQPError, OSError):
                await self._listen()
            await pacing.pause(0.2)

    async def _listen(self) -> None:
        async with await aio_pika.connect(self.url, timeout=10) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=50)
            queue = await channel.get_queue(str(connection.url.user), ensure=False)
            async with queue.iterator() as messages:
                async for message in messages:
                    self._take(message)
                    await message.ack()

    def _take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        position = int(str(message.headers["serai-event-id"]).split("-")[1])
        event = json.loads(message.body)
        self.delivered.append((position, event["id"]))
        self.at.append(asyncio.get_running_loop().time())

    async def has_heard(self, count: int) -> None:
        """Return once so many events came."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.delivered) < count:
                await pacing.pause(0.05)


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    listener = Listener(url)
    task = asyncio.create_task(listener.run(), name="listener")
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_burst_is_heard_whole_while_the_gateway_that_feeds_is_killed(platform: Whole) -> None:
    """Killed and started again by itself; then killed and away, so that the other copy feeds."""
    await platform.ready()
    async with platform.users(5) as users:
        made = await users.ask("POST", "/v1/subscriptions", json={"vo": VO})
        assert made.status_code == 201, made.text
        url = made.json()["connection"]["url"]
        assert url.startswith("amqps://") and "cafile=" in url
        async with listening(url) as listener:
            jobs = await burst(users)
            await listener.has_heard(JOBS)
            first, feeder = await leader(platform, "gateway")
            feeder.kill()
            await listener.has_heard(3 * JOBS)
            again, feeder = await leader(platform, "gateway")
            assert again.fence > first.fence, "it was the one that fed"
            await feeder.stop(signal.SIGKILL)
            told = await told_of(users, jobs)
            await caught_up(listener, told)
            other, _ = await leader(platform, "gateway")
            assert other.copy != again.copy, "the other one feeds now"
            await feeder.start()
        await users.ask("DELETE", f"/v1/subscriptions/{made.json()['id']}")
    judge(listener, told)
    await platform.ready()


async def burst(users: Users[Any]) -> list[str]:
    """All jobs, some at a time; their ids."""
    found: list[str] = []
    for start in range(0, JOBS, AT_A_TIME):
        batch = [JOB | {"name": f"burst-{start + number}"} for number in range(AT_A_TIME)]
        headers = {"Idempotency-Key": f"burst-{users.marks.name}-{start}"}
        answer = await users.ask("POST", "/v1/jobs:batch", json={"jobs": batch}, headers=headers)
        found += [item["id"] for item in answer.json()["items"]]
    return found


async def told_of(users: Users[Any], jobs: list[str]) -> dict[str, Counter[str]]:
    """Ids of all events of each job, by the timelines, once all have ended."""
    told: dict[str, Counter[str]] = {}
    async with asyncio.timeout(DEADLINE_S):
        for job in jobs:
            while True:
                items = (await users.ask("GET", f"/v1/jobs/{job}/timeline")).json()["items"]
                if items[-1]["type"] == "job.succeeded":
                    break
                await pacing.pause(0.2)
            told[job] = Counter(item["id"] for item in items if item["type"] != "job.accepted")
    return told


async def caught_up(listener: Listener, told: dict[str, Counter[str]]) -> None:
    """Return when all was heard, or after the time that it may take."""
    wanted = {id for ids in told.values() for id in ids}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while not wanted <= {id for _, id in listener.delivered}:
                await pacing.pause(0.1)


def judge(listener: Listener, told: dict[str, Counter[str]]) -> None:
    """Nothing missing, nothing of another's; each position is one event's; first sights come in order."""
    seen = dict(listener.delivered)
    assert len(set(listener.delivered)) == len(seen)
    first_sights = list(dict.fromkeys(position for position, _ in listener.delivered))
    assert first_sights == sorted(first_sights)
    heard = Counter(seen.values())
    missing = {job: ids for job, ids in told.items() if any(heard[id] != 1 for id in ids)}
    assert not missing, f"{len(missing)} of {len(told)} jobs: {next(iter(missing.items()))}"
    doubles, took_s = len(listener.delivered) - len(seen), listener.at[-1] - listener.at[0]
    rates = [sum(1 for at in listener.at if begin <= at < begin + 1) for begin in listener.at[:: len(told)]]
    TALLIES.append(
        Tally(
            f"gateway that feeds killed under a burst ({len(told)} jobs, {len(seen)} events in {took_s:.0f} s, at best "
            f"{max(rates)} in a second, {doubles} delivered twice)", 2, 2,
        )
    )  # fmt: skip
