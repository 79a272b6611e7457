"""Entitlements: what is spelled exactly right and comes from who may say it, and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.entitlements import Entitlement, Trust, held, parse
from services.auth.permissions import PlatformRole, Role

pytestmark = pytest.mark.fast

TRUST = Trust(
    speakers=frozenset({("urn:mace:egi.eu", "aai.egi.eu")}),
    vos=frozenset({"vo.climate.example", "vo.bio.example"}),
    roles={"member": Role.MEMBER, "vm_operator": Role.MEMBER, "manager": Role.MANAGER, "observer": Role.OBSERVER},
    platform_group="serai-platform",
    platform_roles={"site-operator": PlatformRole.SITE_OPERATOR},
)
GOOD = "urn:mace:egi.eu:group:vo.climate.example:role=member#aai.egi.eu"


def test_a_good_one_has_all_its_parts() -> None:
    expected = Entitlement("urn:mace:egi.eu", "aai.egi.eu", "vo.climate.example", (), "member")
    assert parse(GOOD) == expected
    assert held([GOOD], TRUST).memberships == {"vo.climate.example": Role.MEMBER}


def test_a_group_named_group_stays_a_sub_group_of_its_vo() -> None:
    found = parse("urn:mace:egi.eu:group:vo.a.example:group:vo.bio.example:role=manager#aai.egi.eu")
    assert found is not None
    assert (found.group, found.sub_groups) == ("vo.a.example", ("group", "vo.bio.example"))


@pytest.mark.parametrize("text", [
    "urn:mace:egi.eu:group:vo.climate.example:role=member#evil.example",
    "urn:mace:egi.eu:group:vo.climate.example:role=member",
    "urn:mace:egi.eu:group:vo.climate.example:role=member#",
    "urn:mace:egi.eu:group:vo.climate.example:role=member#aai.egi.eu#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:role=observer:role=manager#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:role=manager\n#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:role=manager#aai.egi.eu\n",
    "URN:MACE:EGI.EU:group:vo.climate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu.evil.org:group:vo.climate.example:role=member#aai.egi.eu",
    "urn:mace:evil.org:egi.eu:group:vo.climate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:vo%2eclimate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group::role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:VO.climate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example.evil:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:xvo.climate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:role=#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:role=root#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.example:sub:role=manager#aai.egi.eu",
    "urn:mace:egi.eu:group:other:vo.climate.example:role=member#aai.egi.eu",
    "urn:mace:group:vo.climate.example:role=member#aai.egi.eu",
    "urn:oid:egi.eu:group:vo.climate.example:role=member#aai.egi.eu",
    "urn:mace:egi.eu:res:vo.climate.example:act:member#aai.egi.eu",
    "urn:mace:egi.eu:group:vo.climate.exampl\u0435:role=member#aai.egi.eu",
    " " + GOOD,
    GOOD.replace("vo.climate.example", "a" * 600),
    "",
])  # fmt: skip
def test_everything_else_is_no_membership(text: str) -> None:
    assert held([text], TRUST).memberships == {}


def test_a_vo_that_the_issuer_was_not_given_is_ignored() -> None:
    assert held(["urn:mace:egi.eu:group:vo.other.example:role=manager#aai.egi.eu"], TRUST).memberships == {}


def test_the_strongest_role_counts_in_any_order() -> None:
    manager = GOOD.replace("role=member", "role=manager")
    assert held([GOOD, manager], TRUST) == held([manager, GOOD], TRUST)
    assert held([GOOD, manager], TRUST).memberships["vo.climate.example"] is Role.MANAGER


def test_a_sub_group_is_the_vo_only_where_the_issuer_means_it_so_and_its_role_never_is() -> None:
    sub = "urn:mace:egi.eu:group:vo.climate.example:models:role=manager#aai.egi.eu"
    by_aarc = replace(TRUST, sub_groups_imply=True, roles={**TRUST.roles, "": Role.OBSERVER})
    assert held([sub], TRUST).memberships == {}
    assert held([sub], by_aarc).memberships == {"vo.climate.example": Role.OBSERVER}


def test_platform_roles_come_from_one_group_only() -> None:
    operator = "urn:mace:egi.eu:group:serai-platform:role=site-operator#aai.egi.eu"
    assert held([operator], TRUST).platform_roles == {PlatformRole.SITE_OPERATOR}
    assert held([operator], TRUST).memberships == {}
    for other in (operator.replace("serai-platform", "vo.bio.example"), operator.replace("platform:", "platform:x:")):
        assert held([other], TRUST).platform_roles == frozenset()
    assert held([operator], replace(TRUST, platform_group=None)).platform_roles == frozenset()


def test_values_that_are_no_strings_are_ignored() -> None:
    assert held([None, 1, {"a": 1}, [GOOD], True, GOOD], TRUST).memberships == {"vo.climate.example": Role.MEMBER}


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser_and_none_gives_a_foreign_vo(text: str) -> None:
    for value in (
        text,
        f"urn:mace:egi.eu:group:{text}#aai.egi.eu",
        f"urn:mace:egi.eu:group:vo.bio.example:role={text}",
    ):
        assert set(held([value], TRUST).memberships) <= TRUST.vos


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_one_changed_character_never_gives_another_vo_or_a_stronger_role(at: int, character: str) -> None:
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    assert held([changed], TRUST).memberships in ({}, {"vo.climate.example": Role.MEMBER})
