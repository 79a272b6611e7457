"""The small pure rules: resuming, vanishing, capacity, standing of a site, what is kept."""

from datetime import timedelta

import pytest

from services.monitor import capacity, keeping, watching
from services.monitor.attempts import AttemptRecord, Identity, is_ours, observe
from services.monitor.evidence import blocked_because
from services.monitor.keeping import KeepingRules, Owed
from services.monitor.site_health import TABLE, Health, Hysteresis, Sign, Standing, after
from services.monitor.watching import Resumed, VanishRule
from shared.contracts.reasons import ReasonCode
from shared.engine import JobSeen, Listing, PlacementFailure
from tests.builders import NOON, VO, a_node, a_site
from tests.unit.monitor.builders import allocation_seen, an_attempt, job_seen, meta_of, node_seen

pytestmark = pytest.mark.fast


def living(number: int, site: str = "prague") -> AttemptRecord:
    record = AttemptRecord(Identity(an_attempt(number), VO, site, "prague", "default"))
    return observe(record, [job_seen(an_attempt(number), 1)])[0]


# -- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "verdict"),
    [(23, Resumed.SAME), (24, Resumed.GAP), (22, Resumed.BEHIND), (None, Resumed.GAP)],
)
def test_the_gap_test(first: int | None, verdict: Resumed) -> None:
    assert watching.resumed(23, first) is verdict


def test_the_checkpoint_never_moves_back() -> None:
    assert watching.position_after(23, [20, 21]) == 23
    assert watching.position_after(23, [23, 25]) == 25


@pytest.mark.parametrize(
    ("verdict", "modified", "anew"),
    [(Resumed.SAME, 3, False), (Resumed.BEHIND, 3, True), (Resumed.GAP, 3, True), (Resumed.GAP, 23, False)],
)
def test_a_cluster_began_anew_only_when_neither_stream_nor_listing_reach_the_checkpoint(
    verdict: Resumed, modified: int, anew: bool
) -> None:
    listing = Listing(2, (job_seen(an_attempt(1), modified),), (), (), ())
    assert watching.began_anew(23, verdict, listing) is anew


# -- vanishing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "alive", "lately", "believed"),
    [(2, 2, 0, True), (3, 3, 0, False), (10, 100, 0, True), (11, 100, 0, False), (1, 2, 2, False), (1, 97, 3, True)],
)
def test_few_may_vanish_together(gone: int, alive: int, lately: int, believed: bool) -> None:
    records = [living(number) for number in range(1, gone + 1)]
    rule = VanishRule(few=2, share=0.1)
    assert watching.believable(records, {"prague": alive}, rule, {"prague": lately}) == {"prague": believed}


def test_each_site_of_a_cluster_is_judged_by_itself() -> None:
    records = [living(n, "prague") for n in range(1, 9)] + [living(9, "brno")]
    rule = VanishRule(few=2, share=0.1)
    assert watching.believable(records, {"prague": 8, "brno": 91}, rule) == {"prague": False, "brno": True}


def test_few_at_each_of_many_sites_are_many_in_their_cluster_whose_token_they_share() -> None:
    records = [living(n, f"site-{n}") for n in range(1, 9)]
    living_there = {f"site-{n}": 1 for n in range(1, 9)}
    assert not any(watching.believable(records, living_there, VanishRule(few=2, share=0.1)).values())


def test_missing_are_those_that_lived_before_and_are_not_listed() -> None:
    listing = Listing(5, (job_seen(an_attempt(1), 1),), (), (), ())
    assert watching.missing([living(1), living(2)], listing) == [living(2)]


def test_only_what_runs_unasked_may_be_stray() -> None:
    jobs = (
        job_seen(an_attempt(1), 1, "running"), job_seen(an_attempt(2), 1, "running", stop=True),
        job_seen(an_attempt(3), 1, "dead"), JobSeen("somebody", "default", 1, "running"),
        job_seen(an_attempt(4), 1, "dead"),
    )  # fmt: skip
    listing = Listing(5, jobs, (allocation_seen(an_attempt(4), 1, "unknown"),), (), ())
    assert watching.running_ids(listing) == [an_attempt(1).nomad_id, an_attempt(4).nomad_id]


def test_only_a_job_with_vo_and_site_is_ours() -> None:
    assert is_ours(meta_of(an_attempt()))
    assert not is_ours({"serai_tombstone": "1", "serai_job": "x"})


# -- capacity -----------------------------------------------------------------------------------------------------


def test_a_site_offers_its_own_usable_nodes() -> None:
    nodes = [
        node_seen(id="1", name="b", capacity=a_node("b")), node_seen(id="2", capacity=a_node("a")),
        node_seen(id="3", eligible=False), node_seen(id="4", draining=True), node_seen(id="5", status="down"),
        node_seen(id="6", datacenter="dc2"), node_seen(id="7", node_pool="gpu"), node_seen(id="8", capacity=None),
    ]  # fmt: skip
    assert [node.name for node in capacity.site_capacity(a_site(), nodes).nodes] == ["a", "b"]


