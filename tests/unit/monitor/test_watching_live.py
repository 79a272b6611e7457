"""The monitor over a cluster in memory: what happens there is told once, whatever breaks in between."""

from dataclasses import replace

import pytest

from services.monitor import store
from services.monitor.wiring import LEASE
from shared.contracts.events import (
    AttemptFailed,
    AttemptLost,
    AttemptPending,
    AttemptRunning,
    AttemptStarting,
    AttemptSucceeded,
    SiteObserved,
    SiteReachable,
    SiteStray,
    SiteSuspect,
    SiteUnreachable,
)
from shared.engine import AllocationSeen, JobSeen
from shared.errors import Misconfigured, Unavailable
from shared.ids import AttemptId
from shared.job import FailureClass
from shared.runtime.service import close
from tests.builders import VO, a_site
from tests.unit.monitor.builders import (
    allocation_seen,
    an_attempt,
    ended,
    job_seen,
    meta_of,
    node_seen,
    started,
)
from tests.unit.monitor.cluster import Cluster
from tests.unit.monitor.world import World

pytestmark = pytest.mark.fast

ONE = an_attempt()


def placed(cluster: Cluster, attempt: AttemptId = ONE, **fields: object) -> None:
    cluster.say(job_seen(attempt, cluster.index + 1))
    at = cluster.index + 1
    cluster.say(allocation_seen(attempt, at, create_index=at, **fields), job_seen(attempt, at, "running"))


def runs(cluster: Cluster, attempt: AttemptId = ONE, **fields: object) -> None:
    cluster.say(allocation_seen(attempt, cluster.index + 1, "running", tasks=(started(),), **fields))


def ends(cluster: Cluster, attempt: AttemptId = ONE, exit_code: int = 0, **fields: object) -> None:
    at, client = cluster.index + 1, "failed" if exit_code else "complete"
    cluster.say(
        allocation_seen(attempt, at, client, tasks=(ended(exit_code),), **fields), job_seen(attempt, at, "dead")
    )


async def test_a_job_that_succeeds(world: World) -> None:
    async with world.monitor():
        await world.ear.hears(SiteObserved)
        placed(world.cluster)
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
        ends(world.cluster)
        told = await world.ear.hears(AttemptSucceeded)
    assert told.exit_code == 0 and told.vo == VO and told.site == "prague" and told.node == "node-1"
    assert world.timeline(ONE) == ["pending", "starting", "running", "succeeded"]


async def test_a_registration_waits_for_its_placing_and_no_longer(world: World) -> None:
    async with world.monitor(quiet_s=5.0):
        await world.ear.hears(SiteObserved)
        placed(world.cluster)
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
    assert world.timeline(ONE) == ["pending", "starting", "running"]


async def test_a_registration_that_nothing_follows_is_told_alone(world: World) -> None:
    async with world.monitor(quiet_s=0.05):
        await world.ear.hears(SiteObserved)
        world.cluster.say(job_seen(ONE, world.cluster.index + 1))
        await world.ear.hears(AttemptPending)


async def test_what_happened_while_the_monitor_was_away_is_told_from_the_listing(world: World) -> None:
    placed(world.cluster)
    ends(world.cluster, exit_code=3)
    world.cluster.prune(0)
    async with world.monitor():
        told = await world.ear.hears(AttemptFailed)
    assert told.failure is FailureClass.TASK_ERROR and told.exit_code == 3
    assert world.timeline(ONE) == ["failed"]


