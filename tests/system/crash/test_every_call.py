"""The platform dies before and after every call of every port, starts again, and has kept its promises.

The calls are those that a walk along each path makes, between Protocols read from `shared/ports.py`. A plain run takes
a sample, `--all-points` all of them (some 1,600; half an hour).
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from shared.runtime import logs
from tests.system.crash.calls import every_method
from tests.system.crash.crashing import Point
from tests.system.crash.oracle import Wrong
from tests.system.crash.paths import CANCELLED, RETRIED, SUCCEEDS, Path_, walk
from tests.system.crash.points import points_of, sample
from tests.system.crash.tally import TALLIES, Tally
from tests.system.crash.world import World, a_world, empty_databases

pytestmark = pytest.mark.crash

AT_A_TIME = 4
SAMPLE = 24
NOT_ON_THE_PATHS = {
    "Delivery.retry", "Delivery.dead_letter", "MessageBus.depth", "MessageBus.dead_letters",
    "MessageBus.replay_dead_letter", "Store.close", "SiteRegistry.sites", "SiteRegistry.ready", "JobEngine.plan",
    "JobEngine.ready", "EngineWatch.presence", "EngineWatch.allocations", "EngineWatch.job_meta", "EngineWatch.file",
}  # fmt: skip
"""Called for operators, for messages that cannot be handled, or by none of the three paths."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Crashed services complain, and rightly."""
    logs.configure("critical")


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """A folder with empty databases in `templates`."""
    await empty_databases(tmp_path / "templates")
    return tmp_path


async def walked(path: Path_, place: Path, name: str, target: Point | None, slot: int = 0) -> tuple[World, list[Wrong]]:
    """One walk, with a crash at `target` if the walk comes by there."""
    folder = place / name
    async with a_world(folder, place / "templates", target, slot) as world:
        return world, await walk(world, path, folder / "marks")


async def crash_all(path: Path_, place: Path, all_points: bool) -> Tally:
    """Walk once to learn the calls, then once for each chosen point, several walks at a time."""
    world, wrong = await walked(path, place, "first", None)
    assert not wrong, wrong
    known = points_of(world.lives[0].calls)
    chosen = known if all_points else sample(known, SAMPLE)
    tally = Tally(path.name, len(known))
    TALLIES.append(tally)
    waiting = iter(enumerate(chosen))

    async def work(slot: int) -> None:
        for number, point in waiting:
            world, wrong = await walked(path, place, str(number), point, slot)
            tally.count(str(point), world.crashed, wrong)
            if not wrong:
                shutil.rmtree(world.folder)

    async with asyncio.TaskGroup() as group:
        for slot in range(AT_A_TIME):
            group.create_task(work(slot), name=f"walks-{slot}")
    return tally


@pytest.mark.parametrize("path", [SUCCEEDS, CANCELLED, RETRIED], ids=lambda path: path.name)
async def test_a_crash_at_any_call_loses_nothing_and_doubles_nothing(
    path: Path_, place: Path, pytestconfig: pytest.Config
) -> None:
    tally = await crash_all(path, place, pytestconfig.getoption("--all-points"))

    assert tally.points > 0.7 * SAMPLE
    assert not tally.wrong, f"{tally}\n{tally.details()}"


async def test_every_method_of_every_port_is_on_a_path_or_known_not_to_be(place: Path) -> None:
    met: set[str] = set()
    for path in (SUCCEEDS, CANCELLED, RETRIED):
        world, _ = await walked(path, place, path.name, None)
        met |= world.lives[0].met

    assert met | NOT_ON_THE_PATHS == every_method()