def test_sites_may_share_a_cluster_by_datacenter_and_pool() -> None:
    nodes = [node_seen(datacenter="dc-east-1", node_pool="gpu")]
    assert capacity.site_capacity(a_site(datacenters=("dc-*",), node_pool="gpu"), nodes).nodes
    assert capacity.site_capacity(a_site(datacenters=("dc-*",), node_pool="all"), nodes).nodes
    assert not capacity.site_capacity(a_site(datacenters=("dc-west-*",), node_pool="gpu"), nodes).nodes


def test_a_site_offers_its_nodes_with_what_others_hold_of_them() -> None:
    nodes = [node_seen(id="1", capacity=a_node("a")), node_seen(id="2", capacity=a_node("b"))]
    mine, free = capacity.site_capacity(a_site(), nodes, {"1": (500, 64, 10)}).nodes
    assert (mine.foreign_cpu_mhz, mine.foreign_memory_mib, mine.foreign_disk_mib) == (500, 64, 10)
    assert (free.foreign_cpu_mhz, free.foreign_memory_mib, free.foreign_disk_mib) == (0, 0, 0)


def test_a_sight_of_a_node_without_its_resources_changes_none() -> None:
    nodes = capacity.known_nodes([node_seen(1, capacity=a_node(cpu_mhz=8000))])
    shown = capacity.with_node(nodes, node_seen(2, status="down", capacity=None))["n1"]
    assert shown.status == "down" and shown.capacity is not None and shown.capacity.cpu_mhz == 8000


def test_an_older_sight_of_a_node_is_nothing() -> None:
    nodes = capacity.known_nodes([node_seen(5)])
    assert capacity.with_node(nodes, node_seen(5, status="down")) is nodes


# -- standing -----------------------------------------------------------------------------------------------------


def standings(*signs: Sign, start: Health | None = None) -> list[str]:
    health, told = start or Health(), []
    for number, sign in enumerate(signs):
        before, health = health, after(health, sign, NOON + timedelta(seconds=number), Hysteresis(3, 2))
        if health.standing is not before.standing:
            told.append(health.standing.value)
    return told


def test_every_sign_is_decided() -> None:
    assert set(TABLE) == {(standing, sign) for standing in Standing for sign in Sign}


@pytest.mark.parametrize(
    ("signs", "told"),
    [
        ("A", ["reachable"]), ("SSS", ["unreachable"]), ("ASSA", ["reachable"]),
        ("ASSSA", ["reachable", "unreachable"]), ("ASSSASAA", ["reachable", "unreachable", "reachable"]),
        ("AUAA", ["reachable", "suspect"]), ("AUAB", ["reachable", "suspect", "reachable"]),
        ("AUSSS", ["reachable", "suspect", "unreachable"]),
    ],
)  # fmt: skip
def test_one_lost_answer_is_no_outage(signs: str, told: list[str]) -> None:
    words = {"A": Sign.ANSWERED, "S": Sign.SILENT, "U": Sign.UNBELIEVABLE, "B": Sign.BELIEVABLE}
    assert standings(*(words[sign] for sign in signs)) == told


def test_an_outage_began_with_the_first_silence() -> None:
    health = Health(Standing.REACHABLE)
    for second in (1, 2, 3):
        health = after(health, Sign.SILENT, NOON + timedelta(seconds=second), Hysteresis(3, 2), "refused")
    assert (health.since, health.error) == (NOON + timedelta(seconds=1), "refused")


# -- keeping ------------------------------------------------------------------------------------------------------


def test_a_tail_knows_its_place_in_the_whole() -> None:
    start, kept = keeping.tail(b"56789", 10, 3)
    assert (start, kept) == (7, b"789")
    assert keeping.cut(start, kept, offset=8) == b"89"
    assert keeping.cut(start, kept, offset=0) == b"789"
    assert keeping.cut(start, kept, offset=99) == b""
    assert keeping.cut(start, kept, last=2) == b"89"
    assert keeping.cut(start, kept, last=0) == b""


def test_fetching_is_tried_ever_more_seldom_and_then_given_up() -> None:
    rules = KeepingRules(first_retry_s=1, most_retry_s=4, give_up_s=10)
    waits = []
    for tries in range(4):
        at = keeping.next_try(Owed("j", 1, "c", "a", "main", (), NOON, tries), NOON, rules)
        assert at is not None
        waits.append((at - NOON).total_seconds())
    assert waits == [1, 2, 4, 4]
    assert keeping.next_try(Owed("j", 1, "c", "a", "main", (), NOON, 9), NOON + timedelta(seconds=7), rules) is None


def test_nothing_is_owed_of_what_never_had_an_allocation() -> None:
    assert keeping.owed_of(living(1), NOON) is None


# -- words --------------------------------------------------------------------------------------------------------


def test_nomads_placement_failure_in_words() -> None:
    assert blocked_because({"g": PlacementFailure(dimension_exhausted={"memory": 2})}).message == (
        "The site has no node with enough memory free now."
    )
    ruled_out = blocked_because({"g": PlacementFailure(constraint_filtered={"missing drivers": 1})})
    assert ruled_out.code is ReasonCode.NO_SITE_FITS and "missing drivers (1)" in ruled_out.message
    assert blocked_because({"g": PlacementFailure()}).code is ReasonCode.NO_SITE_FITS
