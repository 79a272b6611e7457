"""The permission table as a matrix that people can read, and that decides every case there is."""

from itertools import product

import pytest

from services.auth import permissions
from services.auth.permissions import PlatformRole, Role, Verb
from tests.builders import VO

pytestmark = pytest.mark.fast

COLUMNS = ("nobody", "observer", "member", "operator", "manager", "site-operator", "admin")
MATRIX = """
                  nobody  observer  member  operator  manager  site-operator  admin
job.submit        -       -         yes     yes       yes      -              -
job.view own      -       yes       yes     yes       yes      -              yes
job.view vo       -       yes       -       yes       yes      -              yes
job.cancel own    -       -         yes     yes       yes      -              yes
job.cancel vo     -       -         -       yes       yes      -              yes
job.logs own      -       -         yes     yes       yes      -              -
job.logs vo       -       -         -       -         yes      -              -
events.read_vo    -       yes       yes     yes       yes      -              yes
site.view         -       yes       yes     yes       yes      yes            yes
site.cordon       -       -         -       -         -        yes            yes
vo.policy.read    -       -         yes     yes       yes      -              yes
vo.policy.write   -       -         -       -         yes      -              yes
trust.suspend     -       -         -       -         -        -              yes
trust.issuers     -       -         -       -         -        -              yes
trust.audit       -       -         -       -         -        -              yes
"""


def rows() -> list[tuple[str, bool, str, bool]]:
    """(verb, own, column, allowed) of every cell."""
    cells = []
    for line in MATRIX.strip().splitlines()[1:]:
        words = line.split()
        answers = words[-len(COLUMNS) :]
        own = words[1 : -len(COLUMNS)] != ["vo"]
        cells += [(words[0], own, column, answer == "yes") for column, answer in zip(COLUMNS, answers, strict=True)]
    return cells


def holder(column: str) -> tuple[dict[str, Role], frozenset[PlatformRole]]:
    if column in set(Role):
        return {VO: Role(column)}, frozenset()
    return {}, frozenset({PlatformRole(column)}) if column != "nobody" else frozenset()


@pytest.mark.parametrize(("verb", "own", "column", "allowed"), rows())
def test_the_matrix_is_the_table(verb: str, own: bool, column: str, allowed: bool) -> None:
    memberships, platform_roles = holder(column)
    assert permissions.decide(memberships, platform_roles, verb, VO, own=own).allowed is allowed


@pytest.mark.parametrize(("verb", "column", "own"), list(product(Verb, COLUMNS, (True, False))))
def test_every_verb_role_and_ownership_is_decided_and_a_no_has_words(verb: Verb, column: str, own: bool) -> None:
    memberships, platform_roles = holder(column)
    decision = permissions.decide(memberships, platform_roles, verb, VO, own=own)
    assert decision.allowed or (decision.code and len(decision.message) > 20)


@pytest.mark.parametrize(("verb", "role"), list(product(Verb, Role)))
def test_a_role_counts_in_its_own_vo_only(verb: Verb, role: Role) -> None:
    assert not permissions.decide({VO: role}, (), verb, "vo.other.example", own=True).allowed


@pytest.mark.parametrize("verb", [*Verb, *permissions.SPLIT])
def test_what_may_be_done_to_anybodys_may_be_done_to_ones_own(verb: str) -> None:
    for role in Role:
        if permissions.decide({VO: role}, (), verb, VO, own=False).allowed:
            assert permissions.decide({VO: role}, (), verb, VO, own=True).allowed


@pytest.mark.parametrize("verb", ["", "job.*", "JOB.SUBMIT", "job.submit ", "site.cordon\n", "job"])
def test_an_unknown_verb_is_denied_to_everybody(verb: str) -> None:
    for column in COLUMNS:
        assert permissions.decide(*holder(column), verb, VO, own=True).code == "unknown_verb"


def test_a_no_says_what_is_missing_and_whom_to_ask() -> None:
    observer = permissions.decide({VO: Role.OBSERVER}, (), "job.submit", VO, own=True)
    assert observer.code == "role_insufficient"
    assert observer.message == (
        f"you are in VO {VO} as observer; submitting needs member or operator or manager; ask a manager of the VO"
    )
    stranger = permissions.decide({VO: Role.MEMBER}, (), "job.submit", "vo.bio.example", own=True)
    assert stranger.code == "not_in_vo"
    assert f"you are in: {VO}" in stranger.message
    manager = permissions.decide({VO: Role.MANAGER}, (), "site.cordon", None, own=True)
    assert manager.code == "platform_role_needed"
    assert "site-operator or admin" in manager.message
    assert permissions.decide({VO: Role.MANAGER}, (), "job.submit", None, own=True).code == "not_in_vo"


def test_verbs_on_the_wire_are_plain_strings() -> None:
    assert permissions.verbs_of(Role.MANAGER) >= {"job.submit", "job.logs_vo"}
    assert all(type(verb) is str for verb in permissions.verbs_of(Role.MANAGER))
    assert permissions.platform_verbs_of([PlatformRole.SITE_OPERATOR]) == {"site.view", "site.cordon"}
