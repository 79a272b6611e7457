"""The wiring of auth: the one place where its parts meet, for processes, the embedded platform and tests."""

import asyncio
from datetime import timedelta
from functools import partial

import httpx2 as httpx

from services.auth import admin_api, api, secret_api
from services.auth.book import Book
from services.auth.claims import trusted
from services.auth.claims_source import ClaimsSource, Freshness, Limits
from services.auth.grants import Granting, Lives
from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer
from services.auth.janitor import Janitor, Keep, keep_keys_young
from services.auth.keys import IssuerKeys
from services.auth.policies import Layers
from services.auth.principals import Principals
from services.auth.secret_box import SecretBox
from services.auth.settings import AuthSettings, trusted_issuers
from services.auth.signing_keys import KeyChest, KeyLife
from services.auth.store import load_keys
from services.auth.verifier import TrustedIssuer, Verifier
from shared.errors import Misconfigured, Unavailable
from shared.ports import Clock, Store
from shared.runtime import logs
from shared.runtime.http import install_health
from shared.runtime.key_ring import KeyTimes
from shared.runtime.service import Service
from shared.runtime.service_identity import Door
from shared.runtime.telemetry import Tracer

__all__ = ["assemble"]

MIGRATIONS = "services.auth.migrations"

log = logs.get("auth")


async def assemble(
    settings: AuthSettings, *, store: Store, clock: Clock, tracer: Tracer,
    transport: httpx.AsyncBaseTransport | None = None, door: Door | None = None,
) -> Service:  # fmt: skip
    """Auth, ready to serve. `transport` reaches the issuers (tests hand in their own); none = the network. `door` knows
    the other services; none = by the secret that all share.

    Raises Misconfigured for a development issuer outside dev mode, or signing keys that cannot be unsealed.
    """
    entries = trusted_issuers(settings)
    _check_issuers(entries, dev_mode=settings.dev_mode)
    chest = KeyChest(store, _key_secret(settings), _key_life(settings), clock)
    await chest.renew()
    issuers = {each.issuer: trusted_issuer(each, settings, clock, transport) for each in entries}
    principals = Principals(
        Verifier(issuers, clock, settings.most_token_bytes), store, clock,
        cache=timedelta(seconds=settings.context_cache_s), size=settings.context_cache_size,
        life=timedelta(seconds=settings.membership_life_s),
        lives={each.issuer: timedelta(seconds=each.membership_life_s) for each in entries if each.membership_life_s},
    )  # fmt: skip
    lives = Lives(timedelta(seconds=settings.grant_life_s), timedelta(seconds=settings.read_grant_life_s))
    layers, book = Layers(settings.platform_policy, settings.site_policies), Book(store, clock)
    granting = Granting(chest, lives, layers)
    door = door or Door("auth", {}, shared=settings.service_token.get_secret_value())
    parts = api.Parts(settings, door, principals, granting, layers, book, chest, store, clock, tracer)
    app = api.build(parts)
    admin_api.add_to(app, parts, issuers)
    box = _secret_box(settings)
    secret_api.add_to(app, parts, box)
    service = Service("auth", app)
    keys = tuple(issuer.keys for issuer in issuers.values())
    people = tuple(issuer.keys for issuer in issuers.values() if issuer.issuer.profile != "nomad")
    service.tasks["janitor"] = Janitor(chest, box, store, clock, _keep(settings)).run
    service.tasks["issuers"] = partial(keep_keys_young, keys, settings.janitor_interval_s)
    service.checks["store"] = partial(_store_answers, store)
    service.checks["issuers"] = partial(_an_issuer_answers, people)
    service.closers.extend(issuer.http.close for issuer in issuers.values())
    install_health(app, service)
    return service


def trusted_issuer(
    issuer: Issuer, settings: AuthSettings, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
) -> TrustedIssuer:
    """One issuer with its client, its keys and, where tokens do not say all, its claims source."""
    http = IssuerHttp(issuer, transport)
    source = None
    if issuer.claims_from != "token":
        limits = Limits(settings.claims_timeout_s, settings.claims_at_once)
        source = ClaimsSource(issuer, http, clock, _freshness(settings), limits)
    return TrustedIssuer(trusted(issuer), http, IssuerKeys(http, issuer, clock, _key_times(settings)), source)


def _check_issuers(issuers: tuple[Issuer, ...], *, dev_mode: bool) -> None:
    names = [issuer.issuer for issuer in issuers]
    if len(set(names)) != len(names):
        raise Misconfigured("SERAI_AUTH_ISSUERS and SERAI_AUTH_ISSUERS_FILE name an issuer twice")
    development = [issuer.issuer for issuer in issuers if issuer.needs_dev_mode]
    if development and not dev_mode:
        raise Misconfigured(
            f"{development[0]} is a development issuer: it gives tokens to anybody. Take it out of SERAI_AUTH_ISSUERS, "
            "or set SERAI_AUTH_DEV_MODE=true on a machine that nobody else can reach"
        )
    for issuer in issuers:
        if issuer.accept_shared_audience:
            log.warning("shared_audience_accepted", issuer=issuer.issuer, clients=issuer.clients)


def _freshness(settings: AuthSettings) -> Freshness:
    return Freshness(
        read=timedelta(seconds=settings.claims_fresh_s), write=timedelta(seconds=settings.claims_fresh_write_s),
        stale=timedelta(seconds=settings.claims_stale_s),
    )  # fmt: skip


def _key_secret(settings: AuthSettings) -> str:
    return (settings.key_secret or settings.service_token).get_secret_value()


def _secret_box(settings: AuthSettings) -> SecretBox:
    current = settings.secrets_key.get_secret_value() if settings.secrets_key else _key_secret(settings)
    return SecretBox(current, [former.get_secret_value() for former in settings.secrets_former_keys])


def _key_life(settings: AuthSettings) -> KeyLife:
    return KeyLife(
        rotate_after=timedelta(seconds=settings.rotate_after_s),
        publish_before=timedelta(seconds=settings.publish_before_s),
        grant_life=timedelta(seconds=settings.grant_life_s),
    )


def _keep(settings: AuthSettings) -> Keep:
    return Keep(
        timedelta(seconds=settings.audit_retention_s), timedelta(seconds=settings.membership_life_s),
        timedelta(seconds=settings.secrets_unused_s), settings.janitor_interval_s,
    )  # fmt: skip


def _key_times(settings: AuthSettings) -> KeyTimes:
    return KeyTimes(settings.key_cool_down_s, settings.key_refresh_s, settings.key_expiry_s)


async def _store_answers(database: Store) -> None:
    await database.read(load_keys)


async def _an_issuer_answers(issuers: tuple[IssuerKeys, ...]) -> None:
    """Ready while tokens of at least one issuer can be verified: one issuer's trouble is not everybody's."""
    troubles = []
    for trouble in await asyncio.gather(*(issuer.ring.refresh() for issuer in issuers), return_exceptions=True):
        if trouble is None:
            return
        troubles.append(getattr(trouble, "what", repr(trouble)))
    if issuers:
        raise Unavailable("; ".join(troubles))
