"""The decisions of auth, each over one moment's standing: may this be granted, may this still be dispatched. Pure.

In this order: is anything suspended; does the table of verbs and roles allow it (`permissions.py`); do platform, VO
and site allow it (`policies.py`). The first no is the answer, with a closed code and words for the person who asked.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from services.auth import permissions
from services.auth.claims import Verified
from services.auth.permissions import Role, Verb
from services.auth.policies import Layers
from services.auth.standing import LastSeen, Standing
from shared.contracts.commands import Principal
from shared.contracts.policies import Demand, Policy, objections, site_objection
from shared.contracts.questions import Bearer, Decision, DecisionRequest, Membership, Remembered, WorkloadIdentity
from shared.contracts.suspensions import Suspension

_STOPPED: Final = frozenset({str(Verb.SUBMIT), str(Verb.POLICY_WRITE)})
"""What a suspended VO may not do; its members go on seeing and cancelling what is theirs."""


REPORT: Final = "job.report"
"""The one verb of a running job; no role has it."""


def of_workload(workload: WorkloadIdentity, verb: str, attempt: str | None, suspension: Suspension | None) -> Decision:
    """May a running job have this done? It tells of itself, by its whole id, and does nothing else."""
    if suspension is not None:
        return _suspended(suspension)
    if verb != REPORT:
        return refused("workload_may_not", "a job's own identity may tell of the job itself, and nothing else")
    if attempt != workload.job:
        return refused("another_job", "a job's own identity is of exactly that job")
    return Decision(allowed=True)


def refused(code: str, message: str) -> Decision:
    """A no."""
    return Decision(allowed=False, code=code, message=message)


def access(asker: Verified, standing: Standing, now: datetime) -> Suspension | None:
    """Why this principal, client or token may do nothing at all."""
    return standing.suspended.access(asker.principal, asker.client, asker.token_id, now)


def memberships(principal: Principal, held: Mapping[str, Role], standing: Standing, now: datetime) -> dict[str, Role]:
    """The memberships that are left when suspended ones are taken out."""
    if not standing.suspended.any_of("membership"):
        return dict(held)
    return {vo: role for vo, role in held.items() if standing.suspended.membership(principal, vo, now) is None}


def verbs(role: Role, vo: str, standing: Standing, now: datetime) -> frozenset[str]:
    """The verbs of a role in a VO as things stand."""
    stopped = standing.suspended.vo(vo, now) is not None
    return permissions.verbs_of(role) - _STOPPED if stopped else permissions.verbs_of(role)


def change(
    asker: Verified, verb: str, vo: str | None, demand: Demand | None, standing: Standing, layers: Layers,
    now: datetime, *, own: bool,
) -> Decision:  # fmt: skip
    """May this caller, here with a live token, have this changed? `demand`: what a job asks for."""
    suspension = access(asker, standing, now)
    if suspension is not None:
        return _suspended(suspension)
    decision = _in_vo(asker.principal, asker.memberships, asker.platform_roles, verb, vo, standing, now, own=own)
    if not decision.allowed or verb != Verb.SUBMIT or vo is None:
        return decision
    return _submission(vo, demand, asker.assurance, standing, layers)


def dispatch(
    asked: DecisionRequest, seen: LastSeen | None, standing: Standing, layers: Layers,
    site_vos: Mapping[str, tuple[str, ...]], now: datetime,
) -> Decision:  # fmt: skip
    """May this still be done for somebody who is not here, at this site? From what was last seen of them.

    An allowed job comes with the policy that it is held against by who asks, who alone knows the job.
    """
    if seen is None:
        words = f"{asked.principal.subject[:80]} of {asked.principal.issuer[:200]} was never seen here"
        return refused("unknown_principal", words)
    suspension = standing.suspended.access(asked.principal, "", "", now)
    if suspension is not None:
        return _suspended(suspension)
    vo = asked.vo or None
    decision = _in_vo(asked.principal, seen.memberships, seen.platform_roles, asked.verb, vo, standing, now, own=True)
    if not decision.allowed or asked.verb != Verb.SUBMIT or vo is None:
        return decision
    if asked.site is not None and vo not in site_vos.get(asked.site, (vo,)):
        return refused("vo_not_at_site", f"VO {vo} may not use the site {asked.site}")
    return _placement(vo, asked.site, seen.assurance, standing, layers)


def remembered(bearer: Bearer, seen: LastSeen | None, standing: Standing, now: datetime) -> Remembered:
    """What somebody who is not here may see and do, from what was last seen of them."""
    if seen is None:
        return Remembered(refusal="you have not signed in for too long: sign in again")
    suspension = standing.suspended.access(bearer.principal, bearer.client, bearer.token_id, now)
    if suspension is not None:
        return Remembered(refusal=suspension.words())
    left = memberships(bearer.principal, seen.memberships, standing, now)
    return Remembered(
        memberships=tuple(
            Membership(vo=vo, role=role, verbs=verbs(role, vo, standing, now)) for vo, role in sorted(left.items())
        ),
        platform_verbs=permissions.platform_verbs_of(seen.platform_roles),
    )


def _in_vo(
    principal: Principal, held: Mapping[str, Role], platform_roles: frozenset[permissions.PlatformRole], verb: str,
    vo: str | None, standing: Standing, now: datetime, *, own: bool,
) -> Decision:  # fmt: skip
    """The table's word, with suspended memberships taken out and suspended VOs stopped."""
    out, left = None, held
    if standing.suspended.any_of("membership"):
        out = standing.suspended.membership(principal, vo, now) if vo is not None and vo in held else None
        left = memberships(principal, held, standing, now)
    decision = permissions.decide(left, platform_roles, verb, vo, own=own)
    if not decision.allowed:
        return _suspended(out) if out is not None else decision
    stopped = standing.suspended.vo(vo, now) if vo is not None and verb in _STOPPED else None
    if stopped is not None and not (verb == Verb.POLICY_WRITE and _platform_allows(platform_roles, verb)):
        return _suspended(stopped)
    return decision


