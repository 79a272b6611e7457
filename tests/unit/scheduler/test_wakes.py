"""What wakes the leader's loops, and what they then look at."""

import pytest

from services.scheduler.wakes import Wakes

pytestmark = pytest.mark.fast


async def test_the_performer_is_told_which_clusters_to_look_at_once() -> None:
    wakes = Wakes()
    wakes.owed("prague")
    wakes.owed("lyon")
    wakes.owed("prague")
    assert await wakes.calls.wait(0)
    assert wakes.take_owed() == {"prague", "lyon"}
    assert wakes.take_owed() == set()


async def test_room_and_the_queue_both_wake_the_placer_and_say_why() -> None:
    wakes = Wakes()
    wakes.room()
    assert (wakes.room_changed, wakes.queue_changed) == (True, False)
    assert await wakes.queue.wait(0)
    wakes.queued()
    assert wakes.queue_changed
    assert await wakes.queue.wait(0)