async def test_a_monitor_that_starts_again_tells_nothing_twice(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
    async with world.monitor():
        ends(world.cluster)
        await world.ear.hears(AttemptSucceeded)
    assert world.timeline(ONE) == ["pending", "starting", "running", "succeeded"]


async def test_a_stream_that_ends_is_resumed_at_the_last_line_and_needs_no_listing(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        await world.ear.hears(SiteObserved)
        world.cluster.drop()
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
    assert world.cluster.subscriptions == [0, 2] and world.cluster.listings == 1


async def test_lines_that_were_pruned_are_made_good_by_a_listing(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        await world.ear.hears(SiteObserved)
        world.cluster.drop()
        at = world.cluster.index + 1
        world.cluster.say(allocation_seen(ONE, at, "complete", tasks=(ended(),)), heard=False)
        world.cluster.say(node_seen(at + 1))
        world.cluster.prune(1)
        await world.ear.hears(AttemptSucceeded)
    assert world.cluster.listings == 2


async def test_an_attempt_whose_job_was_never_seen_is_asked_for(world: World) -> None:
    async with world.monitor():
        await world.ear.hears(SiteObserved)
        world.cluster.shows["job", ONE.nomad_id] = job_seen(ONE, 1)
        runs(world.cluster)
        told = await world.ear.hears(AttemptRunning)
    assert told.vo == VO


async def test_foreign_jobs_tombstones_and_other_clusters_attempts_are_nobodys(world: World) -> None:
    world.sites = (a_site(), a_site("lyon"))
    async with world.monitor():
        world.cluster.say(JobSeen("somebody", "default", 1, "running"))
        world.cluster.say(job_seen(an_attempt(2), 2, "dead", stop=True, meta={"serai_tombstone": "1"}))
        world.cluster.say(job_seen(an_attempt(3), 3, meta=meta_of(an_attempt(3), site="lyon")))
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
    assert world.timeline(an_attempt(2)) == world.timeline(an_attempt(3)) == []


async def test_a_purged_attempt_is_lost_only_with_proof(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        still_there = job_seen(ONE, 2, "running", deleted=True)
        world.cluster.say(still_there, job_seen(ONE, 3, "running"))
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
        world.cluster.say(job_seen(ONE, 3, "running", deleted=True))
        lost = await world.ear.hears(AttemptLost)
    assert lost.vanished
    assert world.timeline(ONE) == ["pending", "starting", "running", "lost"]


async def test_silent_deletions_show_on_the_next_listing(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
    world.cluster.forget(ONE.nomad_id)
    async with world.monitor():
        assert (await world.ear.hears(AttemptLost)).vanished


async def test_many_that_vanish_together_make_the_site_suspect_and_lose_nobody(world: World) -> None:
    many = [an_attempt(n) for n in range(1, 11)]
    async with world.monitor():
        for n, attempt in enumerate(many):
            placed(world.cluster, attempt, id=f"a{n}")
        await world.ear.until(lambda events: sum(isinstance(e, AttemptStarting) for e in events) == 10)
    shown = dict(world.cluster.shows)
    for attempt in many:
        world.cluster.forget(attempt.nomad_id)
    async with world.monitor(relist_interval_s=0.05):
        await world.ear.hears(SiteSuspect, vo=None)
        assert (await world.ear.hears(SiteSuspect, vo=VO)).site == "prague"
        world.cluster.shows = shown
        told = world.ear.events()
        await world.ear.until(lambda events: any(isinstance(e, SiteReachable) for e in events[len(told) :]))
        ends(world.cluster, many[0], id="a0")
        await world.ear.hears(AttemptSucceeded)
    assert not any(isinstance(event, AttemptLost) for event in world.ear.events())


async def test_a_site_is_told_unreachable_after_some_silence_to_its_vos_too_and_reachable_again(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        world.cluster.wrong = Unavailable("connection refused")
        world.cluster.drop()
        gone = await world.ear.hears(SiteUnreachable, vo=None)
        assert gone.error == "connection refused" and gone.since == world.clock()
        await world.ear.hears(SiteUnreachable, vo=VO)
        world.cluster.wrong = None
        await world.ear.hears(SiteReachable, vo=VO)
        ends(world.cluster)
        await world.ear.hears(AttemptSucceeded)


async def test_a_token_that_is_refused_makes_the_site_suspect_not_dead(world: World) -> None:
    async with world.monitor():
        await world.ear.hears(SiteObserved)
        world.cluster.stream_wrong = Misconfigured("the token may not read events")
        world.cluster.drop()
        told = await world.ear.hears(SiteSuspect)
    assert told.error == "the token may not read events"


async def test_capacity_is_told_when_it_changes(world: World) -> None:
    async with world.monitor():
        first = await world.ear.hears(SiteObserved)
        world.cluster.say(node_seen(7, eligible=False))
        drained = await world.ear.hears(SiteObserved, occurrence=first.occurrence + 1)
    assert len(first.capacity.nodes) == 1 and drained.capacity.nodes == ()


async def test_room_that_others_take_or_free_is_told_without_a_listing(world: World) -> None:
    theirs = AllocationSeen("f1", "somebody", "default", 8, node_id="n1", client_status="running", uses=(500, 64, 10))
    async with world.monitor():
        first = await world.ear.hears(SiteObserved)
        world.cluster.say(theirs)
        taken = await world.ear.hears(SiteObserved, occurrence=first.occurrence + 1)
        world.cluster.say(replace(theirs, modify_index=9, client_status="complete", uses=(0, 0, 0)))
        freed = await world.ear.hears(SiteObserved, occurrence=first.occurrence + 2)
    assert [told.capacity.nodes[0].foreign_cpu_mhz for told in (first, taken, freed)] == [0, 500, 0]


async def test_room_of_a_job_that_others_purge_is_free_at_once(world: World) -> None:
    index = world.cluster.index + 1
    theirs = AllocationSeen(
        "f1", "somebody", "default", index, node_id="n1", client_status="running", uses=(500, 64, 10)
    )
    async with world.monitor():
        first = await world.ear.hears(SiteObserved)
        world.cluster.say(theirs)
        await world.ear.hears(SiteObserved, occurrence=first.occurrence + 1)
        world.cluster.say(JobSeen("somebody", "default", index, deleted=True))
        freed = await world.ear.hears(SiteObserved, occurrence=first.occurrence + 2)
    assert freed.capacity.nodes[0].foreign_cpu_mhz == 0


async def test_strays_are_told_at_every_listing_until_they_are_gone(world: World) -> None:
    world.strays = {ONE.nomad_id}
    placed(world.cluster)
    runs(world.cluster)
    async with world.monitor(relist_interval_s=0.02):
        await world.ear.until(lambda events: sum(isinstance(e, SiteStray) for e in events) >= 2)
        at = world.cluster.index + 1
        world.cluster.say(
            allocation_seen(ONE, at, "complete", desired_status="stop"), job_seen(ONE, at, "dead", stop=True)
        )
        await world.ear.until(lambda events: any(getattr(e, "kind", "") == "attempt.stopped" for e in events))
    assert all(asked == (ONE.nomad_id,) for asked in world.asked)


async def test_a_new_namespace_makes_the_stream_be_opened_anew_at_once(world: World) -> None:
    async with world.monitor(relist_interval_s=600, namespaces_interval_s=0.02):
        await world.ear.hears(SiteObserved)
        world.cluster.there = frozenset({"default", "vo-new"})
        await world.cluster.subscribed(0, times=2)
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
        assert len(world.cluster.subscriptions) == 2


async def test_a_look_at_the_namespaces_that_goes_unanswered_ends_nothing(world: World) -> None:
    async with world.monitor(relist_interval_s=600, namespaces_interval_s=0.02):
        await world.ear.hears(SiteObserved)
        world.cluster.deaf = True
        await world.cluster.looked(3)
        placed(world.cluster)
        await world.ear.hears(AttemptStarting)
        assert len(world.cluster.subscriptions) == 1


async def test_the_checkpoint_follows_lines_that_are_not_ours_too(world: World) -> None:
    async with world.monitor() as running:
        await world.ear.hears(SiteObserved)
        for index in range(1, 8):
            world.cluster.say(node_seen(index + 1))
        await running.until(lambda connection: store.checkpoint(connection, "prague") == 7)
    async with world.monitor():
        await world.cluster.subscribed(7)


async def test_a_cluster_that_lost_its_state_is_watched_from_its_new_beginning(world: World) -> None:
    async with world.monitor():
        placed(world.cluster)
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
    world.cluster = Cluster()
    async with world.monitor():
        assert (await world.ear.hears(AttemptLost)).vanished
        placed(world.cluster, an_attempt(2))
        await world.ear.hears(AttemptStarting, job_id=an_attempt(2).job_id)
    async with world.monitor():
        await world.cluster.subscribed(2)


async def test_only_one_copy_watches_and_the_other_takes_over_when_it_stops_in_order(world: World) -> None:
    async with world.monitor(instance="one") as first:
        await world.ear.hears(SiteObserved)
        async with world.monitor(first, instance="two"):
            placed(world.cluster)
            await world.ear.hears(AttemptStarting)
            assert len(world.cluster.subscriptions) == 1
        await close([first.service])
    async with world.monitor(instance="two"):
        runs(world.cluster)
        await world.ear.hears(AttemptRunning)
    assert world.timeline(ONE) == ["pending", "starting", "running"]


async def test_two_copies_without_names_on_one_host_do_not_both_watch(world: World) -> None:
    async with world.monitor(instance="") as first:
        await world.ear.hears(SiteObserved)
        async with world.monitor(first, instance=""):
            placed(world.cluster)
            await world.ear.hears(AttemptStarting)
            assert len(world.cluster.subscriptions) == 1


async def test_a_deposed_copy_writes_nothing(world: World) -> None:
    async with world.monitor(instance="one", lease_ttl_s=60) as first:
        await world.ear.hears(SiteObserved)
        world.clock.forward(60)
        assert await first.store.acquire_lease(LEASE, "two", 600, world.clock())
        placed(world.cluster)
        await world.cluster.subscribed(0, times=2)
        assert not await first.store.read(lambda connection: store.known(connection, [ONE]))
