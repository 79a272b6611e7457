"""Policies only ever take away: the property behind platform, VO and site, and the words for who asked too much."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import policies as documents
from services.auth.policies import Layers
from shared.contracts import policies
from shared.contracts.policies import Ceiling, Demand, Policy, demand_of, effective, meet, objections
from shared.errors import Refused
from tests.builders import a_spec
from tests.examples import examples

pytestmark = pytest.mark.fast
DIGEST = f"sha256:{'0' * 64}"
JOB = Demand(
    cpu_cores=4, memory_mib=1024, disk_mib=100, gpus=0, image=None, access=(), max_runtime_s=3600, max_wait_s=600
)  # fmt: skip

SITES, DRIVERS = ("prague", "lyon", "bari"), ("docker", "exec", "raw_exec", "mock_driver")
RULES = ("r.example/a/*", "r.example/a/b", "r.example/*", "r.example/a/b@", "other.example/*@")
IMAGES = (
    None,
    "r.example/a/b",
    "r.example/a/c:1",
    f"r.example/a/b@{DIGEST}",
    f"other.example/x@{DIGEST}",
    "ubuntu",
    "Bad",
)


def some(values: Any) -> Any:
    return st.none() | st.frozensets(st.sampled_from(values))


AMOUNT = st.none() | st.sampled_from([0.0, 1.0, 4.0, 100.0, 1e6])
CEILING = st.builds(Ceiling, cpu_cores=AMOUNT, memory_mib=AMOUNT, disk_mib=AMOUNT, gpus=AMOUNT,
                    jobs=st.none() | st.integers(0, 9))  # fmt: skip
POLICY = st.builds(
    Policy, sites=some(SITES), images=some(RULES), drivers=some(DRIVERS), networks=some(("host", "bridge")),
    access=some(("private", "vo", "public")), job=CEILING, user=CEILING, vo=CEILING, max_runtime_s=AMOUNT,
    max_wait_s=AMOUNT, assurance=st.frozensets(st.sampled_from(["low", "medium"])),
    on_suspension=st.sampled_from(["let_run", "stop"]),
)  # fmt: skip
DEMAND = st.builds(
    Demand,
    cpu_cores=st.sampled_from([0.5, 4, 64]),
    memory_mib=st.sampled_from([16, 100]),
    disk_mib=st.just(10),
    gpus=st.integers(0, 2),
    image=st.sampled_from(IMAGES),
    access=st.sampled_from([(), ("private",), ("private", "public")]),
    max_runtime_s=st.sampled_from([1.0, 1000.0]),
    max_wait_s=st.just(1.0),
)


def passes(demand: Demand, site: str, hardware: tuple[str, ...], assurance: frozenset[str], policy: Policy) -> bool:
    return (
        not objections(demand, policy, "x") and policies.site_objection(site, policy, "x") is None
        and policies.driver_objection(demand, hardware, policy, "x") is None and policy.assurance <= assurance
    )  # fmt: skip


@examples(200)
@given(POLICY, POLICY, POLICY, DEMAND, st.sampled_from(SITES), st.sampled_from([(), ("exec",), ("raw_exec",)]),
       st.frozensets(st.sampled_from(["low", "medium"])))  # fmt: skip
def test_what_all_allow_together_is_allowed_by_each_alone(
    platform: Policy, vo: Policy, site: Policy, demand: Demand, at: str, hardware: tuple[str, ...],
    assurance: frozenset[str],
) -> None:  # fmt: skip
    """A VO can never widen: whatever it writes, nothing passes that the platform or the site refuses."""
    layers = (platform, vo, site)
    if passes(demand, at, hardware, assurance, effective(layers)):
        assert all(passes(demand, at, hardware, assurance, layer) for layer in layers)


@examples(200)
@given(POLICY, POLICY, DEMAND, st.sampled_from(SITES), st.frozensets(st.sampled_from(["low", "medium"])))
def test_and_nothing_else_is_taken_away(
    one: Policy, other: Policy, demand: Demand, at: str, assurance: frozenset[str]
) -> None:
    """But for the two command drivers: a job may need one, and each layer may leave another."""
    alone = all(passes(demand, at, ("exec",), assurance, layer) for layer in (one, other))
    assert passes(demand, at, ("exec",), assurance, meet(one, other)) is alone


@given(POLICY, POLICY, POLICY)
def test_the_order_of_layers_does_not_matter(one: Policy, two: Policy, three: Policy) -> None:
    figures = {"job", "user", "vo", "max_runtime_s", "max_wait_s", "sites", "drivers", "assurance", "on_suspension"}
    left, right = meet(meet(one, two), three), meet(three, meet(two, one))
    assert left.model_dump(include=figures) == right.model_dump(include=figures)
    assert meet(one, one).model_dump(exclude={"images"}) == one.model_dump(exclude={"images"})
    assert meet(one, Policy()) == one


# -- one job against one policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "policy", "code"),
    [
        ({"cpu_cores": 4}, {"job": {"cpu_cores": 4}}, None),
        ({"cpu_cores": 4.01}, {"job": {"cpu_cores": 4}}, "cpu_above_ceiling"),
        ({"memory_mib": 1025}, {"job": {"memory_mib": 1024}}, "memory_above_ceiling"),
        ({"disk_mib": 101}, {"job": {"disk_mib": 100}}, "disk_above_ceiling"),
        ({"gpus": 1}, {"job": {"gpus": 0}}, "gpus_above_ceiling"),
        ({"gpus": 0}, {"job": {"gpus": 0}}, None),
        ({"max_runtime_s": 3601}, {"max_runtime_s": 3600}, "runtime_above_ceiling"),
        ({"max_wait_s": 601}, {"max_wait_s": 600}, "wait_above_ceiling"),
        ({}, {"drivers": ["docker"]}, "driver_not_allowed"),
        ({"image": "ubuntu"}, {"drivers": ["exec", "raw_exec"]}, "driver_not_allowed"),
        ({}, {"drivers": ["exec"]}, None),
        ({}, {"drivers": []}, "driver_not_allowed"),
        ({}, {"networks": ["bridge"]}, "network_not_allowed"),
        ({"image": "ubuntu"}, {"networks": ["bridge"]}, None),
        ({"access": ["public"]}, {"access": ["private", "vo"]}, "access_not_allowed"),
        ({"access": ["vo"]}, {"access": ["private", "vo"]}, None),
        ({}, {"access": []}, None),
        ({}, {"images": []}, None),
        ({"image": "ubuntu"}, {"images": []}, "image_not_allowed"),
        ({"image": "Ubuntu"}, {"images": ["docker.io/*"]}, "image_invalid"),
        ({"image": "ubuntu"}, {"images": ["docker.io/library/*@"]}, "image_needs_digest"),
        ({"image": f"ubuntu@{DIGEST}"}, {"images": ["docker.io/library/*@"]}, None),
        ({"cpu_cores": float("nan")}, {"job": {"cpu_cores": 4}}, "cpu_above_ceiling"),
    ],
)
def test_j3_j9_j11_what_a_policy_has_against_a_job(
    changed: dict[str, Any], policy: dict[str, Any], code: str | None
) -> None:
    demand = JOB.model_copy(update={name: tuple(v) if isinstance(v, list) else v for name, v in changed.items()})
    found = objections(demand, Policy.model_validate(policy), "the VO vo.x")
    assert [each.code for each in found] == ([code] if code else [])
    assert all(each.message.startswith("the VO vo.x ") or each.code == "image_invalid" for each in found)


@pytest.mark.parametrize(("image", "hardware", "drivers", "fine"), [
    (None, ("exec",), ["exec"], True), (None, ("raw_exec",), ["exec"], False), (None, (), ["exec"], False),
    (None, (), ["exec", "raw_exec"], True), ("ubuntu", (), ["docker"], True), ("ubuntu", ("exec",), ["exec"], False),
    (None, ("mock",), ["exec", "raw_exec"], False), (None, ("exec", "raw_exec"), ["exec"], True),
])  # fmt: skip
def test_j3_the_driver_that_a_site_would_use_must_be_allowed(
    image: str | None, hardware: tuple[str, ...], drivers: list[str], fine: bool
) -> None:
    policy = Policy.model_validate({"drivers": drivers})
    objection = policies.driver_objection(JOB.model_copy(update={"image": image}), hardware, policy, "x")
    assert (objection is None) is fine
    assert policies.driver_objection(JOB, hardware, Policy(), "x") is None


def test_what_a_job_asks_for_is_read_from_the_job() -> None:
    spec = a_spec(kind="service", image="r.example/a/b", resources={"cpu_cores": 2, "gpus": {"count": 3}}, endpoints=[
        {"name": "a", "access": "public"}, {"name": "b", "access": "private"}, {"name": "c", "access": "public"},
    ])  # fmt: skip
    demand = demand_of(spec)
    assert (demand.cpu_cores, demand.gpus, demand.image, demand.access) == (
        2,
        3,
        "r.example/a/b",
        ("private", "public"),
    )
    assert demand.digest() != demand_of(a_spec()).digest()
    assert demand_of(a_spec(env={"A": "b"})).digest() == demand_of(a_spec()).digest()


def test_every_figure_and_set_of_a_policy_is_looked_at() -> None:
    """Whoever adds a field to Policy or Ceiling must say here what it is for."""
    assert set(Policy.model_fields) == {
        "sites",
        "images",
        "drivers",
        "networks",
        "access",
        "job",
        "user",
        "vo",
        "max_runtime_s",
        "max_wait_s",
        "assurance",
        "on_suspension",
    }
    assert set(Ceiling.model_fields) == {"cpu_cores", "memory_mib", "disk_mib", "gpus", "jobs"}


# -- documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "", "[]", "{", '{"more":1}', '{"job":{"more":1}}', '{"job":{"cpu_cores":-1}}', '{"job":{"cpu_cores":"many"}}',
    '{"job":{"cpu_cores":1e999}}', '{"job":{"cpu_cores":NaN}}', '{"sites":["Prague"]}', '{"drivers":["qemu"]}',
    '{"images":["*"]}', '{"images":"docker.io/*"}', '{"networks":["none"]}', '{"on_suspension":"kill"}',
    '{"assurance":[""]}', '{"job":{"jobs":-1}}',
])  # fmt: skip
def test_a_document_that_is_not_one_is_refused_with_its_places(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        documents.read(text.encode())
    assert refusal.value.code == "invalid_request"
    assert refusal.value.details["errors"]


def test_a_huge_document_is_not_read() -> None:
    with pytest.raises(Refused, match="at most"):
        documents.read(b"{" + b" " * 70_000 + b"}")


def test_the_same_policy_has_the_same_hash_however_it_is_written() -> None:
    one = documents.read(b'{"sites": ["prague", "lyon"], "job": {"cpu_cores": 4}}')
    other = documents.read(b'{"job":{"cpu_cores":4.0,"gpus":null},"sites":["lyon","prague","lyon"]}')
    assert documents.hash_of(one) == documents.hash_of(other)
    assert documents.hash_of(one) != documents.hash_of(Policy())


def test_a_difference_names_each_place() -> None:
    before = documents.read(b'{"sites":["lyon"],"job":{"cpu_cores":4,"gpus":1}}')
    after = documents.read(b'{"job":{"cpu_cores":8,"gpus":1},"max_runtime_s":60}')
    found = {each.pointer: (each.before, each.after) for each in documents.differences(before, after)}
    assert found == {"/job/cpu_cores": (4.0, 8.0), "/max_runtime_s": (None, 60.0), "/sites": (["lyon"], None)}
    assert documents.differences(before, before) == []


def test_what_the_platform_does_not_give_has_no_effect_and_that_is_said() -> None:
    platform = Policy.model_validate({"job": {"cpu_cores": 4}, "sites": ["prague"], "images": ["r.example/*"]})
    asked = Policy.model_validate(
        {"job": {"cpu_cores": 8, "gpus": 1}, "sites": ["prague"], "images": ["ubuntu.example/*"]}
    )
    assert documents.without_effect(asked, platform) == ["/images", "/job/cpu_cores"]


def test_layers_of_a_site_that_nobody_wrote_about_are_two() -> None:
    layers = Layers(Policy(), {"prague": Policy(max_runtime_s=1)})
    for site, count in ((None, 2), ("lyon", 2), ("prague", 3)):
        assert len(layers.of(Policy(), site)) == count
    assert layers.together(Policy(max_runtime_s=5), "prague").max_runtime_s == 1


@pytest.mark.parametrize(("one", "other"), list(product([None, 0.0, 1.0, 7.5], repeat=2)))
def test_a_ceiling_joined_with_another_is_the_lower_one(one: float | None, other: float | None) -> None:
    joined = meet(Policy(job=Ceiling(gpus=one)), Policy(job=Ceiling(gpus=other))).job.gpus
    assert joined == min((each for each in (one, other) if each is not None), default=None)