def _platform_allows(platform_roles: frozenset[permissions.PlatformRole], verb: str) -> bool:
    return verb in permissions.platform_verbs_of(platform_roles)


def _suspended(suspension: Suspension) -> Decision:
    return refused(f"{suspension.kind}_suspended", suspension.words())


def _submission(
    vo: str, demand: Demand | None, assurance: frozenset[str], standing: Standing, layers: Layers
) -> Decision:
    stored = standing.policy_of(vo)
    for name, policy in layers.of(stored.policy, None):
        if not (policy.about_jobs or policy.assurance):
            continue
        objection = _objection(_named(name, vo), policy, demand, assurance)
        if objection is not None:
            return objection
    return _yes(stored.label)


@lru_cache(maxsize=1_024)
def _yes(policy_version: str) -> Decision:
    return Decision(allowed=True, policy_version=policy_version)


def _objection(whose: str, policy: Policy, demand: Demand | None, assurance: frozenset[str]) -> Decision | None:
    """What one layer has against a submission, first of all against who hands it in."""
    if not policy.assurance <= assurance:
        lacking = policy.assurance - assurance
        words = (
            f"{whose} asks for a better proven identity: your issuer does not say {', '.join(sorted(lacking))} of you"
        )
        return refused("assurance_too_low", f"{words}; ask your home organisation or another sign-in that does")
    if demand is None:
        if policy.about_jobs:
            return refused("demand_missing", f"{whose} restricts jobs, and this request does not say what it asks for")
        return None
    found = objections(demand, policy, whose, handed_in=True)
    return refused(found[0].code, found[0].message) if found else None


def _placement(vo: str, site: str | None, assurance: frozenset[str], standing: Standing, layers: Layers) -> Decision:
    stored = standing.policy_of(vo)
    for name, policy in layers.of(stored.policy, site):
        whose = _named(name, vo)
        if policy.assurance - assurance:
            return refused("assurance_too_low", f"{whose} asks for a better proven identity than the owner's")
        objection = site_objection(site, policy, whose) if site is not None else None
        if objection is not None:
            return refused(objection.code, objection.message)
    together = layers.together(stored.policy, site)
    return Decision(
        allowed=True, policy_version=stored.label, policy=together if together != Policy() else None
    )  # fmt: skip


def _named(name: str, vo: str) -> str:
    return f"the VO {vo}" if name == "the VO" else name
