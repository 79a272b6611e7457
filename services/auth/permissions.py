"""Who may do what: one table, and the sentences that go with a no. Pure.

A role belongs to a VO, a platform role to the whole platform. What is not in the table is denied. An administrator
gets no jobs of a VO by being administrator: submitting always needs a role in that VO (as in DiracX).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from shared.contracts.questions import Decision


class Role(StrEnum):
    """Roles in a VO, weakest first."""

    OBSERVER = "observer"
    MEMBER = "member"
    OPERATOR = "operator"
    MANAGER = "manager"


class PlatformRole(StrEnum):
    """Roles on the whole platform."""

    SITE_OPERATOR = "site-operator"
    ADMIN = "admin"


class Verb(StrEnum):
    """Everything that is ever decided. `_own`: on what the principal owns; `_vo`: on anything of the VO."""

    SUBMIT = "job.submit"
    VIEW_OWN = "job.view_own"
    VIEW_VO = "job.view_vo"
    CANCEL_OWN = "job.cancel_own"
    CANCEL_VO = "job.cancel_vo"
    LOGS_OWN = "job.logs_own"
    LOGS_VO = "job.logs_vo"
    EVENTS_VO = "events.read_vo"
    SITE_VIEW = "site.view"
    SITE_CORDON = "site.cordon"
    POLICY_READ = "vo.policy.read"
    POLICY_WRITE = "vo.policy.write"
    SUSPEND = "trust.suspend"
    ISSUERS = "trust.issuers"
    AUDIT = "trust.audit"
    SECRETS = "secret.manage"


_READING: Final = frozenset({Verb.VIEW_OWN, Verb.EVENTS_VO, Verb.SITE_VIEW})
_WORKING: Final = _READING | {Verb.SUBMIT, Verb.CANCEL_OWN, Verb.LOGS_OWN, Verb.POLICY_READ, Verb.SECRETS}

ROLE_VERBS: Final[Mapping[Role, frozenset[Verb]]] = {
    Role.OBSERVER: _READING | {Verb.VIEW_VO},
    Role.MEMBER: _WORKING,
    Role.OPERATOR: _WORKING | {Verb.VIEW_VO, Verb.CANCEL_VO},
    Role.MANAGER: _WORKING | {Verb.VIEW_VO, Verb.CANCEL_VO, Verb.LOGS_VO, Verb.POLICY_WRITE},
}
"""The verbs of each role in its own VO. Logs of others are the managers' alone: they may hold data."""

PLATFORM_VERBS: Final[Mapping[PlatformRole, frozenset[Verb]]] = {
    PlatformRole.SITE_OPERATOR: frozenset({Verb.SITE_VIEW, Verb.SITE_CORDON}),
    PlatformRole.ADMIN: frozenset(
        {
            Verb.SITE_VIEW, Verb.SITE_CORDON, Verb.VIEW_VO, Verb.CANCEL_VO, Verb.EVENTS_VO, Verb.POLICY_READ,
            Verb.POLICY_WRITE, Verb.SUSPEND, Verb.ISSUERS, Verb.AUDIT,
        }
    ),
}  # fmt: skip
"""The verbs of each platform role, in every VO and at every site."""

SPLIT: Final[Mapping[str, tuple[Verb, Verb]]] = {
    "job.view": (Verb.VIEW_OWN, Verb.VIEW_VO),
    "job.cancel": (Verb.CANCEL_OWN, Verb.CANCEL_VO),
    "job.logs": (Verb.LOGS_OWN, Verb.LOGS_VO),
}
"""Verbs that commands and questions name, and what they need: for one's own, for anybody's."""

