"""Trusted issuers as data: who they are, what their tokens look like, and what each may say about whom.

An entry says everything that the platform believes of an issuer; code knows profiles (families of tokens), never an
issuer's name. Used by `settings.py`; examples stand in `compose/auth/issuers.example.yaml`, the recipe in
`docs/issuers.md`.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.auth.permissions import PlatformRole, Role
from shared.job import SiteName, VoName

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures only: an HMAC with an issuer is a shared secret, and `none` is none."""
Profile = Literal["rfc9068", "keycloak", "egi", "iam", "wlcg", "nomad"]
ClaimsFrom = Literal["token", "userinfo", "introspection"]

Namespace = Annotated[str, StringConstraints(pattern=r"^urn:(?:mace|geant)(?::[a-z0-9._-]+)+$")]

SHARED_AUDIENCE: Final = "account"
"""Keycloak's audience of every token of a realm, whoever it was issued for."""
ANY_AUDIENCE: Final = "https://wlcg.cern.ch/jwt/v1/any"
"""WLCG's audience of tokens that are for everybody."""
ENTITLEMENT_CLAIMS: Final = ("entitlements", "eduperson_entitlement")


class Speaker(BaseModel):
    """A namespace and the authority that may speak in it, as entitlements spell them (AARC-G069)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Namespace = Field(description="Up to `:group:`, e.g. `urn:mace:egi.eu`.")
    authority: str = Field(min_length=1, description="What stands after `#`, e.g. `aai.egi.eu`.")


class GroupRule(BaseModel):
    """What membership of one group means here. The group is compared character by character, never as a prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = Field(min_length=1, max_length=255, description="As the issuer writes it, e.g. `/climate/operators`.")
    vo: VoName | None = Field(default=None, description="The VO that it is a role in; one of the issuer's `vos`.")
    role: Role | None = Field(default=None, description="The role in that VO.")
    platform_role: PlatformRole | None = Field(default=None, description="Or: the platform role that it means.")

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if (self.vo is None) is not (self.role is None) or (self.vo is None) is (self.platform_role is None):
            raise ValueError(f"group {self.group!r}: give `vo` and `role`, or `platform_role` alone")
        return self


