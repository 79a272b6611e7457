"""Policies as VOs write them and as they are applied: versions, differences, and what has no effect. Pure.

Three layers: the platform's ceiling (settings), the VO's document (written by its managers), the site's rules
(settings). What counts is their intersection (`shared/contracts/policies.py`). Called by `deciding.py` and the routes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError

from shared.contracts.policies import Policy, effective, meet
from shared.contracts.suspensions import Stops
from shared.errors import Refused

NONE: Final = Policy()
MOST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """One version of a VO's document. Versions count from 1; 0 is the empty document that nobody wrote."""

    vo: str
    version: int
    policy: Policy
    hash: str
    written_by: str = ""
    written_at: datetime | None = None

    @property
    def etag(self) -> str:
        """Changes with every version (RFC 9110, 8.8.3)."""
        return f'"{self.version}-{self.hash[:16]}"'

    @property
    def label(self) -> str:
        """What grants and decisions name."""
        return f"{self.version}-{self.hash[:8]}"


@dataclass(frozen=True, slots=True)
class Layers:
    """The platform's and the sites' rules; the VOs' come from the store."""

    platform: Policy = NONE
    sites: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, vo: Policy, site: str | None) -> list[tuple[str, Policy]]:
        """The layers that apply, each with its name in a sentence (`the VO` stands for its name)."""
        found = [("the platform", self.platform), ("the VO", vo)]
        if site is not None and site in self.sites:
            found.append((f"the site {site}", self.sites[site]))
        return found

    def together(self, vo: Policy, site: str | None) -> Policy:
        """What all of them allow."""
        return effective(policy for _, policy in self.of(vo, site))

    def stops(self, stored: Mapping[str, StoredPolicy]) -> Stops:
        """Where running jobs of the suspended are stopped."""
        return Stops(
            everywhere=self.platform.on_suspension == "stop",
            vos=frozenset(vo for vo, each in stored.items() if each.policy.on_suspension == "stop"),
            sites=frozenset(site for site, policy in self.sites.items() if policy.on_suspension == "stop"),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two documents differ (a JSON pointer)."""

    pointer: str
    before: Any
    after: Any


def nobody_wrote(vo: str) -> StoredPolicy:
    """The policy of a VO without a document: no restriction beside the platform's and the sites'."""
    return StoredPolicy(vo, 0, NONE, _HASH_OF_NONE)


def read(raw: bytes) -> Policy:
    """A document as it was sent. Raises Refused (`invalid_request`), naming each place and what is accepted there."""
    if len(raw) > MOST_BYTES:
        raise Refused(f"a policy has at most {MOST_BYTES} bytes", code="too_large")
    try:
        return Policy.model_validate_json(raw)
    except ValidationError as error:
        errors = [
            {"pointer": "/" + "/".join(map(str, item["loc"])), "detail": item["msg"]} for item in error.errors()[:20]
        ]
        words = "; ".join(f"{each['pointer']}: {each['detail']}" for each in errors)
        raise Refused(
            f"the policy is not valid: {words}"[:1_000], code="invalid_request", details={"errors": errors}
        ) from error


def plain(policy: Policy) -> dict[str, Any]:
    """The document as people read it: only what restricts, lists in order."""
    shown = policy.model_dump(mode="json", exclude_defaults=True)
    return {name: sorted(value) if isinstance(value, list) else value for name, value in sorted(shown.items())}


def canonical(policy: Policy) -> str:
    """The same text for the same policy."""
    return orjson.dumps(plain(policy), option=orjson.OPT_SORT_KEYS).decode()


def hash_of(policy: Policy) -> str:
    """SHA-256 (hex) of the canonical text."""
    return hashlib.sha256(canonical(policy).encode()).hexdigest()


_HASH_OF_NONE: Final = hash_of(NONE)


def differences(before: Policy, after: Policy) -> list[Difference]:
    """Every place in which they differ, in order."""
    one, other = _flat(plain(before)), _flat(plain(after))
    return [
        Difference(pointer, one.get(pointer), other.get(pointer))
        for pointer in sorted(one.keys() | other.keys())
        if one.get(pointer) != other.get(pointer)
    ]


def without_effect(policy: Policy, platform: Policy) -> list[str]:
    """The places where a document allows more than the platform: there the platform's word counts."""
    asked, given = _flat(plain(policy)), _flat(plain(meet(policy, platform)))
    return [pointer for pointer, value in asked.items() if given.get(pointer) != value]


def _flat(value: Any, pointer: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {pointer: value}
    return {at: each for name, inner in value.items() for at, each in _flat(inner, f"{pointer}/{name}").items()}


def by_vo(stored: Iterable[StoredPolicy]) -> dict[str, StoredPolicy]:
    """The newest of each VO."""
    found: dict[str, StoredPolicy] = {}
    for each in stored:
        if each.vo not in found or found[each.vo].version < each.version:
            found[each.vo] = each
    return found
