"""Subscribers that live through faults: one of Server-Sent Events at the gateways in turn, one of the stream."""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from services.auth.dev_issuer import demo_token
from shared.adapters.rabbitmq import AmqpBus
from shared.contracts import codec
from shared.contracts.events import AttemptEvent, JobEvent
from shared.contracts.routes import ACCESS, EVENT_LOG
from shared.errors import SeraiError, Unavailable
from tests import pacing
from tests.system.crash.oracle import Heard


@dataclass
class SseReader:
    """Follows `/v1/events` at one gateway after the other with Last-Event-ID: whenever its stream ends, and on its own.

    `heard` is everything in the order in which it came; `at` is how often each gateway gave a stream.
    """

    gateways: Sequence[str]
    issuer: str
    stay_s: float
    heard: list[Heard] = field(default_factory=list)
    positions: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    at: Counter[str] = field(default_factory=Counter)
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    _token: str = ""

    async def run(self) -> None:
        """For ever."""
        async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(5, read=30)) as client:
            for gateway in itertools.cycle(self.gateways):
                with contextlib.suppress(httpx.TransportError, SeraiError, TimeoutError):
                    async with asyncio.timeout(self.stay_s):
                        await self._read(client, gateway)
                await pacing.pause(0.05)

    async def _read(self, client: httpx.AsyncClient, gateway: str) -> None:
        self._token = self._token or await demo_token(self.issuer, "alice")
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"}
        if self.positions:
            headers["Last-Event-ID"] = self.positions[-1]
        async with client.stream("GET", f"{gateway}/v1/events", headers=headers) as answer:
            if answer.status_code != 200:
                return
            self.at[gateway] += 1
            async for message in httpx.EventSource(answer):
                self._take(message)
                if self.positions:  # else whatever comes before it asks again would be missed
                    self.listening.set()

    def _take(self, message: Any) -> None:
        if message.event == "gap":
            self.gaps.append(message.data)
        if message.id and (not self.positions or message.id != self.positions[-1]):
            self.positions.append(message.id)
        body = json.loads(message.data) if message.data else {}
        if message.event == "end" and body.get("reason") != "final":
            self._token = ""
        if "id" in body:
            data = body["data"]
            series = 0 if message.event.startswith("job.") else int(data.get("attempt", 0))
            if message.event.startswith(("job.", "attempt.")):
                self.heard.append(Heard(body["id"], data["job_id"], series, data["sequence"]))


@dataclass
class StreamReader:
    """Reads the broker's event stream from the offset that it keeps, as the gateway does."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    offset: int | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(Unavailable):
                bus = await AmqpBus.open(self.url, access=ACCESS["gateway"])
                try:
                    async for offset, message in bus.read(EVENT_LOG, after=self.offset):
                        self.offset = offset
                        self._take(codec.decode(message))
                finally:
                    await bus.close()
            await pacing.pause(0.2)

    def _take(self, decoded: codec.Decoded) -> None:
        event, id = decoded.content, decoded.envelope.id
        if isinstance(event, JobEvent):
            self.heard.append(Heard(id, str(event.job_id), 0, event.sequence))
        elif isinstance(event, AttemptEvent):
            self.heard.append(Heard(id, str(event.job_id), event.attempt, event.sequence))


@asynccontextmanager
async def running(*readers: SseReader | StreamReader) -> AsyncIterator[None]:
    """The readers at work; a reader that fails fails the test."""
    tasks = [asyncio.create_task(reader.run(), name=type(reader).__name__) for reader in readers]
    try:
        for reader in readers:
            if isinstance(reader, SseReader):
                async with asyncio.timeout(30):
                    await reader.listening.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ended:
        if not isinstance(end, asyncio.CancelledError) and isinstance(end, BaseException):
            raise end