class Issuer(BaseModel):
    """An identity provider that is trusted, and how far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(description="Exactly the tokens' `iss`; compared character by character, final slash included.")
    name: str = Field(default="", max_length=80, description="For people; empty = the issuer string.")
    profile: Profile = Field(
        default="rfc9068", description="What an access token looks like: `rfc9068` (header type `at+jwt`), `keycloak` "
        "and `egi` (header type `JWT`, payload `typ` `Bearer`), `iam` (INDIGO IAM: `at+jwt`, `JWT` or none), `wlcg` "
        "(WLCG token profile 1.x), `nomad` (workload identities of jobs: no VO, no role)."
    )  # fmt: skip
    audiences: tuple[str, ...] = Field(default=(), description="One of these must be among a token's `aud`.")
    accept_shared_audience: bool = Field(
        default=False, description="Accept tokens without `aud`, or with Keycloak's `account`: they were issued for "
        "anybody, so `clients` must name for whom."
    )  # fmt: skip
    clients: tuple[str, ...] = Field(
        default=(), description="If given, only tokens that were issued to these clients (`client_id`, `azp`)."
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="Signature algorithms that this issuer uses."
    )
    jwks_uri: str | None = Field(
        default=None,
        description="Where its keys are. Empty = as its discovery document says, on its own host.",
    )
    claims_from: ClaimsFrom = Field(
        default="token", description="Where its word on memberships is: in the `token`, at its `userinfo` endpoint "
        "(OpenID Connect Core 5.3), or at its `introspection` endpoint (RFC 7662)."
    )  # fmt: skip
    userinfo_uri: str | None = Field(default=None, description="Empty = as its discovery document says.")
    introspection_uri: str | None = Field(default=None, description="Empty = as its discovery document says.")
    client_id: str = Field(default="", description="Our client there; for introspection only.")
    client_secret_file: Path | None = Field(default=None, description="File of that client's secret, mode 0600.")
    whole: bool | None = Field(
        default=None, description="Whether what it says is always everything: a VO that it leaves out is then a "
        "membership that has ended. Empty = yes for userinfo and introspection, no for tokens (they can be narrowed)."
    )  # fmt: skip
    subject_claim: Literal["sub", "voperson_id"] = Field(
        default="sub", description="The claim that names a person for good. EGI: `voperson_id`."
    )
    claims: tuple[str, ...] = Field(
        default=ENTITLEMENT_CLAIMS, description="Claims of entitlements; the first there counts."
    )
    speakers: tuple[Speaker, ...] = Field(default=(), description="Namespaces and authorities it may speak for.")
    vos: tuple[VoName, ...] = Field(default=(), description="VOs it may assert; any other VO from it is ignored.")
    roles: dict[str, Role] = Field(
        default={"member": Role.MEMBER, "manager": Role.MANAGER, "operator": Role.OPERATOR, "observer": Role.OBSERVER},
        description="Its role words in ours; a word that is not here gives no role. The word '' = group without role.",
    )
    role_format: str = Field(
        default="", description="How roles name VO and role, e.g. `access:{vo}:{role}` (Keycloak's "
        "`realm_access.roles`). Empty = such roles mean nothing."
    )  # fmt: skip
    group_claims: tuple[str, ...] = Field(
        default=("wlcg.groups", "groups"), description="Claims of plain groups; the first there counts."
    )
    groups: tuple[GroupRule, ...] = Field(
        default=(), description="What plain groups mean; a group that is not here means nothing, nor do its parents."
    )
    sub_groups_imply: bool = Field(
        default=False, description="Membership of a sub-group is membership of the VO: yes by AARC-G069, no by WLCG."
    )
    platform_group: str | None = Field(
        default=None, description="Group whose roles are platform roles; empty = this issuer names no operators."
    )
    platform_roles: dict[str, PlatformRole] = Field(
        default={"site-operator": PlatformRole.SITE_OPERATOR, "admin": PlatformRole.ADMIN},
        description="Role words of that group in ours.",
    )
    max_token_life_s: float = Field(
        default=86_400, gt=0, description="Seconds from `iat` to `exp` at most: a stolen token must die soon."
    )
    membership_life_s: float | None = Field(
        default=None, gt=0, description="Seconds that what it said of memberships counts for people who do not come "
        "again; None or more than `SERAI_AUTH_MEMBERSHIP_LIFE_S`: that one."
    )  # fmt: skip
    sites: tuple[SiteName, ...] = Field(
        default=(), description="Of a Nomad cluster (profile `nomad`): the sites whose jobs it speaks for."
    )
    ca_file: Path | None = Field(default=None, description="PEM file of the CAs for its TLS; empty = the system's.")
    development: bool = Field(default=False, description="A development issuer: refused unless `dev_mode` is set.")

    @model_validator(mode="before")
    @classmethod
    def _as_usual_for_its_profile(cls, entry: Any) -> Any:
        return {**_USUAL.get(str(entry.get("profile")), {}), **entry} if isinstance(entry, Mapping) else entry

    @model_validator(mode="after")
    def _addresses_are_plain(self) -> Self:
        for url in filter(None, (self.issuer, self.jwks_uri, self.userinfo_uri, self.introspection_uri)):
            parts = urlsplit(url)
            if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
                raise ValueError(f"{url!r} is not a plain https address")
            if parts.scheme == "http" and not (self.development and is_loopback(parts.hostname)):
                raise ValueError(f"{url!r} must be https; http is for development issuers on loopback only")
        return self

    @model_validator(mode="after")
    def _nothing_is_missing(self) -> Self:
        missing = missing_settings(self)
        if missing:
            raise ValueError(f"{self.issuer}: {'; '.join(missing)}")
        return self

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name or self.issuer

    @property
    def says_all(self) -> bool:
        """Whether a VO that it leaves out is a membership that has ended."""
        return self.claims_from != "token" if self.whole is None else self.whole

    @property
    def needs_dev_mode(self) -> bool:
        """Whether this is a development issuer, by its own word or by its address."""
        return self.development or is_loopback(urlsplit(self.issuer).hostname or "")


def missing_settings(issuer: Issuer) -> list[str]:
    """What an entry lacks or contradicts, in words that say what to set; empty when it can be used."""
    found = []
    if not issuer.audiences and not issuer.accept_shared_audience:
        found.append("set `audiences`: what its tokens for this platform have in `aud`")
    if issuer.accept_shared_audience and not issuer.clients:
        found.append("`accept_shared_audience` takes tokens issued for anybody: set `clients` to those you mean")
    if SHARED_AUDIENCE in issuer.audiences:
        found.append(
            f"the audience `{SHARED_AUDIENCE}` stands in every token of a Keycloak realm: take it out of `audiences`, "
            "set `accept_shared_audience: true` and `clients`"
        )
    if issuer.profile == "egi" and issuer.claims_from == "token":
        found.append("EGI Check-in's tokens do not carry the VO: set `claims_from` to `userinfo` or `introspection`")
    if issuer.profile == "wlcg" and len(issuer.vos) != 1:
        found.append("an issuer of the WLCG profile speaks for exactly one VO: set `vos` to it")
    if issuer.claims_from == "introspection" and not (issuer.client_id and issuer.client_secret_file):
        found.append("introspection needs our own client there: set `client_id` and `client_secret_file`")
    if issuer.profile == "nomad" and (issuer.vos or issuer.platform_group or issuer.claims_from != "token"):
        found.append("a job's identity has no VO and no role: leave out `vos`, `platform_group` and `claims_from`")
    if (issuer.profile == "nomad") is not bool(issuer.sites):
        found.append("a Nomad cluster, and nobody else, speaks for jobs of sites: set its `sites`, and only there")
    return found + _unfounded(issuer)


def _unfounded(issuer: Issuer) -> list[str]:
    """Rules about memberships that could never hold."""
    found = [
        f"group {rule.group!r} is for {rule.vo}, which is not among its `vos`"
        for rule in issuer.groups
        if rule.vo is not None and rule.vo not in issuer.vos
    ]
    if issuer.role_format and not {"{vo}", "{role}"} <= {f"{{{name}}}" for name in _fields(issuer.role_format)}:
        found.append("`role_format` must contain `{vo}` and `{role}`")
    if issuer.vos and not (issuer.speakers or issuer.groups or issuer.role_format):
        found.append("`vos` are named, but nothing says how: set `speakers`, `groups` or `role_format`")
    return found


def _fields(text: str) -> list[str]:
    return [each.split("}")[0] for each in text.split("{")[1:]]


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "egi": {
        "claims_from": "userinfo", "claims": ("eduperson_entitlement", "entitlements"), "subject_claim": "voperson_id",
        "algorithms": ("RS256",), "sub_groups_imply": True, "max_token_life_s": 7_200,
    },
    "keycloak": {"algorithms": ("RS256",), "max_token_life_s": 7_200},
    "iam": {"max_token_life_s": 21_600},
    "wlcg": {"group_claims": ("wlcg.groups",), "max_token_life_s": 21_600},
    "nomad": {"algorithms": ("RS256", "EdDSA", "Ed25519"), "max_token_life_s": 3_600},
}  # fmt: skip
"""What is usual for a profile; an entry that says something itself is right."""
