"""What the claims of a user's token must be, and who is behind them. Pure; `verifier.py` has checked the signature.

Rules: RFC 9068 (access tokens), RFC 8725 (best practice), RFC 7519 section 4.1. `exp` counts without leeway.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.auth.entitlements import Trust, held
from services.auth.permissions import PlatformRole, Role
from services.auth.settings import Issuer
from shared.contracts.commands import Principal
from shared.errors import Refused

LEEWAY_S: Final = 60
"""For `iat` and `nbf` only: clocks differ, but a token's end is its end."""
_MOST_NAME: Final = 120
_MOST_AUDIENCES: Final = 32
_ACCESS_TOKEN_TYPES: Final = ("at+jwt", "application/at+jwt")


class BadToken(Refused):
    """Nobody is behind this token. The words never repeat a value from it."""

    def __init__(self, why: str, code: str = "unauthenticated") -> None:
        super().__init__(f"the access token is not accepted: {why}", code=code)


@dataclass(frozen=True, slots=True)
class Verified:
    """A principal, what their issuer says of them within its trust, and until when the token is good."""

    principal: Principal
    memberships: Mapping[str, Role]
    platform_roles: frozenset[PlatformRole]
    expires_at: datetime


def trust_of(issuer: Issuer) -> Trust:
    """What an issuer may say, as the entitlement rules want it."""
    return Trust(
        speakers=frozenset((each.namespace, each.authority) for each in issuer.speakers),
        vos=frozenset(issuer.vos),
        roles=issuer.roles,
        platform_group=issuer.platform_group,
        platform_roles=issuer.platform_roles,
        sub_groups_imply=issuer.sub_groups_imply,
    )


def verified(
    header: Mapping[str, Any], payload: Mapping[str, Any], issuer: Issuer, trust: Trust, now: float
) -> Verified:
    """The principal behind a token whose signature is good. `now` in Unix seconds. Raises BadToken."""
    _check_type(header, payload, issuer)
    if payload.get("iss") != issuer.issuer:
        raise BadToken("its issuer is not the owner of the key")
    _check_audience(payload.get("aud"), issuer)
    expires = _check_times(payload, issuer, now)
    subject = _identifier(payload, "sub")
    if "jti" in payload or issuer.profile == "rfc9068":
        _identifier(payload, "jti")
    found = held(_entitlements(payload, issuer), trust)
    principal = Principal(issuer=issuer.issuer, subject=subject, name=_name(payload))
    return Verified(principal, found.memberships, found.platform_roles, datetime.fromtimestamp(expires, UTC))


def _check_type(header: Mapping[str, Any], payload: Mapping[str, Any], issuer: Issuer) -> None:
    """Explicit typing (RFC 8725, 3.11): identity, refresh and logout tokens are signed by the same key."""
    kind = str(header.get("typ", "")).lower()
    if issuer.profile == "rfc9068":
        if kind not in _ACCESS_TOKEN_TYPES:
            raise BadToken("its header type is not `at+jwt`: send the access token, not another one")
        _identifier(payload, "client_id")
    elif kind != "jwt" or payload.get("typ") != "Bearer":
        raise BadToken("its type is not `Bearer`: send the access token, not another one")
    else:
        _identifier(payload, "client_id" if "client_id" in payload else "azp")


def _check_audience(audience: object, issuer: Issuer) -> None:
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise BadToken("its audience is neither a string nor a list of strings")
    if len(named) > _MOST_AUDIENCES or not set(named) & set(issuer.audiences):
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


def _identifier(payload: Mapping[str, Any], name: str) -> str:
    """Printable ASCII, so that it can stand in a log line, a header and a table."""
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not (value.isascii() and value.isprintable()):
        raise BadToken(f"`{name}` is missing or not a short printable string")
    return value


def _entitlements(payload: Mapping[str, Any], issuer: Issuer) -> list[object]:
    """The first of the issuer's entitlement claims that is there; anything but a list is no entitlement."""
    for name in issuer.claims:
        if name in payload:
            value = payload[name]
            return value if isinstance(value, list) else []
    return []


def _name(payload: Mapping[str, Any]) -> str:
    """A name for people; one with control characters is none."""
    for claim in ("name", "preferred_username"):
        value = payload.get(claim)
        if isinstance(value, str) and value.isprintable():
            return value[:_MOST_NAME]
    return ""
