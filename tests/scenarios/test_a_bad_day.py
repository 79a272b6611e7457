"""Everything goes wrong at all sites while jobs come and go: in the end each has ended, and nothing is left behind."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests import pacing
from tests.scenarios.world import World, a_site, a_world, until, work

NAMES = ("prague", "lyon", "bari")
SHORT = {"node_grace_s": 0.5, "site_grace_s": 1.0, "tried_before_s": 0.5}


SEEDS = [int(seed) for seed in os.environ.get("BAD_DAYS", "7").split(",")]
"""More days may be asked for: `BAD_DAYS=1,2,3 pytest tests/scenarios/test_a_bad_day.py`."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_jobs_survive_a_day_on_which_every_site_fails_in_every_way(tmp_path: Path, seed: int) -> None:
    sites = [a_site(name) for name in NAMES]
    async with a_world(tmp_path, *sites, scheduler=SHORT, monitor={"vanish_few": 50}) as world:
        trouble = [
            asyncio.create_task(_trouble(world, name, random.Random(10 * seed + number)))
            for number, name in enumerate(NAMES)
        ]
        jobs = await _hand_in(world, random.Random(seed))
        await asyncio.gather(*trouble)
        for job, ends in jobs.items():
            await world.alice.sees(job, *ends)
            await world.alice.timeline(job)

        async def quiet() -> bool:
            return not [name for site in NAMES for name in world.live_at(site)]

        await until(quiet, "nothing is left at any site")
        for job, ends in jobs.items():
            assert (await world.alice.job(job)).state in ends, "a final state never changes"
            await world.alice.timeline(job)


async def _hand_in(world: World, chance: random.Random) -> dict[str, tuple[str, ...]]:
    """Thirty jobs, little by little, and how each may end: some may fail with their site, some are cancelled."""
    ends: dict[str, tuple[str, ...]] = {}
    for number in range(30):
        on_lost = "fail" if number % 5 == 1 else "retry"
        job = await world.alice.submit(work(f"{chance.randrange(50, 800)}ms", start_deadline=2, on_lost=on_lost))
        ends[job] = ("succeeded", "failed") if on_lost == "fail" else ("succeeded",)
        await pacing.pause(chance.uniform(0, 0.1))
        if number % 5 == 2:
            await world.alice.serai.cancel(job)
            ends[job] = ("succeeded", "cancelled")
    return ends


async def _trouble(world: World, site: str, chance: random.Random) -> None:
    """A row of faults at one site, each mended before the next."""
    faults = [_stream, _refuse, _errors, _lost_node, _drain, _restart, _forget]
    for fault in chance.sample(faults, 3):
        await pacing.pause(chance.uniform(0.1, 0.5))
        await fault(world, site, chance)


async def _stream(world: World, site: str, chance: random.Random) -> None:
    for kind in chance.sample(["drop-stream", "silence-stream", "prune-buffer"], 2):
        await world.fault(site, kind)


async def _refuse(world: World, site: str, chance: random.Random) -> None:
    await world.go_away(site)
    await pacing.pause(chance.choice([0.2, 2.5]))
    await world.come_back(site, forgetful=chance.random() < 0.5)


async def _errors(world: World, site: str, chance: random.Random) -> None:
    await world.fault(site, chance.choice(["error-500", "error-429"]), count=chance.randrange(1, 30))


async def _lost_node(world: World, site: str, chance: random.Random) -> None:
    await world.fault(site, "lose-node", after=0)
    await pacing.pause(chance.choice([0.2, 1.5]))
    await world.fault(site, "return-node")


async def _drain(world: World, site: str, chance: random.Random) -> None:
    await world.fault(site, "drain")
    await pacing.pause(0.5)
    await world.fault(site, "undrain")


async def _restart(world: World, site: str, chance: random.Random) -> None:
    await world.restart(site)


async def _forget(world: World, site: str, chance: random.Random) -> None:
    for job in world.live_at(site)[:2]:
        await world.fault(site, "forget-job", job=job)
