"""The platform dies before and after every call of every port, starts again, and has kept its promises.

The calls are those that a walk along each path makes, between Protocols read from `shared/ports.py`. A plain run takes
a sample, `--all-points` all of them (some 1,600, in parts: `-n 2` shares them over two processes), `--crash-at` one.
What went wrong is kept in `.serai-crashes/`, a folder for each point with its report and databases.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.runtime import logs
from tests.system.crash.calls import every_method
from tests.system.crash.crashing import Point
from tests.system.crash.keeping import keep
from tests.system.crash.oracle import Wrong
from tests.system.crash.paths import CANCELLED, RETRIED, SUCCEEDS, Observed, Path_, history, walk
from tests.system.crash.points import Part, points_of, sample
from tests.system.crash.tally import TALLIES, Tally
from tests.system.crash.world import World, a_world, empty_databases

pytestmark = pytest.mark.crash

AT_A_TIME = 4
SAMPLE = 24
NOT_ON_THE_PATHS = {
    "Delivery.retry", "Delivery.dead_letter", "MessageBus.depth", "MessageBus.dead_letters",
    "MessageBus.replay_dead_letter", "Store.close", "SiteRegistry.sites", "SiteRegistry.ready", "JobEngine.plan",
    "JobEngine.ready", "EngineWatch.presence", "EngineWatch.allocations", "EngineWatch.job_meta", "EngineWatch.file",
    "SubscriberBroker.open", "SubscriberBroker.publish", "SubscriberBroker.seen", "SubscriberBroker.shut_out",
    "SubscriberBroker.remove", "SubscriberBroker.close",
}  # fmt: skip
"""Called for operators, for subscribers from outside, for messages that cannot be handled, or by none of the paths."""


@pytest.fixture(autouse=True)
def quiet(pytestconfig: pytest.Config) -> None:
    """Crashed services complain, and rightly; of one point, all that they say is told."""
    logs.configure("info" if pytestconfig.getoption("--crash-at") else "critical")


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """A folder with empty databases in `templates`."""
    await empty_databases(tmp_path / "templates")
    return tmp_path


async def walked(path: Path_, place: Path, name: str, target: Point | None, slot: int = 0) -> tuple[World, list[Wrong]]:
    """One walk, with a crash at `target` if the walk comes by there. What went wrong is kept."""
    folder, seen = place / name, Observed()
    async with a_world(folder, place / "templates", target, slot) as world:
        wrong = await walk(world, path, folder / "marks", seen)
        told = await history(world, folder / "marks", seen) if wrong else {}
    if wrong:
        kept = keep(folder, f"{path.name}, {target or 'no crash'}", wrong, told)
        wrong = [Wrong(each.kind, f"{each.what} (see {kept})") for each in wrong]
    else:
        shutil.rmtree(folder)
    return world, wrong


def chosen_of(points: Sequence[Point], part: Part, asked: str) -> list[Point]:
    """Those of a part of all points, or the sample that one part stands for; `asked` names some instead."""
    if asked:
        return [point for point in points if str(point) == asked]
    return sample(points, SAMPLE) if part.of == 1 else [point for point in points if part.has(point)]


async def crash_all(path: Path_, place: Path, part: Part, tally: Tally, first_slot: int, asked: str) -> None:
    """Walk once to learn the calls, then once for each chosen point, several walks at a time."""
    world, wrong = await walked(path, place, "first", None, first_slot)
    assert not wrong, wrong
    known = points_of(world.lives[0].calls)
    tally.of = len(known)
    waiting = iter(enumerate(chosen_of(known, part, asked)))

    async def work(slot: int) -> None:
        for number, point in waiting:
            world, wrong = await walked(path, place, str(number), point, slot)
            tally.count(str(point), world.crashed, wrong)

    async with asyncio.TaskGroup() as group:
        for slot in range(AT_A_TIME):
            group.create_task(work(first_slot + slot), name=f"walks-{slot}")


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("path", [SUCCEEDS, CANCELLED, RETRIED], ids=lambda path: path.name)
async def test_a_crash_at_any_call_loses_nothing_and_doubles_nothing(
    path: Path_, part: Part, place: Path, pytestconfig: pytest.Config, worker_id: str
) -> None:
    asked = pytestconfig.getoption("--crash-at")
    tally = Tally(f"{path.name}, part {part}")
    TALLIES.append(tally)
    process = int(worker_id.removeprefix("gw")) + 1 if worker_id != "master" else 0
    await crash_all(path, place, part, tally, process * AT_A_TIME, asked)

    assert asked or part.of > 1 or tally.points > 0.7 * SAMPLE
    assert not tally.wrong, f"{tally}\n{tally.details()}"


async def test_every_method_of_every_port_is_on_a_path_or_known_not_to_be(place: Path) -> None:
    met: set[str] = set()
    for path in (SUCCEEDS, CANCELLED, RETRIED):
        world, _ = await walked(path, place, path.name, None)
        met |= world.lives[0].met

    assert met | NOT_ON_THE_PATHS == every_method()
