"""Verdicts of placement: one row for each reason, and the order of those that fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import placement
from services.scheduler.placement import SiteView
from services.scheduler.records import Avoid, Need
from shared.contracts.reasons import Verdict, VerdictCode
from shared.site import SiteHealth
from tests.builders import a_spec
from tests.unit.scheduler.builders import a_room, a_snapshot, a_view, gpus, later

pytestmark = pytest.mark.fast
V = VerdictCode
TRIED = {"prague": Avoid(V.TRIED_BEFORE, "did not start it", later(60))}
REFUSED = {"prague": Avoid(V.REFUSED_BY_SITE, "no")}


def decide(view: SiteView, spec: dict[str, Any] | None = None, **how: Any) -> Verdict:
    (verdict,) = placement.decide(a_spec(**(spec or {})), a_snapshot(view), **how)
    return verdict


def wants(**resources: Any) -> dict[str, Any]:
    return {"resources": resources}


def wishes(**placement: Any) -> dict[str, Any]:
    return {"placement": placement}


FULL = a_room(cpu_free=500)
SPLIT = (a_room("a", cpu_free=100), a_room("b", memory_free=100))
UNEVEN = (a_room("a", cpu_mhz=500), a_room("b", memory_mib=100))

TABLE: list[tuple[VerdictCode, bool, SiteView, dict[str, Any], dict[str, Any]]] = [
    (V.FITS, False, a_view(), {}, {}),
    (V.VO_NOT_SERVED, False, a_view(site={"vos": ("vo.other",)}), {}, {}),
    (V.SITE_NOT_ALLOWED, False, a_view(), wishes(allow_sites=["lyon"]), {}),
    (V.SITE_NOT_ALLOWED, False, a_view(), wishes(deny_sites=["prague"]), {}),
    (V.COUNTRY_NOT_ALLOWED, False, a_view(), wishes(allow_countries=["FR"]), {}),
    (V.COUNTRY_NOT_ALLOWED, False, a_view(), wishes(deny_countries=["CZ"]), {}),
    (V.POLICY_FORBIDS, False, a_view(), {}, {"forbidden": {"prague": (V.POLICY_FORBIDS, "not you")}}),
    (V.CEILING_REACHED, True, a_view(), {}, {"forbidden": {"prague": (V.CEILING_REACHED, "4 of 4")}}),
    (V.REFUSED_BY_SITE, False, a_view(), {}, {"avoid": REFUSED}),
    (V.NAMESPACE_MISSING, True, a_view(namespaces=frozenset({"default"})), {}, {"namespace": "climate"}),
    (V.DRIVER_MISSING, False, a_view(), {"image": "busybox"}, {}),
    (V.GPU_MISSING, False, a_view(), wants(gpus={"count": 1}), {}),
    (V.GPU_MISSING, False, a_view("prague", a_room(gpus=gpus(2))), wants(gpus={"count": 4}), {}),
    (V.GPU_MODEL_MISSING, False, a_view("prague", a_room(gpus=gpus(2))), wants(gpus={"count": 1, "model": "H100"}), {}),
    (V.CPU_TOO_SMALL, False, a_view(), wants(cpu_cores=5), {}),
    (V.MEMORY_TOO_SMALL, False, a_view(), wants(memory_mib=9000), {}),
    (V.DISK_TOO_SMALL, False, a_view(), wants(disk_mib=30_000), {}),
    (V.NO_ROOM_ON_ONE_NODE, False, a_view("prague", *UNEVEN), {}, {}),
    (V.CORDONED, True, a_view(cordoned="repairs"), {}, {}),
    (V.CORDONED, True, a_view(cordoned=""), {}, {}),
    (V.SITE_UNREACHABLE, True, a_view(reachable=False), {}, {}),
    (V.SITE_UNREACHABLE, True, a_view(site={"health": SiteHealth.UNREACHABLE}), {}, {}),
    (V.SITE_CRITICAL, True, a_view(site={"health": SiteHealth.CRITICAL}), {}, {}),
    (V.SITE_CRITICAL, True, a_view(site={"health": SiteHealth.MISCONFIGURED}), {}, {}),
    (V.SITE_UNREACHABLE, True, a_view(nodes=None, site={"health": SiteHealth.UNREACHABLE, "vos": ()}), {}, {}),
    (V.SITE_CRITICAL, True, a_view(nodes=None, site={"health": SiteHealth.MISCONFIGURED, "vos": ()}), {}, {}),
    (V.FITS, False, a_view(site={"health": SiteHealth.WARNING}), {}, {}),
    (V.SITE_SUSPECT, True, a_view(suspect=True), {}, {}),
    (V.NOT_OBSERVED, True, a_view(nodes=None), {}, {}),
    (V.NOT_OBSERVED, True, a_view(nodes=()), {}, {}),
    (V.TRIED_BEFORE, True, a_view(), {}, {"avoid": TRIED}),
    (V.CPU_BUSY, True, a_view("prague", FULL), {}, {}),
    (V.MEMORY_BUSY, True, a_view("prague", a_room(memory_free=100)), {}, {}),
    (V.DISK_BUSY, True, a_view("prague", a_room(disk_free=100)), {}, {}),
    (V.GPUS_BUSY, True, a_view("prague", a_room(gpus=gpus(2), gpus_free=gpus(0))), wants(gpus={"count": 1}), {}),
    (V.NO_ROOM_ON_ONE_NODE, True, a_view("prague", *SPLIT), {}, {}),
]


@pytest.mark.parametrize(("code", "can_change", "view", "spec", "how"), TABLE, ids=lambda value: str(value)[:24])
def test_each_reason(
    code: VerdictCode, can_change: bool, view: SiteView, spec: dict[str, Any], how: dict[str, Any]
) -> None:
    verdict = decide(view, spec, **how)
    assert (verdict.code, verdict.can_change) == (code, can_change)
    assert verdict.message
    assert (verdict.score is not None) == verdict.fits


def test_every_code_has_its_row() -> None:
    assert {row[0] for row in TABLE} == set(VerdictCode)


def test_what_waiting_cannot_change_is_said_before_what_it_can() -> None:
    assert decide(a_view(reachable=False), wants(cpu_cores=64)).code is V.CPU_TOO_SMALL


def test_numbers_and_advice_go_with_what_is_too_small() -> None:
    verdict = decide(a_view(), wants(cpu_cores=64))
    assert (verdict.asked, verdict.free) == (64_000, 4000)
    assert verdict.advice == "lower resources.cpu"


@pytest.mark.parametrize(
    ("asked", "there", "same"),
    [(None, "nvidia/gpu/A100", True), ("A100", "nvidia/gpu/A100", True), ("nvidia/gpu/A100", "nvidia/gpu/A100", True),
     ("nvidia/gpu", "nvidia/gpu/A100", True), ("A10", "nvidia/gpu/A100", False), ("amd/gpu", "nvidia/gpu/A100", False)],
)  # fmt: skip
def test_a_gpu_model_is_named_as_nomad_names_it_or_by_its_bare_name(asked: str | None, there: str, same: bool) -> None:
    assert placement.is_model(there, asked) is same


def test_a_mock_needs_the_mock_driver() -> None:
    spec = {"metadata": {"serai.mock": "run_for=1s"}}
    assert decide(a_view(), spec).code is V.DRIVER_MISSING
    assert decide(a_view("prague", a_room(drivers=frozenset({"mock_driver"}))), spec).fits


# -- which of those that fit --------------------------------------------------------------------------------------


def order(*views: SiteView, salt: str = "", **spec: Any) -> list[str]:
    return [verdict.site for verdict in placement.decide(a_spec(**spec), a_snapshot(*views), salt=salt)]


def test_the_emptier_site_comes_first() -> None:
    assert order(a_view("full", a_room(cpu_free=1500)), a_view("empty")) == ["empty", "full"]


def test_a_wish_weighs_more_than_room() -> None:
    full, empty = a_view("full", a_room(cpu_free=1500)), a_view("empty")
    assert order(empty, full, placement={"prefer_sites": ["full"]})[0] == "full"
    assert order(empty, a_view("fr", a_room(cpu_free=1500), site={"country": "FR"}),
                 placement={"prefer_countries": ["FR"]})[0] == "fr"  # fmt: skip


def test_the_first_of_two_wishes_comes_first() -> None:
    assert order(a_view("a"), a_view("b"), placement={"prefer_sites": ["b", "a"]}) == ["b", "a"]


def test_cleaner_power_decides_between_equals() -> None:
    coal, wind = a_view("coal", site={"carbon_g_per_kwh": 800}), a_view("wind", site={"carbon_g_per_kwh": 20})
    assert order(coal, wind) == ["wind", "coal"]


def test_those_that_may_fit_later_come_before_the_hopeless() -> None:
    views = a_view("never", site={"vos": ("vo.other",)}), a_view("later", a_room(cpu_free=0)), a_view("now")
    assert order(*views) == ["now", "later", "never"]


def test_one_job_goes_one_way_and_many_jobs_spread() -> None:
    views = [a_view(f"site-{n}") for n in range(4)]
    assert order(*views, salt="x") == order(*reversed(views), salt="x")
    assert len({order(*views, salt=str(n))[0] for n in range(40)}) == 4


# -- room that is taken -------------------------------------------------------------------------------------------


def test_an_attempt_takes_the_node_that_it_fills_best() -> None:
    view = a_view("prague", a_room("big", cpu_mhz=8000), a_room("small", cpu_mhz=2000))
    after = placement.occupied(view, Need(1000, 100, 100))
    assert after.nodes is not None
    assert {node.name: node.cpu_free for node in after.nodes} == {"big": 8000, "small": 1000}
    assert after.attempts == 1


def test_an_attempt_whose_node_is_gone_takes_no_room() -> None:
    after = placement.occupied(a_view(), Need(1000, 100, 100), "another-node")
    assert after.nodes is not None and after.nodes[0].cpu_free == 4000


def test_gpus_are_taken_from_the_model_that_was_asked_for() -> None:
    room = a_room(gpus=(*gpus(2), *gpus(2, "nvidia/gpu/T4")))
    after = placement.occupied(a_view("prague", room), Need(1, 1, 1, 2, "T4"))
    assert after.nodes is not None
    assert [gpu.count for gpu in after.nodes[0].gpus_free] == [2, 0]


@given(st.lists(st.tuples(st.integers(10, 3000), st.integers(16, 6000)), max_size=30))
def test_what_fits_is_never_placed_beyond_what_is_free(asked: list[tuple[int, int]]) -> None:
    snapshot = a_snapshot(a_view("a", a_room("a1"), a_room("a2", cpu_mhz=2500)), a_view("b", a_room("b1")))
    for cpu, memory in asked:
        spec = a_spec(resources={"cpu_cores": cpu / 1000, "memory_mib": memory})
        best = placement.decide(spec, snapshot)[0]
        if best.fits:
            snapshot = snapshot.with_attempt(best.site, placement.need_of(spec, snapshot.sites[best.site].site))
    for view in snapshot.sites.values():
        assert all(node.cpu_free >= 0 and node.memory_free >= 0 for node in view.nodes or ())
