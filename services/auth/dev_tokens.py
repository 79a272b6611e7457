"""What the development issuer's tokens look like in each of its modes, as the issuers look that it stands for. Pure.

Data shaping only: `dev_issuer.py` signs and serves. `trusted_as` is the entry with which auth trusts each mode.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from services.auth.demo_users import AUDIENCE, AUTHORITY, BIO, CLIMATE, NAMESPACE, PLATFORM_GROUP, DemoUser
from services.auth.issuers import GroupRule, Issuer, Speaker
from services.auth.permissions import PlatformRole, Role

Mode = Literal["rfc9068", "keycloak", "egi", "wlcg"]

LONGEST_LIFE_S: Final = 86_400
"""Seconds that its tokens may be made to live, in every mode: what is usual for a family is for real issuers."""
CLI: Final = "serai-cli"
"""The public client of the command line."""
ASSURANCE: Final = ("https://refeds.org/assurance/IAP/low", "https://refeds.org/assurance/IAP/medium")
ROLE_FORMAT: Final = "access:{vo}:{role}"
_VOPERSON_DOMAIN: Final = "dev.serai.example"


def header_type(mode: Mode) -> str:
    """The header `typ` of an access token."""
    return "JWT" if mode in ("keycloak", "egi") else "at+jwt"


def access_claims(mode: Mode, user: DemoUser, client: str) -> dict[str, Any]:
    """The claims of an access token beside issuer, times and id."""
    match mode:
        case "rfc9068":
            return {
                "aud": AUDIENCE, "sub": user.user, "client_id": client, "name": user.name, "scope": "entitlements",
                "entitlements": user.entitlements(),
            }  # fmt: skip
        case "keycloak":
            roles = [ROLE_FORMAT.format(vo=vo, role=role) for vo, role in user.roles.items()]
            return {
                "aud": [AUDIENCE, "account"], "sub": user.user, "azp": client, "typ": "Bearer", "name": user.name,
                "realm_access": {"roles": ["offline_access", *roles]},
            }  # fmt: skip
        case "egi":
            return {"sub": user.user, "azp": client, "typ": "Bearer", "scope": "openid eduperson_entitlement"}
        case "wlcg":
            return {"aud": AUDIENCE, "sub": user.user, "wlcg.ver": "1.0", "wlcg.groups": _groups(user)}


def userinfo(user: DemoUser) -> dict[str, Any]:
    """What the userinfo endpoint says of a user, in EGI Check-in's words."""
    return {
        "sub": user.user, "voperson_id": f"{user.user}@{_VOPERSON_DOMAIN}", "name": user.name,
        "eduperson_entitlement": user.entitlements(), "eduperson_assurance": list(ASSURANCE),
    }  # fmt: skip


def _groups(user: DemoUser) -> list[str]:
    """One issuer, one VO: the climate VO's groups."""
    role = user.roles.get(CLIMATE)
    return [] if role is None else [f"/{CLIMATE}", f"/{CLIMATE}/{role}"]


WORKLOAD_AUDIENCE: Final = "serai"
"""What jobs' own tokens are for (`shared/adapters/nomad/specification.py`)."""


def trusted_as(url: str, mode: Mode = "rfc9068") -> Issuer:
    """How auth trusts the development issuer at `url`: an entry for `SERAI_AUTH_ISSUERS`."""
    common: dict[str, Any] = {
        "issuer": url, "profile": mode, "algorithms": ("ES256",), "development": True,
        "max_token_life_s": LONGEST_LIFE_S,
    }  # fmt: skip
    speakers = (Speaker(namespace=NAMESPACE, authority=AUTHORITY),)
    match mode:
        case "rfc9068":
            return Issuer(
                audiences=(AUDIENCE,), claims=("entitlements",), speakers=speakers, vos=(CLIMATE, BIO),
                platform_group=PLATFORM_GROUP, **common,
            )  # fmt: skip
        case "keycloak":
            return Issuer(audiences=(AUDIENCE,), role_format=ROLE_FORMAT, vos=(CLIMATE, BIO), **common)
        case "egi":
            return Issuer(
                accept_shared_audience=True, clients=(CLI, "demo-workflow"), speakers=speakers,
                vos=(CLIMATE, BIO), platform_group=PLATFORM_GROUP, **common,
            )  # fmt: skip
        case "wlcg":
            rules = tuple(GroupRule(group=f"/{CLIMATE}/{role}", vo=CLIMATE, role=role) for role in Role)
            operators = GroupRule(group="/operators", platform_role=PlatformRole.SITE_OPERATOR)
            return Issuer(audiences=(AUDIENCE,), vos=(CLIMATE,), groups=(*rules, operators), **common)


def cluster_trusted_as(address: str, sites: Iterable[str], ca_file: Path | None = None) -> Issuer:
    """How auth trusts a Nomad of this machine for the jobs of its sites. `ca_file`: where it speaks TLS."""
    there = tuple(sites)
    return Issuer(
        issuer=address, name=f"Nomad of {', '.join(there)}", profile="nomad", audiences=(WORKLOAD_AUDIENCE,),
        sites=there,
        jwks_uri=f"{address}/.well-known/jwks.json", development=True, ca_file=ca_file,
    )  # fmt: skip
