"""Plain groups and roles to memberships: WLCG and IAM groups, Keycloak's realm roles. Pure; beside `entitlements.py`.

A group means what the issuer's settings say it means, character by character: membership of `/climate/models` is not
membership of `/climate` (WLCG profile, section on groups), and a name that only begins alike is another group.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from services.auth.permissions import PlatformRole, Role, stronger

MOST_VALUES: Final = 2_000
"""A claim with more values than this is somebody's mistake or attack: it says nothing at all."""


class Meaning(NamedTuple):
    """What one group means: a role in a VO, or a platform role."""

    vo: str | None
    role: Role | None
    platform_role: PlatformRole | None


def values_of(claims: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The strings of the first of these claims that is there; anything but a list of bounded length is nothing."""
    for name in names:
        if name in claims:
            value = claims[name]
            usable = isinstance(value, list) and len(value) <= MOST_VALUES
            return [each for each in value if isinstance(each, str)] if usable else []
    return []


def realm_roles(claims: Mapping[str, Any]) -> list[str]:
    """Keycloak's realm roles (`realm_access.roles`)."""
    access = claims.get("realm_access")
    return values_of(access, ("roles",)) if isinstance(access, dict) else []


def meanings(groups: Iterable[str], rules: Mapping[str, tuple[Meaning, ...]]) -> list[Meaning]:
    """What these groups mean; one that no rule names means nothing."""
    return [meaning for group in groups for meaning in rules.get(group, ())]


def roles_by_format(
    names: Iterable[str], format: str, words: Mapping[str, Role], vos: frozenset[str]
) -> dict[str, Role]:
    """Roles spelled as `format` says (e.g. `access:{vo}:{role}`), in the VOs that the issuer may assert."""
    found: dict[str, Role] = {}
    if not format:
        return found
    for name in names:
        spelled = _pattern(format).fullmatch(name)
        role = words.get(spelled["role"]) if spelled else None
        if spelled is not None and role is not None and spelled["vo"] in vos:
            found[spelled["vo"]] = stronger(role, found.get(spelled["vo"]))
    return found


@lru_cache(maxsize=64)
def _pattern(format: str) -> re.Pattern[str]:
    """Neither a VO nor a role word can contain what separates them."""
    text = re.escape(format)
    text = text.replace(r"\{vo\}", r"(?P<vo>[A-Za-z0-9._-]{1,255})", 1)
    return re.compile(text.replace(r"\{role\}", r"(?P<role>[A-Za-z0-9._-]{1,64})", 1))
