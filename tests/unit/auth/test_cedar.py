"""A second statement of the permission table, in Cedar, decides the whole space as the first one does.

Two people who state the same table in two languages rarely make the same mistake. Cedar is used here only.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from services.auth import permissions
from services.auth.permissions import SPLIT, PlatformRole, Role, Verb

cedarpy = pytest.importorskip("cedarpy", reason="the Cedar oracle needs the package cedarpy (extra `dev`)")

pytestmark = pytest.mark.fast
POLICIES = (Path(__file__).parent / "permissions.cedar").read_text()
HALVES = {str(half) for halves in SPLIT.values() for half in halves}
VERBS = sorted({str(verb) for verb in Verb} - HALVES | set(SPLIT))
PLATFORM = [frozenset[PlatformRole](), *(frozenset({role}) for role in PlatformRole), frozenset(PlatformRole)]
ROLES: list[Role | None] = [None, *Role]
HERE, ELSEWHERE = "vo.climate.example", "vo.bio.example"


def space() -> list[tuple[str, Role | None, Role | None, frozenset[PlatformRole], bool]]:
    """(verb, role in the VO, role in another VO, platform roles, own): every one there is."""
    return list(product(VERBS, ROLES, ROLES, PLATFORM, (True, False)))


def request(verb: str, role: Role | None, platform: frozenset[PlatformRole], own: bool) -> dict[str, Any]:
    return {
        "principal": 'User::"somebody"', "action": f'Action::"{verb}"', "resource": 'Thing::"it"',
        "context": {"role": str(role or ""), "platform": sorted(map(str, platform)), "own": own},
    }  # fmt: skip


def test_both_statements_agree_over_the_whole_space() -> None:
    cells = space()
    assert len(cells) == len(VERBS) * 5 * 5 * 4 * 2
    questions = sorted({(verb, str(role or ""), platform, own) for verb, role, _, platform, own in cells}, key=str)
    asked = [request(verb, Role(role) if role else None, platform, own) for verb, role, platform, own in questions]
    answers = cedarpy.is_authorized_batch(asked, POLICIES, [])
    assert not any(answer.diagnostics.errors for answer in answers)
    oracle = dict(zip(questions, (answer.allowed for answer in answers), strict=True))
    for verb, role, other, platform, own in cells:
        memberships = {vo: each for vo, each in ((HERE, role), (ELSEWHERE, other)) if each is not None}
        decided = permissions.decide(memberships, platform, verb, HERE, own=own).allowed
        assert decided is oracle[verb, str(role or ""), platform, own], (verb, role, other, platform, own)


def test_the_oracle_can_say_no_and_yes() -> None:
    """A check of the check: each verb is allowed to somebody and denied to somebody."""
    for verb in VERBS:
        said = {
            cedarpy.is_authorized(request(verb, role, platform, True), POLICIES, []).allowed
            for role, platform in product(ROLES, PLATFORM)
        }
        assert said == {True, False}, verb


def test_the_oracle_names_every_verb() -> None:
    assert [verb for verb in VERBS if f'Action::"{verb}"' not in POLICIES] == []
