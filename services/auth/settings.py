"""Settings of auth, read once from `SERAI_AUTH_*`; frozen. Issuers, and what they may say, are data (`issuers.py`)."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.auth.issuers import Issuer, Speaker, is_loopback
from shared.contracts.policies import Policy
from shared.errors import Misconfigured
from shared.job import SiteName, VoName

__all__ = ["AuthSettings", "Issuer", "IssuerSettings", "Speaker", "is_loopback", "read_issuers", "trusted_issuers"]


class IssuerSettings(BaseSettings):
    """Whom to trust; all that `serai-platform issuers` needs."""

    model_config = SettingsConfigDict(env_prefix="SERAI_AUTH_", frozen=True, extra="forbid")

    issuers: tuple[Issuer, ...] = Field(default=(), description="Trusted issuers, as a JSON list.")
    issuers_file: Path | None = Field(
        default=None, description="YAML file of further trusted issuers (`issuers:`), as in "
        "`compose/auth/issuers.example.yaml`."
    )  # fmt: skip


class AuthSettings(IssuerSettings):
    """Trust, lifetimes and limits."""

    service_token: SecretStr = Field(
        description="The service's own secret: it derives from it what it seals with. The same at all its copies."
    )
    key_secret: SecretStr | None = Field(
        default=None, description="Secret that seals the signing keys in the database, so that a copy of it signs "
        "nothing. Empty = derived from `service_token`; set it where other services know that one."
    )  # fmt: skip
    dev_mode: bool = Field(default=False, description="Accept development issuers. Never where others can reach us.")
    site_vos: dict[SiteName, tuple[VoName, ...]] = Field(
        default_factory=dict,
        description="VOs allowed at a site, asked at dispatch; a site not named takes all.",
    )
    platform_policy: Policy = Field(
        default=Policy(), description="What the platform allows at most, as a JSON policy (docs/policies.md); VOs and "
        "sites can only take away from it."
    )  # fmt: skip
    site_policies: dict[SiteName, Policy] = Field(
        default_factory=dict, description="What each site allows, as JSON policies; a site not named restricts nothing."
    )
    most_token_bytes: int = Field(default=16_384, ge=1024, description="Bytes of a token; longer ones are refused.")
    context_cache_s: float = Field(
        default=60, ge=0, le=300, description="Seconds that a verified token is not verified again for `/context`."
    )
    claims_fresh_s: float = Field(
        default=240, ge=0, le=300, description="Seconds that an issuer's word on memberships (userinfo, introspection) "
        "serves reads."
    )  # fmt: skip
    claims_fresh_write_s: float = Field(
        default=60, ge=0, le=60, description="Seconds that it serves submissions and other changes."
    )
    claims_stale_s: float = Field(
        default=600, ge=0, le=3_600, description="Seconds that it serves reads while its issuer does not answer."
    )
    claims_timeout_s: float = Field(default=2, gt=0, le=10, description="Seconds that one such question may take.")
    claims_at_once: int = Field(default=16, ge=1, description="Such questions to one issuer at a time; more wait.")
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
    secrets_key: SecretStr | None = Field(
        default=None, description="Secret that seals users' secrets in the database. Empty = `key_secret`, or derived "
        "from `service_token`; set it where other services know that one."
    )  # fmt: skip
    secrets_former_keys: tuple[SecretStr, ...] = Field(
        default=(), description="Earlier values of `secrets_key`, as a JSON list: they open what they sealed until the "
        "janitor has sealed it anew; then they can go."
    )  # fmt: skip
    most_secrets: int = Field(default=100, ge=1, description="Secrets of one owner in one VO.")
    secrets_unused_s: float = Field(
        default=365 * 86_400, gt=0, description="Seconds after which a secret that was neither set nor used is deleted."
    )
    audit_retention_s: float = Field(default=365 * 86_400, gt=0, description="Seconds that audit rows are kept.")
    janitor_interval_s: float = Field(
        default=60, gt=0, description="Seconds between rounds that reload and rotate keys and drop old rows."
    )


def read_issuers(file: Path) -> tuple[Issuer, ...]:
    """The issuers of a YAML file. Raises Misconfigured, naming the entry and what to mend."""
    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured(f"the issuers in {file} cannot be read: {error}") from error
    entries = document.get("issuers") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise Misconfigured(f"{file} must have a list `issuers:` at its top")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(Issuer.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Misconfigured(f"{file}, issuer {number}{f', {where}' if where else ''}: {first['msg']}") from error
    return tuple(found)


def trusted_issuers(settings: IssuerSettings) -> tuple[Issuer, ...]:
    """The issuers of the settings and of their file together. Raises Misconfigured."""
    return settings.issuers + (read_issuers(settings.issuers_file) if settings.issuers_file else ())
