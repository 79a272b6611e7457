"""What the claims of a user's token must be, and who is behind them. Pure; `verifier.py` has checked the signature.

Rules: RFC 9068 (access tokens), RFC 8725 (best practice), RFC 7519 section 4.1. `exp` counts without leeway. What
differs between families of tokens is in `profiles.py`; what memberships mean in `entitlements.py` and `groups.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.auth import groups, profiles
from services.auth.bad_token import BadToken, identifier
from services.auth.entitlements import Held, Trust, held
from services.auth.groups import Meaning
from services.auth.issuers import ANY_AUDIENCE, SHARED_AUDIENCE, Issuer
from services.auth.permissions import PlatformRole, Role, stronger
from shared.contracts.commands import Principal
from shared.contracts.questions import WorkloadIdentity

__all__ = ["BadToken", "Presented", "Trusted", "Verified", "presented", "trusted", "verified"]

LEEWAY_S: Final = 60
"""For `iat` and `nbf` only: clocks differ, but a token's end is its end."""
_MOST_NAME: Final = 120
_MOST_AUDIENCES: Final = 32
_MOST_ASSURANCE: Final = 64


@dataclass(frozen=True, slots=True)
class Trusted:
    """An issuer with its rules made ready: what entitlements may say, and what each plain group means."""

    issuer: Issuer
    trust: Trust
    groups: Mapping[str, tuple[Meaning, ...]]


@dataclass(frozen=True, slots=True)
class Presented:
    """What a good token says of itself: who, issued to which client, under which id, until when."""

    subject: str
    client: str
    token_id: str
    expires: float
    workload: WorkloadIdentity | None


@dataclass(frozen=True, slots=True)
class Verified:
    """A principal, what their issuer says of them within its trust, and until when the token is good.

    `whole`: the issuer says everything each time, so what it leaves out has ended. `client` and `token_id` are what
    suspensions can name; `assurance` the values of `eduperson_assurance` (REFEDS RAF).
    """

    principal: Principal
    memberships: Mapping[str, Role]
    platform_roles: frozenset[PlatformRole]
    expires_at: datetime
    client: str = ""
    token_id: str = ""
    assurance: frozenset[str] = frozenset()
    whole: bool = False
    workload: WorkloadIdentity | None = None


def trusted(issuer: Issuer) -> Trusted:
    """What an issuer may say, as the rules want it."""
    trust = Trust(
        speakers=frozenset((each.namespace, each.authority) for each in issuer.speakers),
        vos=frozenset(issuer.vos),
        roles=issuer.roles,
        platform_group=issuer.platform_group,
        platform_roles=issuer.platform_roles,
        sub_groups_imply=issuer.sub_groups_imply,
    )
    rules: dict[str, tuple[Meaning, ...]] = {}
    for rule in issuer.groups:
        rules[rule.group] = (*rules.get(rule.group, ()), Meaning(rule.vo, rule.role, rule.platform_role))
    return Trusted(issuer, trust, rules)


def presented(header: Mapping[str, Any], payload: Mapping[str, Any], issuer: Issuer, now: float) -> Presented:
    """What a token says of itself, once its signature is good. `now` in Unix seconds. Raises BadToken."""
    profiles.check_type(issuer.profile, header, payload)
    if payload.get("iss") != issuer.issuer:
        raise BadToken("its issuer is not the owner of the key")
    client = profiles.client_of(issuer.profile, payload)
    if issuer.clients and client not in issuer.clients:
        raise BadToken("it was issued to a client that this platform does not accept")
    check_audience(payload.get("aud"), issuer)
    expires = _check_times(payload, issuer, now)
    subject = identifier(payload, "sub")
    token_id = identifier(payload, "jti") if "jti" in payload else ""
    return Presented(subject, client, token_id, expires, profiles.workload_of(issuer, payload))


def verified(token: Presented, claims: Mapping[str, Any], who: Trusted) -> Verified:
    """The principal: what the token says of itself, and the claims from wherever the issuer keeps them.

    Raises BadToken when the claims name no usable subject.
    """
    issuer = who.issuer
    subject = token.subject if issuer.subject_claim == "sub" else identifier(claims, issuer.subject_claim)
    found = _held(claims, who)
    return Verified(
        Principal(issuer=issuer.issuer, subject=subject, name=_name(claims)),
        found.memberships, found.platform_roles, datetime.fromtimestamp(token.expires, UTC), token.client,
        token.token_id, _assurance(claims), issuer.says_all, token.workload,
    )  # fmt: skip


def check_audience(audience: object, issuer: Issuer) -> None:
    """Raises BadToken unless the token was meant for this platform, or for anybody where the settings accept that."""
    shared = issuer.accept_shared_audience
    if audience is None and shared:
        return
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise BadToken("its audience is neither a string nor a list of strings")
    meant = {*issuer.audiences, *((SHARED_AUDIENCE,) if shared else ())}
    if issuer.profile == "wlcg":
        meant.add(ANY_AUDIENCE)
    if len(named) > _MOST_AUDIENCES or not set(named) & meant:
        raise BadToken("it is meant for somebody else: its audience does not name this platform")


def _check_times(payload: Mapping[str, Any], issuer: Issuer, now: float) -> float:
    expires, issued = _seconds(payload, "exp"), _seconds(payload, "iat")
    starts = _seconds(payload, "nbf") if "nbf" in payload else issued
    if max(issued, starts) > now + LEEWAY_S:
        raise BadToken("it is not valid yet: check the clocks")
    if not 0 < expires - issued <= issuer.max_token_life_s:
        raise BadToken("it lives longer than its issuer may let tokens live")
    if expires <= now:
        raise BadToken("it has expired; sign in again", code="token_expired")
    return expires


def _seconds(payload: Mapping[str, Any], name: str) -> float:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        raise BadToken(f"`{name}` is missing or not a time")
    return value


def _held(claims: Mapping[str, Any], who: Trusted) -> Held:
    """Memberships and platform roles from entitlements, plain groups and realm roles; the strongest role counts."""
    issuer = who.issuer
    by_entitlement = held(groups.values_of(claims, issuer.claims), who.trust)
    memberships, platform_roles = dict(by_entitlement.memberships), set(by_entitlement.platform_roles)
    for meaning in groups.meanings(groups.values_of(claims, issuer.group_claims), who.groups):
        if meaning.vo is not None and meaning.role is not None:
            memberships[meaning.vo] = stronger(meaning.role, memberships.get(meaning.vo))
        elif meaning.platform_role is not None:
            platform_roles.add(meaning.platform_role)
    realm = groups.realm_roles(claims)
    for vo, role in groups.roles_by_format(realm, issuer.role_format, issuer.roles, who.trust.vos).items():
        memberships[vo] = stronger(role, memberships.get(vo))
    return Held(memberships, frozenset(platform_roles))


def _assurance(claims: Mapping[str, Any]) -> frozenset[str]:
    values = groups.values_of(claims, ("eduperson_assurance",))[:_MOST_ASSURANCE]
    return frozenset(each for each in values if len(each) <= 255 and each.isascii() and each.isprintable())


def _name(claims: Mapping[str, Any]) -> str:
    """A name for people; one with control characters is none."""
    for claim in ("name", "preferred_username"):
        value = claims.get(claim)
        if isinstance(value, str) and value.isprintable():
            return value[:_MOST_NAME]
    return ""
