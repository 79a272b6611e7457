"""Proof (a): what a real Nomad said, replayed through the adapter's parser into the monitor's core.

Each recording has its expected timeline in `tests/recordings/expected/`, readable. However the lines arrive (cut,
doubled, resumed inclusively at any line by a monitor that was killed), the same is told, once.
"""

from functools import cache

import pytest
import yaml

from tests.unit.monitor.recordings.replaying import FOLDER, NAMES, Replay, dumped, lines

pytestmark = pytest.mark.fast


@cache
def undisturbed(name: str) -> bytes:
    return dumped(Replay().feed(lines(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_gives_the_expected_timeline(name: str) -> None:
    expected = yaml.safe_load((FOLDER / "expected" / f"{name}.timeline.yaml").read_text())
    assert Replay().feed(lines(name)).timeline() == expected


def test_every_expected_timeline_has_its_recording() -> None:
    expected = {file.name.removesuffix(".timeline.yaml") for file in (FOLDER / "expected").iterdir()}
    assert expected == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_line_may_come_twice(name: str) -> None:
    assert dumped(Replay().feed(line for line in lines(name) for _ in range(2))) == undisturbed(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_may_come_twice(name: str) -> None:
    assert dumped(Replay().feed(lines(name)).feed(lines(name))) == undisturbed(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_monitor_may_be_killed_after_any_line_and_resume_with_it(name: str) -> None:
    """As the stream does it: a resume at the last index brings every line of that index again."""
    every = lines(name)
    for cut in range(1, len(every) + 1):
        again = next(place for place, line in enumerate(every) if line.index == every[cut - 1].index)
        replay = Replay().feed(every[:cut]).restarted().feed(every[again:])
        assert dumped(replay) == undisturbed(name), f"cut after line {cut}"


@pytest.mark.parametrize("name", NAMES)
def test_the_stream_may_begin_again_at_any_older_line(name: str) -> None:
    """As after a restart of the agent, which publishes its log anew."""
    every = lines(name)
    replay = Replay().feed(every)
    for start in range(len(every)):
        replay.feed(every[start:])
    assert dumped(replay) == undisturbed(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_old_line_changes_nothing_at_any_time(name: str) -> None:
    every = lines(name)
    replay = Replay()
    for place, line in enumerate(every):
        replay.feed([line])
        replay.feed(every[:place])
    assert dumped(replay) == undisturbed(name)
