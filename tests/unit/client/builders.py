"""A client against a scripted gateway, with time that does not pass."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx2

from serai.client import Serai
from serai.retrying import Patience
from serai.wire import Pace
from tests.unit.client.fake_gateway import TOKEN, FakeGateway

URL = "http://gateway.example"


NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Time:
    """A clock that only sleeping moves; remembers each pause. `day()` is the time of day, noon at the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def day(self) -> datetime:
        return NOON + timedelta(seconds=self.now)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def a_pace(time: Time, patience: Patience | None = None) -> Pace:
    patience = patience or Patience(attempts=4, total_s=30, base_s=1, cap_s=4)
    return Pace(patience, time.sleep, time, lambda: 1.0, held=patience, now=time.day)


def a_client(gateway: FakeGateway, time: Time | None = None, token: str | None = TOKEN) -> Serai:
    """A signed-in client of `gateway`."""
    return Serai(URL, token, transport=httpx2.ASGITransport(gateway.app), pace=a_pace(time or Time()))


class Deaf(httpx2.AsyncBaseTransport):
    """A network where every connection fails in the given way; counts the tries."""

    def __init__(self, error: type[httpx2.TransportError], words: str = "nobody there") -> None:
        self.error = error
        self.words = words
        self.tries = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.tries += 1
        raise self.error(self.words)
