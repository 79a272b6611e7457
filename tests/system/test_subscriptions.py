"""The example consumer, as another service would run it, through deaths of itself, the broker and the platform."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from services.auth.dev_issuer import demo_token
from services.embedded.platform import platform
from services.embedded.settings import EmbeddedSettings
from shared.adapters.rabbitmq import throwaway
from shared.adapters.rabbitmq.throwaway import Offer, ThrowAway
from tests.pacing import pause

pytestmark = pytest.mark.rabbitmq
CONSUMER = Path(__file__).parents[2] / "examples" / "subscriber" / "consumer.py"
VO = "vo.climate.example"
DEADLINE_S = 60.0
COUNTED_S = 8.0
"""3.10 may lose a quorum queue that is younger than this when it is killed (docs/subscriptions.md)."""


class Consumer:
    """The example under a supervisor: started again whenever it has ended."""

    def __init__(self, folder: Path, url: str) -> None:
        self.said = folder / "said.txt"
        self.said.touch()
        self._position = folder / "position.txt"
        self._environment = {**os.environ, "SERAI_AMQP_URL": url}
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        while True:
            with self.said.open("ab") as out, (self.said.parent / "errors.txt").open("ab") as errors:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, str(CONSUMER), str(self._position), env=self._environment, stdout=out, stderr=errors
                )
            try:
                await self._process.wait()
            finally:
                self.kill()
            await pause(0.5)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.kill()

    def heard(self, job: str) -> list[str]:
        """The kinds that it told of a job, in the order of telling."""
        lines = [line.split() for line in self.said.read_text().splitlines()]
        return [kind.removeprefix("eu.serai.").removesuffix(".v1") for _, kind, subject in lines if subject == job]

    async def hears_the_end_of(self, job: str) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            while "job.succeeded" not in self.heard(job):
                await pause(0.1)
        return self.heard(job)


@contextlib.asynccontextmanager
async def running(folder: Path, offer: Offer) -> AsyncIterator[httpx2.AsyncClient]:
    """A platform on this broker, and alice at it."""
    settings = EmbeddedSettings(data=folder, bus="amqp", amqp_url=offer.url, port=18_470, end_tasks=True)
    readers = {
        "subscribers_amqp_url": SecretStr(offer.subscribers_amqp_url),
        "subscribers_management_url": SecretStr(offer.subscribers_management_url),
    }
    async with platform(settings, overrides={"gateway": readers}) as up:
        token = await demo_token(up.issuer, "alice")
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=up.gateway, headers=headers, trust_env=False, timeout=30) as alice:
            yield alice


async def submit(alice: httpx2.AsyncClient) -> str:
    answer = await alice.post("/v1/jobs", json={"name": "count", "vo": VO, "command": ["true"]})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def told(alice: httpx2.AsyncClient, job: str) -> list[str]:
    """The kinds of the job's timeline, but `job.accepted`: that is the gateway's own row and no event."""
    timeline: Any = (await alice.get(f"/v1/jobs/{job}/timeline")).json()
    return [each["type"] for each in timeline["items"] if each["type"] != "job.accepted"]


async def test_a_subscriber_hears_every_event_once_in_order_whoever_dies_meanwhile(tmp_path: Path) -> None:
    if throwaway.installed() is None:
        pytest.skip("no RabbitMQ here: 'apt-get install rabbitmq-server'")
    (tmp_path / "broker").mkdir()
    broker = await ThrowAway.start(tmp_path / "broker", management=True)
    watching: asyncio.Task[None] | None = None
    try:
        offer = await broker.for_subscribers()
        async with running(tmp_path / "platform", offer) as alice:
            made = await alice.post("/v1/subscriptions", json={"vo": VO})
            assert made.status_code == 201, made.text
            consumer = Consumer(tmp_path, made.json()["connection"]["url"])
            watching = asyncio.create_task(consumer.run(), name="consumer")
            jobs = [await submit(alice)]
            await consumer.hears_the_end_of(jobs[0])
            consumer.kill()
            jobs.append(await submit(alice))
            await consumer.hears_the_end_of(jobs[1])
            await pause(COUNTED_S)
            await broker.kill()
            jobs.append(await submit(alice))
            await broker.restart()
            await consumer.hears_the_end_of(jobs[2])
        async with running(tmp_path / "platform", offer) as alice:
            jobs.append(await submit(alice))
            await consumer.hears_the_end_of(jobs[3])
            for job in jobs:
                heard = consumer.heard(job)
                assert sorted(heard) == sorted(await told(alice, job))
                assert len(set(heard)) == len(heard)
                assert heard[0] == "job.queued" and heard[-1] == "job.succeeded"
        positions = [int(line.split()[0].split("-")[1]) for line in consumer.said.read_text().splitlines()]
        assert positions == sorted(set(positions))
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        await broker.stop()
