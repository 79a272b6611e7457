"""Image references and rules about them (J9): parts are compared whole, and two rules never allow more than each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import images
from shared.contracts.images import Reference, Rule

pytestmark = pytest.mark.fast
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(("text", "parts"), [
    ("ubuntu", ("docker.io", "library", "ubuntu")), ("ubuntu:24.04", ("docker.io", "library", "ubuntu")),
    ("ai4os/model:latest", ("docker.io", "ai4os", "model")),
    ("docker.io/ubuntu", ("docker.io", "library", "ubuntu")),
    ("registry.example.org/climate/model:1", ("registry.example.org", "climate", "model")),
    ("registry.example.org:5000/m", ("registry.example.org:5000", "m")), ("localhost/m", ("localhost", "m")),
    ("registry:5000/m", ("registry:5000", "m")), (f"ghcr.io/a/b@{DIGEST}", ("ghcr.io", "a", "b")),
    (f"ghcr.io/a/b:tag@{DIGEST}", ("ghcr.io", "a", "b")), ("a.b/c", ("a.b", "c")), ("a/b.c", ("docker.io", "a", "b.c")),
])  # fmt: skip
def test_a_reference_has_a_registry_and_a_repository(text: str, parts: tuple[str, ...]) -> None:
    found = images.parse(text)
    assert found is not None
    assert found.parts == parts


@pytest.mark.parametrize("text", [
    "", "Ubuntu", "registry.example.org/Climate/model", "user:pass@registry.example.org/m",
    "registry.example.org@evil/m",
    "allowed.example@evil.example/m", "https://registry.example.org/m", "registry.example.org//m", "a/../b", "/ubuntu",
    "ubuntu:", "ubuntu@sha256:abc", f"ubuntu@md5:{'a' * 64}", f"ubuntu@sha256:{'A' * 64}", "ubuntu@", "ubuntu:a:b",
    "ubuntu latest", "ubuntu\n", "ubuntu:tag/x", "registry.example.org:port/m", "-a", "a-", "a" * 300, "a..b/c/", "…",
])  # fmt: skip
def test_j9_what_is_no_reference_is_none(text: str) -> None:
    assert images.parse(text) is None


@pytest.mark.parametrize(("rules", "image", "allowed"), [
    (["registry.example.org/climate/*"], "registry.example.org/climate/model", True),
    (["registry.example.org/climate/*"], "registry.example.org/climate/a/b:1", True),
    (["registry.example.org/climate/*"], "registry.example.org/climate", False),
    (["registry.example.org/climate/*"], "registry.example.org/climate-evil/model", False),
    (["registry.example.org/climate/*"], "registry.example.org.evil.io/climate/model", False),
    (["registry.example.org/climate/*"], "registry.example.org:5000/climate/model", False),
    (["registry.example.org/climate/*"], "evil.io/registry.example.org/climate/model", False),
    (["registry.example.org/climate/*"], "xregistry.example.org/climate/model", False),
    (["registry.example.org/climate/model"], "registry.example.org/climate/model:any", True),
    (["registry.example.org/climate/model"], "registry.example.org/climate/model2", False),
    (["docker.io/library/*"], "ubuntu", True), (["docker.io/library/*"], "ai4os/model", False),
    (["docker.io/*"], "ai4os/model", True), (["docker.io/ai4os/*"], "ai4os/model", True),
    (["ghcr.io/a/*@"], f"ghcr.io/a/b@{DIGEST}", True), (["ghcr.io/a/*@"], "ghcr.io/a/b:latest", False),
    (["ghcr.io/a/*@"], f"ghcr.io/a/b:latest@{DIGEST}", True), ([], "ubuntu", False),
    (["ghcr.io/a/*@", "ghcr.io/a/b"], "ghcr.io/a/b:1", True),
])  # fmt: skip
def test_j9_a_rule_reaches_whole_parts_only(rules: list[str], image: str, allowed: bool) -> None:
    reference = images.parse(image)
    assert reference is not None
    assert images.allowed(reference, [images.rule(text) for text in rules]) is allowed


@pytest.mark.parametrize("text", [
    "", "*", "/*", "registry.example.org", "registry.example.org/", "registry/*", "registry.example.org/*/model",
    "registry.example.org/Climate/*", "https://registry.example.org/*", "registry.example.org/climate/**",
    "registry.example.org/climate*", "registry.example.org/m:tag", "registry.example.org/../*", "a.b/c\n",
])  # fmt: skip
def test_what_is_no_rule_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"rule for images|registry alone"):
        images.rule(text)


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "a-b"]), min_size=0, max_size=3).map(
    lambda more: ("r.example", *more)
)


@st.composite
def some_rule(draw: st.DrawFn) -> Rule:
    parts = draw(PARTS)
    below = True if len(parts) == 1 else draw(st.booleans())
    return Rule(parts, below, draw(st.booleans()))


@given(some_rule(), some_rule(), PARTS.filter(lambda parts: len(parts) > 1), st.sampled_from(["", DIGEST]))
def test_two_rules_together_allow_exactly_what_each_of_them_allows(
    one: Rule, other: Rule, parts: tuple[str, ...], digest: str
) -> None:
    reference = Reference(parts, "", digest)
    together = images.both(one, other)
    separately = images.allowed(reference, [one]) and images.allowed(reference, [other])
    assert images.allowed(reference, [together] if together else []) is bool(separately)


@given(some_rule())
def test_a_rule_reads_as_it_is_written(rule: Rule) -> None:
    assert images.rule(str(rule)) == rule


@given(st.text(alphabet="ab./:@-_*A0 ", max_size=40))
def test_no_text_breaks_the_parser_and_parts_are_clean(text: str) -> None:
    found = images.parse(text)
    if found is not None:
        assert all(part and ".." not in part.split("/") and "/" not in part for part in found.parts)
