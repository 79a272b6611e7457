"""Settings of auth, read once from `SERAI_AUTH_*`; frozen. Issuers, and what they may say, are data."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.auth.permissions import PlatformRole, Role
from shared.job import SiteName, VoName

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures only: an HMAC with an issuer is a shared secret, and `none` is none."""

Namespace = Annotated[str, StringConstraints(pattern=r"^urn:(?:mace|geant)(?::[a-z0-9._-]+)+$")]


class Speaker(BaseModel):
    """A namespace and the authority that may speak in it, as entitlements spell them (AARC-G069)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Namespace = Field(description="Up to `:group:`, e.g. `urn:mace:egi.eu`.")
    authority: str = Field(min_length=1, description="What stands after `#`, e.g. `aai.egi.eu`.")


class Issuer(BaseModel):
    """An identity provider that is trusted, and how far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(description="Exactly the tokens' `iss`; compared character by character.")
    audiences: tuple[str, ...] = Field(min_length=1, description="One of these must be among a token's `aud`.")
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="Signature algorithms that this issuer uses."
    )
    jwks_uri: str | None = Field(
        default=None,
        description="Where its keys are. Empty = as its discovery document says, on its own host.",
    )
    profile: Literal["rfc9068", "keycloak"] = Field(
        default="rfc9068", description="What an access token looks like: header type `at+jwt` (RFC 9068), or "
        "Keycloak's header type `JWT` with `typ` `Bearer` in the payload."
    )  # fmt: skip
    claims: tuple[str, ...] = Field(
        default=("entitlements", "eduperson_entitlement"),
        description="Claims of entitlements; the first there counts.",
    )
    speakers: tuple[Speaker, ...] = Field(default=(), description="Namespaces and authorities it may speak for.")
    vos: tuple[VoName, ...] = Field(default=(), description="VOs it may assert; any other VO from it is ignored.")
    roles: dict[str, Role] = Field(
        default={"member": Role.MEMBER, "manager": Role.MANAGER, "operator": Role.OPERATOR, "observer": Role.OBSERVER},
        description="Its role words in ours; a word that is not here gives no role. The word '' = group without role.",
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
    ca_file: Path | None = Field(default=None, description="PEM file of the CAs for its TLS; empty = the system's.")
    development: bool = Field(default=False, description="A development issuer: refused unless `dev_mode` is set.")

    @model_validator(mode="after")
    def _addresses_are_plain(self) -> Self:
        for url in filter(None, (self.issuer, self.jwks_uri)):
            parts = urlsplit(url)
            if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
                raise ValueError(f"{url!r} is not a plain https address")
            if parts.scheme == "http" and not (self.development and is_loopback(parts.hostname)):
                raise ValueError(f"{url!r} must be https; http is for development issuers on loopback only")
        return self

    @property
    def needs_dev_mode(self) -> bool:
        """Whether this is a development issuer, by its own word or by its address."""
        return self.development or is_loopback(urlsplit(self.issuer).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class AuthSettings(BaseSettings):
    """Trust, lifetimes and limits."""

    model_config = SettingsConfigDict(env_prefix="SERAI_AUTH_", frozen=True, extra="forbid")

    service_token: SecretStr = Field(description="Secret shared by the services: opens `/internal`.")
    key_secret: SecretStr | None = Field(
        default=None, description="Secret that seals the signing keys in the database, so that a copy of it signs "
        "nothing. Empty = derived from `service_token`; set it where other services know that one."
    )  # fmt: skip
    issuers: tuple[Issuer, ...] = Field(default=(), description="Trusted issuers, as a JSON list.")
    dev_mode: bool = Field(default=False, description="Accept development issuers. Never where others can reach us.")
    site_vos: dict[SiteName, tuple[VoName, ...]] = Field(
        default_factory=dict,
        description="VOs allowed at a site, asked at dispatch; a site not named takes all.",
    )
    most_token_bytes: int = Field(default=16_384, ge=1024, description="Bytes of a token; longer ones are refused.")
    context_cache_s: float = Field(
        default=60, ge=0, le=300, description="Seconds that a verified token is not verified again for `/context`."
    )
    context_cache_size: int = Field(default=10_000, ge=1, description="Verified tokens kept; the longest unused goes.")
    grant_life_s: float = Field(
        default=900, gt=0, le=3600, description="Seconds a command grant is good: a broker's outage and redelivery."
    )
    read_grant_life_s: float = Field(default=60, gt=0, le=300, description="Seconds a read grant is good.")
    membership_life_s: float = Field(
        default=30 * 86_400, gt=0, description="Seconds that a membership seen in a token answers dispatch decisions: "
        "jobs may wait while their owner is away, but not for ever."
    )  # fmt: skip
    key_cool_down_s: float = Field(
        default=60, gt=0, description="Seconds between two fetches of an issuer's keys, whatever tokens name."
    )
    key_refresh_s: float = Field(default=3_600, gt=0, description="Age in seconds at which keys are fetched anew.")
    key_expiry_s: float = Field(
        default=48 * 3_600, gt=0, description="Age in seconds from which keys are not used although fetching fails."
    )
    rotate_after_s: float = Field(default=90 * 86_400, gt=0, description="Seconds that a signing key signs.")
    publish_before_s: float = Field(
        default=86_400, gt=0, description="Seconds that a new signing key is published before it signs."
    )
    audit_retention_s: float = Field(default=365 * 86_400, gt=0, description="Seconds that audit rows are kept.")
    janitor_interval_s: float = Field(
        default=60, gt=0, description="Seconds between rounds that reload and rotate keys and drop old rows."
    )
