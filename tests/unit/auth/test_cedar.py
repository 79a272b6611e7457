"""A second statement of the permission table, in Cedar, decides the whole space as the first one does.

Two people who state the same table in two languages rarely make the same mistake. Cedar is used here only. The space:
every verb, role in the VO, role in another VO, set of platform roles, whose it is, and what is suspended.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services.auth import deciding
from services.auth.claims import Verified
from services.auth.permissions import SPLIT, PlatformRole, Role, Verb
from services.auth.policies import Layers
from services.auth.standing import Standing
from shared.contracts.suspensions import Suspended, Suspension
from tests.builders import ALICE, NOON

cedarpy = pytest.importorskip("cedarpy", reason="the Cedar oracle needs the package cedarpy (extra `dev`)")

pytestmark = pytest.mark.fast
POLICIES = (Path(__file__).parent / "permissions.cedar").read_text()
PLATFORM = [frozenset[PlatformRole](), *(frozenset({role}) for role in PlatformRole), frozenset(PlatformRole)]
ROLES: list[Role | None] = [None, *Role]
HERE, ELSEWHERE = "vo.climate.example", "vo.bio.example"
WHOLE = {half: name for name, halves in SPLIT.items() for half in halves}
"""Cedar states `job.view` of one's own and of others; the table has a verb for each half as well."""
VERBS = sorted({str(verb) for verb in Verb} | set(SPLIT))
ACTIONS = sorted({WHOLE.get(verb, verb) for verb in VERBS})  # type: ignore[call-overload]
SUSPENSIONS = {
    "subject": Suspension(id="s", kind="subject", issuer=ALICE.issuer, value=ALICE.subject),
    "client": Suspension(id="c", kind="client", issuer=ALICE.issuer, value="portal"),
    "token": Suspension(id="t", kind="token", issuer=ALICE.issuer, value="jti-1"),
    "vo": Suspension(id="v", kind="vo", vo=HERE),
    "membership": Suspension(id="m", kind="membership", issuer=ALICE.issuer, value=ALICE.subject, vo=HERE),
}
STATES = [(), *((kind,) for kind in SUSPENSIONS), ("vo", "membership"), tuple(SUSPENSIONS)]
STANDINGS = {state: Standing(suspended=Suspended(SUSPENSIONS[kind] for kind in state)) for state in STATES}


class Cell(NamedTuple):
    """One question of the space."""

    verb: str
    role: Role | None
    other: Role | None
    platform: frozenset[PlatformRole]
    own: bool
    suspended: tuple[str, ...]


def space() -> Iterator[Cell]:
    """Every one there is."""
    yield from (Cell(*cell) for cell in product(VERBS, ROLES, ROLES, PLATFORM, (True, False), STATES))


Question = tuple[str, str, tuple[str, ...], bool, tuple[str, ...]]


def asked_of_cedar(cell: Cell) -> Question:
    """A cell as Cedar knows it: no other VO, and a half as the whole, of others where the half says so."""
    own = cell.own and not cell.verb.endswith("_vo") if cell.verb in WHOLE else cell.own
    action = str(WHOLE.get(cell.verb, cell.verb))  # type: ignore[call-overload]
    return action, str(cell.role or ""), tuple(sorted(cell.platform)), own, cell.suspended


@lru_cache(maxsize=1)
def questions() -> dict[Question, list[Cell]]:
    """What Cedar is asked, each with the cells that it stands for."""
    found: dict[Question, list[Cell]] = {}
    for cell in space():
        found.setdefault(asked_of_cedar(cell), []).append(cell)
    return found


def oracle(policies: str, asked: Sequence[Question]) -> list[bool]:
    """What Cedar says of each."""
    requests: list[dict[str, Any]] = [
        {
            "principal": 'User::"somebody"', "action": f'Action::"{action}"', "resource": 'Thing::"it"',
            "context": {"role": role, "platform": list(platform), "own": own, "suspended": list(suspended)},
        }
        for action, role, platform, own, suspended in asked
    ]  # fmt: skip
    answers = cedarpy.is_authorized_batch(requests, policies, [])
    assert not any(answer.diagnostics.errors for answer in answers)
    return [answer.allowed for answer in answers]


@lru_cache(maxsize=1)
def said() -> dict[Question, bool]:
    """What Cedar says of everything."""
    return dict(zip(questions(), oracle(POLICIES, list(questions())), strict=True))


@lru_cache(maxsize=50_000)
def table(cell: Cell) -> bool:
    """What the platform says."""
    memberships = {vo: each for vo, each in ((HERE, cell.role), (ELSEWHERE, cell.other)) if each is not None}
    asker = Verified(ALICE, memberships, cell.platform, NOON + timedelta(hours=1), "portal", "jti-1")
    standing = STANDINGS[cell.suspended]
    return deciding.change(asker, cell.verb, HERE, None, standing, Layers(), NOON, own=cell.own).allowed


def disagreements(cedar: Mapping[Question, bool], decide: Callable[[Cell], bool]) -> list[Cell]:
    """Where the two statements differ."""
    return [cell for asked, allowed in cedar.items() for cell in questions()[asked] if decide(cell) is not allowed]


def test_the_space_is_whole() -> None:
    assert set(VERBS) == {str(verb) for verb in Verb} | {"job.view", "job.cancel", "job.logs"}
    assert len(set(space())) == len(VERBS) * 5 * 5 * 4 * 2 * 8


def test_both_statements_agree_over_the_whole_space() -> None:
    assert disagreements(said(), table) == []


PARTS = 16
"""In how many parts the space is asked until one shows a disagreement: the first does, nearly always."""
STATEMENTS = [f"{statement}}};\n" for statement in POLICIES.split("};\n")[:-1]]


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_without_any_one_of_cedars_statements_they_disagree(number: int) -> None:
    left = "".join(statement for each, statement in enumerate(STATEMENTS) if each != number)
    simple = [each for each in questions() if len(each[-1]) <= 1 and len(each[2]) <= 1]
    parts = (simple[first::PARTS] for first in range(PARTS))
    assert any(disagreements(dict(zip(part, oracle(left, part), strict=True)), table) for part in parts)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", ["job.view", "job.cancel_vo", "job.logs", "job.submit", "vo.policy.write"])
def test_a_table_that_gives_or_takes_one_verb_of_one_role_is_found(verb: str, role: Role) -> None:
    def broken(cell: Cell) -> bool:
        return table(cell) is not (cell.verb == verb and cell.role is role)

    assert {(cell.verb, cell.role) for cell in disagreements(said(), broken)} == {(verb, role)}


def test_the_oracle_can_say_no_and_yes() -> None:
    """A check of the check: each verb is allowed to somebody and denied to somebody."""
    for action in ACTIONS:
        assert {allowed for question, allowed in said().items() if question[0] == action} == {True, False}, action


def test_the_oracle_names_every_verb() -> None:
    assert [action for action in ACTIONS if f'Action::"{action}"' not in POLICIES] == []
