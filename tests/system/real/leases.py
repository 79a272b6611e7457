"""Who leads a service, by the word of the service's own database."""

import asyncio
from dataclasses import dataclass
from typing import Final

import psycopg

from services.local.supervising import Kept
from tests import pacing
from tests.system.real.whole import Whole

NAMES: Final = {"scheduler": "scheduler", "monitor": "monitor.watching", "gateway": "gateway.subscriptions"}
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Leading:
    """The copy that holds the lease, and the fencing number of its term."""

    copy: str
    fence: int


async def leading(platform: Whole, service: str) -> Leading | None:
    """Who leads a service; None while nobody does."""
    database = platform.up.parts.database
    assert database is not None
    async with await psycopg.AsyncConnection.connect(database.url(f"serai_{service}")) as connection:
        rows = await connection.execute("SELECT holder, fence FROM leases WHERE name = %s", (NAMES[service],))
        row = await rows.fetchone()
    return Leading(str(row[0]).partition("/")[0], int(row[1])) if row and row[0] else None


async def leader(platform: Whole, service: str) -> tuple[Leading, Kept]:
    """The leader's term and process; waits for one."""
    async with asyncio.timeout(30):
        while (found := await leading(platform, service)) is None:
            await pacing.pause(_LOOK_S)
    return found, platform.up.supervisor[found.copy]


async def succeeded(platform: Whole, service: str, before: Leading, within_s: float) -> tuple[Leading, float]:
    """The next leader, another copy, and after how many seconds it leads. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    async with asyncio.timeout(within_s):
        while True:
            now = await leading(platform, service)
            if now is not None and now.copy != before.copy:
                return now, loop.time() - since
            await pacing.pause(_LOOK_S)
