"""The families of access tokens: what header and payload of each must say to be an access token at all. Pure.

Explicit typing (RFC 8725, 3.11): identity, refresh and logout tokens are signed by the same key as access tokens, and
each family tells them apart in its own way. Called by `claims.py` with a token whose signature is good.
"""

from collections.abc import Mapping
from typing import Any, Final

from services.auth.bad_token import BadToken, identifier
from services.auth.issuers import Issuer, Profile
from shared.contracts.questions import WorkloadIdentity

_ACCESS_TOKEN_TYPES: Final = ("at+jwt", "application/at+jwt")
_NOT_ACCESS: Final = frozenset({"nonce", "at_hash", "c_hash", "events"})
"""Claims of identity and logout tokens; no access token of these families has them."""
_WLCG_MAJOR: Final = "1"

IGNORED_HEADERS: Final[Mapping[Profile, frozenset[str]]] = {
    "rfc9068": frozenset(),
    "keycloak": frozenset({"x5t", "x5t#S256"}),
    "egi": frozenset({"x5t", "x5t#S256"}),
    "iam": frozenset(),
    "wlcg": frozenset(),
    "nomad": frozenset(),
}
"""Header members beside `alg`, `kid` and `typ` that may stand there, unused."""


def check_type(profile: Profile, header: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
    """Raises BadToken unless this is an access token of the profile."""
    kind = str(header.get("typ", "")).lower()
    match profile:
        case "rfc9068":
            if kind not in _ACCESS_TOKEN_TYPES:
                raise BadToken("its header type is not `at+jwt`: send the access token, not another one")
            identifier(payload, "jti")
        case "keycloak" | "egi":
            if kind != "jwt" or payload.get("typ") != "Bearer":
                raise BadToken("its type is not `Bearer`: send the access token, not another one")
        case "iam":
            _check_loosely_typed(kind, payload)
        case "wlcg":
            _check_loosely_typed(kind, payload)
            _check_wlcg_version(payload)
            identifier(payload, "jti")
        case "nomad":
            if kind not in ("jwt", "") or "nomad_job_id" not in payload:
                raise BadToken("it is not the identity of a job")


def _check_loosely_typed(kind: str, payload: Mapping[str, Any]) -> None:
    """Families that leave the header type open: what marks another kind of token decides."""
    if kind not in ("", "jwt", *_ACCESS_TOKEN_TYPES):
        raise BadToken("its header type is neither `at+jwt` nor `JWT`: send the access token, not another one")
    if payload.get("typ", "Bearer") not in ("Bearer", "at+jwt") or payload.keys() & _NOT_ACCESS:
        raise BadToken("it is an identity or logout token: send the access token")


def _check_wlcg_version(payload: Mapping[str, Any]) -> None:
    version = payload.get("wlcg.ver")
    if not isinstance(version, str) or version.split(".")[0] != _WLCG_MAJOR:
        raise BadToken(f"its `wlcg.ver` is not {_WLCG_MAJOR}.x")


def client_of(profile: Profile, payload: Mapping[str, Any]) -> str:
    """The client that the token was issued to; empty where the family does not tell. Raises BadToken."""
    if profile == "nomad":
        return ""
    if profile == "rfc9068":
        return identifier(payload, "client_id")
    if profile in ("keycloak", "egi"):
        return identifier(payload, "client_id" if "client_id" in payload else "azp")
    for name in ("client_id", "azp"):
        if name in payload:
            return identifier(payload, name)
    return ""


def workload_of(issuer: Issuer, payload: Mapping[str, Any]) -> WorkloadIdentity | None:
    """The job behind a workload identity (profile `nomad`), None for everybody else. Raises BadToken."""
    if issuer.profile != "nomad":
        return None
    identifier(payload, "nomad_task" if "nomad_task" in payload else "nomad_service")
    return WorkloadIdentity(
        job=identifier(payload, "nomad_job_id"), namespace=identifier(payload, "nomad_namespace"),
        allocation=identifier(payload, "nomad_allocation_id"), sites=issuer.sites,
    )  # fmt: skip
