"""References to container images, and rules about which may be used. Pure.

A reference is taken apart as the distribution specification does it (registry, repository, tag, digest); a rule names
a registry and a repository, with `/*` at its end for everything below it and `@` for "by digest only". Rules are
compared part by part, so `allowed.example` never matches `allowed.example.evil` and `team` never `team-evil`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_NAMESPACE: Final = "library"
_REGISTRY: Final = (
    r"(?:localhost|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+)(?::[0-9]{1,5})?"
)
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?:(?P<registry>{_REGISTRY}|[a-z0-9-]+:[0-9]{{1,5}})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)  # fmt: skip
_RULE: Final = re.compile(rf"(?P<registry>{_REGISTRY})(?P<path>(?:/{_PART})*)(?P<below>/\*)?(?P<digest>@)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: `parts` are registry and the components of its repository."""

    parts: tuple[str, ...]
    tag: str
    digest: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Images at `parts`, or, with `below`, anywhere under them; `by_digest`: only if named by their digest."""

    parts: tuple[str, ...]
    below: bool
    by_digest: bool

    def reaches(self, parts: tuple[str, ...]) -> bool:
        """Whether this repository is one of the rule's."""
        if not self.below:
            return parts == self.parts
        return len(parts) > len(self.parts) and parts[: len(self.parts)] == self.parts

    def __str__(self) -> str:
        return "/".join(self.parts) + ("/*" if self.below else "") + ("@" if self.by_digest else "")


def parse(text: str) -> Reference | None:
    """The parts of an image reference; None for what is none (upper case, credentials, a digest of another kind)."""
    found = _REFERENCE.fullmatch(text)
    if found is None or len(text) > 255:
        return None
    registry, path = found["registry"] or DEFAULT_REGISTRY, found["path"].split("/")
    if registry == DEFAULT_REGISTRY and len(path) == 1:
        path = [DEFAULT_NAMESPACE, *path]
    return Reference((registry, *path), found["tag"] or "", found["digest"] or "")


def rule(text: str) -> Rule:
    """A rule as people write it: `registry.example/climate/*`, `docker.io/library/python@`. Raises ValueError."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:80]!r} is no rule for images: write registry/repository, `/*` for all below it, `@` for by digest"
        )
    path = [part for part in found["path"].split("/") if part]
    if not path and not found["below"]:
        raise ValueError(f"{text[:80]!r} names a registry alone: write {text[:80]}/* for everything there")
    return Rule((found["registry"], *path), found["below"] is not None, found["digest"] is not None)


def both(one: Rule, other: Rule) -> Rule | None:
    """The rule for images that both rules allow; None when there are none."""
    by_digest = one.by_digest or other.by_digest
    for narrow, wide in ((one, other), (other, one)):
        same = narrow.parts == wide.parts and narrow.below == wide.below
        inside = wide.below and len(narrow.parts) > len(wide.parts) and narrow.parts[: len(wide.parts)] == wide.parts
        if same or inside:
            return Rule(narrow.parts, narrow.below, by_digest)
    return None


def allowed(reference: Reference, rules: Iterable[Rule]) -> bool:
    """Whether one of the rules allows the image."""
    return any(each.reaches(reference.parts) and (reference.digest or not each.by_digest) for each in rules)


def needs_digest(reference: Reference, rules: Iterable[Rule]) -> bool:
    """Whether the image would be allowed if it were named by its digest."""
    return any(each.reaches(reference.parts) for each in rules)
