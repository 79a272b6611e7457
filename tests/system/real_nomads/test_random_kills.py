"""Real Nomads with ACLs and TLS as sites, two of them on one cluster, while services are killed at random under load.

10 s by default; `--long` is the minute. The kernel counts meanwhile how many connections each service holds to a Nomad.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml

from services.embedded.sites import BIO, CLIMATE
from shared.adapters.nomad import local_binary
from tests import pacing
from tests.ports.engine.connections import HALF
from tests.system.real import marks
from tests.system.real.test_random_kills import LONG_S, SEED, kill_at_random
from tests.system.real.verdict import rows_at
from tests.system.real.whole import Whole, whole
from tests.system.real.working import a_load
from tests.system.real_nomads.connections import held

pytestmark = [
    *marks.REAL,
    pytest.mark.nomad,
    pytest.mark.skipif(local_binary.installed() is None, reason="no nomad on PATH and no NOMAD_BIN"),
]

SHORT_S: Final = 10.0
PORT: Final = 21_480
"""Where no other test looks for a free one: the only gateway is away for seconds, and its port must stay its own."""
SMALL: Final = {"country": "CZ", "vos": [CLIMATE, BIO], "cores": 4, "memory_mib": 4096}
SITES: Final = (
    SMALL | {"name": "prague", "cluster": "czechia"},
    SMALL | {"name": "brno", "cluster": "czechia", "datacenter": "dc2"},
    SMALL | {"name": "lyon", "country": "FR", "vos": [CLIMATE]},
)
MOST: Final = {"scheduler": HALF, "monitor": HALF + 1}
"""Connections to one cluster: the monitor's event stream is the one more."""


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def platform() -> AsyncIterator[Whole]:
    """One copy of each service, which goes on at once after it was killed. Nomad's tasks are another user's, who must
    reach the folder."""
    with tempfile.TemporaryDirectory(prefix="serai-nomads-", ignore_cleanup_errors=True) as name:
        folder = opened_to_others(Path(name))
        async with whole(folder, copies=1, nomad="auto", sites=folder / "sites.yaml", port=PORT) as made:
            yield made


def opened_to_others(folder: Path) -> Path:
    """The folder with a file of the sites."""
    folder.chmod(0o755)
    (folder / "sites.yaml").write_text(yaml.safe_dump([dict(site) for site in SITES]))
    return folder


async def test_services_killed_at_random_lose_and_double_nothing_at_real_nomads(
    platform: Whole, request: pytest.FixtureRequest
) -> None:
    seconds = LONG_S if request.config.getoption("--long") else SHORT_S
    killed: Counter[str] = Counter()
    most: Counter[str] = Counter()
    async with a_load(platform, SEED) as load:
        counting = asyncio.create_task(count(platform, most), name="connections")
        async with load.working(users=6):
            await kill_at_random(platform, seconds, killed)
        told = ", ".join(f"{number} x {service}" for service, number in sorted(killed.items()))
        await load.judged(f"kill -9 at random for {seconds:g} s with real Nomads: {told}; {dict(most)}", killed.total())
        counting.cancel()
    assert {name: number for name, number in most.items() if number > MOST[name.partition("-")[0]]} == {}
    assert most["scheduler-1"] and most["monitor-1"], "they were seen at all"
    assert await left_running(platform) == []
    assert {(await site_of(platform, name))["cluster"] for name in ("prague", "brno")} == {"czechia"}


async def count(platform: Whole, most: Counter[str]) -> None:
    """Look again and again: the most connections that a service had to one cluster."""
    while True:
        ids = {
            kept.name: kept.process.pid for kept in platform.copies("scheduler", "monitor") if kept.process is not None
        }
        for agent in platform.up.parts.agents.values():
            for name, number in held(ids, urlsplit(agent.address).port or 0).items():
                most[name] = max(most[name], number)
        await pacing.pause(0.05)


async def left_running(platform: Whole) -> list[str]:
    """Nomad jobs that still run or may yet, once clients have told of all ends."""
    left: list[str] = []
    for _ in range(100):
        rows = [row for agent in platform.up.parts.agents.values() for row in await rows_at(agent, "/v1/allocations")]
        left = [row["JobID"] for row in rows if row["ClientStatus"] in ("pending", "running")]
        if not left:
            break
        await pacing.pause(0.1)
    return left


async def site_of(platform: Whole, name: str) -> dict[str, object]:
    async with platform.users(0) as users:
        sites = (await users.ask("GET", "/v1/sites")).json()["sites"]
    return next(site for site in sites if site["name"] == name)