_DOING: Final[Mapping[Verb, str]] = {
    Verb.SUBMIT: "submitting", Verb.VIEW_OWN: "viewing your own jobs", Verb.VIEW_VO: "viewing jobs of others",
    Verb.CANCEL_OWN: "cancelling your own jobs", Verb.CANCEL_VO: "cancelling jobs of others",
    Verb.LOGS_OWN: "reading logs of your own jobs", Verb.LOGS_VO: "reading logs of others",
    Verb.EVENTS_VO: "reading events of the VO", Verb.SITE_VIEW: "viewing sites", Verb.SITE_CORDON: "cordoning sites",
    Verb.POLICY_READ: "reading the policy of the VO", Verb.POLICY_WRITE: "changing the policy of the VO",
    Verb.SUSPEND: "suspending", Verb.ISSUERS: "looking at issuers", Verb.AUDIT: "reading the audit log",
    Verb.SECRETS: "having secrets for jobs",
}  # fmt: skip
YES: Final = Decision(allowed=True)
_STRENGTH: Final = {role: strength for strength, role in enumerate(Role)}


def stronger(one: Role, other: Role | None) -> Role:
    """The role that is listed later in `Role`."""
    return one if other is None or _STRENGTH[one] >= _STRENGTH[other] else other


def verbs_of(role: Role) -> frozenset[str]:
    """The verbs of a role, as plain strings for the wire."""
    return frozenset(str(verb) for verb in ROLE_VERBS[role])


def platform_verbs_of(roles: Iterable[PlatformRole]) -> frozenset[str]:
    """The verbs of all these platform roles together."""
    return frozenset(str(verb) for role in roles for verb in PLATFORM_VERBS[role])


def decide(
    memberships: Mapping[str, Role], platform_roles: Iterable[PlatformRole], verb: str, vo: str | None, *, own: bool
) -> Decision:
    """May a principal with these roles do this? `own` = it acts on what is theirs. Total: anything unknown is a no.

    Codes of a no: `unknown_verb`, `platform_role_needed`, `not_in_vo`, `role_insufficient`.
    """
    needed = _NEEDED.get((verb, own))
    if needed is None:
        return Decision(allowed=False, code="unknown_verb", message=f"{verb[:60]!r} is nothing that can be allowed")
    for platform_role in platform_roles:
        if not PLATFORM_VERBS[platform_role].isdisjoint(needed):
            return YES
    role = memberships.get(vo) if vo is not None else None
    if role is not None and not ROLE_VERBS[role].isdisjoint(needed):
        return YES
    return _no(memberships, role, needed[0], vo)


def _needs() -> dict[tuple[str, bool], tuple[Verb, ...]]:
    """The verbs of which one is needed, for whose own and for others'. Who may do it to anybody's may to their own."""
    found: dict[tuple[str, bool], tuple[Verb, ...]] = {(verb, own): (verb,) for verb in Verb for own in (True, False)}
    for name, (mine, anybodys) in SPLIT.items():
        for verb in (name, mine):
            found[verb, True], found[verb, False] = (mine, anybodys), (anybodys,)
    return found


_NEEDED: Final = _needs()


def _no(memberships: Mapping[str, Role], role: Role | None, needed: Verb, vo: str | None) -> Decision:
    doing, able = _DOING[needed], [each for each in Role if needed in ROLE_VERBS[each]]
    if not able or vo is None:
        platform = " or ".join(each for each in PlatformRole if needed in PLATFORM_VERBS[each])
        words = f"{doing} needs the platform role {platform}; ask the operators of the platform" if platform else (
            f"{doing} needs the name of a VO"
        )  # fmt: skip
        return Decision(allowed=False, code="platform_role_needed" if platform else "not_in_vo", message=words)
    if role is None:
        mine = ", ".join(sorted(memberships)) or "none"
        words = f"you are not in the VO {vo[:80]!r} (you are in: {mine}); ask a manager of that VO to take you in"
        return Decision(allowed=False, code="not_in_vo", message=words)
    words = f"you are in VO {vo[:80]} as {role}; {doing} needs {' or '.join(able)}; ask a manager of the VO"
    return Decision(allowed=False, code="role_insufficient", message=words)
