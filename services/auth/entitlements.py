"""Entitlements (AARC-G069, formerly G002) to memberships. Pure, strict, and bounded by what the issuer may assert.

`urn:geant:example.org:group:vo.climate.example:role=manager#aai.example.org` names a namespace, a group, a role and
the authority that speaks. What is not spelled exactly so, or comes from a namespace, authority or VO that the issuer
was not given, is no membership: it is left out, never guessed. Called by `claims.py`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.auth.permissions import PlatformRole, Role, stronger

MOST_CHARACTERS: Final = 512
_SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")
_REGISTRARS: Final = ("mace", "geant")


class Entitlement(NamedTuple):
    """One well-formed group entitlement; `role` is empty when it names none."""

    namespace: str
    authority: str
    group: str
    sub_groups: tuple[str, ...]
    role: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What one issuer may say. Everything else that it says is ignored.

    `speakers`: (namespace, authority) pairs. `vos`: the VOs it may assert. `roles`: its role word to ours ("" = a
    group without role). `platform_group`: whose roles are platform roles, by `platform_roles`. `sub_groups_imply`:
    membership of a sub-group, without its role, is membership of the VO (AARC says yes, WLCG says no).
    """

    speakers: frozenset[tuple[str, str]]
    vos: frozenset[str]
    roles: Mapping[str, Role]
    platform_group: str | None = None
    platform_roles: Mapping[str, PlatformRole] = field(default_factory=dict)
    sub_groups_imply: bool = False


class Held(NamedTuple):
    """What is left of a token's entitlements: the strongest role in each VO, and platform roles."""

    memberships: dict[str, Role]
    platform_roles: frozenset[PlatformRole]


def parse(text: str) -> Entitlement | None:
    """The parts of a group entitlement, None when it is anything else.

    ASCII, at most 512 characters, one `#`, lower-case segments, at most one `role=` and that last; nothing is
    percent-decoded or case-folded.
    """
    if len(text) > MOST_CHARACTERS or text.count("#") != 1:
        return None
    name, authority = text.split("#")
    segments = name.split(":")
    if segments[0] != "urn" or len(segments) < 5 or segments[1] not in _REGISTRARS or "group" not in segments[3:]:
        return None
    at = segments.index("group", 3)
    groups, role = _role(segments[at + 1 :])
    if not groups or not all(_SEGMENT.fullmatch(each) for each in (*segments[1:at], *groups, authority)):
        return None
    if role is None:
        return None
    return Entitlement(":".join(segments[:at]), authority, groups[0], tuple(groups[1:]), role)


def _role(segments: list[str]) -> tuple[list[str], str | None]:
    """Groups and role: "" when there is no role, None when it is spelled wrongly."""
    if not segments or not segments[-1].startswith("role="):
        return segments, ""
    role = segments[-1].removeprefix("role=")
    return segments[:-1], role if _SEGMENT.fullmatch(role) else None


def held(values: Iterable[object], trust: Trust) -> Held:
    """Memberships and platform roles behind the values of an entitlement claim, as far as the issuer is trusted."""
    memberships: dict[str, Role] = {}
    platform_roles: set[PlatformRole] = set()
    for value in values:
        entitlement = parse(value) if isinstance(value, str) else None
        if entitlement is None or (entitlement.namespace, entitlement.authority) not in trust.speakers:
            continue
        if entitlement.group == trust.platform_group:
            platform_roles |= _platform_role(entitlement, trust)
        elif entitlement.group in trust.vos:
            role = _vo_role(entitlement, trust)
            if role is not None:
                memberships[entitlement.group] = stronger(role, memberships.get(entitlement.group))
    return Held(memberships, frozenset(platform_roles))


def _vo_role(entitlement: Entitlement, trust: Trust) -> Role | None:
    """A role in a sub-group is no role in the VO; at most it shows that one is in the VO."""
    if not entitlement.sub_groups:
        return trust.roles.get(entitlement.role)
    return trust.roles.get("") if trust.sub_groups_imply else None


def _platform_role(entitlement: Entitlement, trust: Trust) -> set[PlatformRole]:
    role = trust.platform_roles.get(entitlement.role)
    return {role} if role is not None and not entitlement.sub_groups else set()
