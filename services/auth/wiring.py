"""The wiring of auth: the one place where its parts meet, for processes, the embedded platform and tests."""

import asyncio
from datetime import timedelta
from functools import partial

import httpx2 as httpx

from services.auth import api
from services.auth.grants import Granting, Lives
from services.auth.keys import IssuerKeys
from services.auth.principals import Principals
from services.auth.settings import AuthSettings
from services.auth.signing_keys import KeyChest, KeyLife
from services.auth.store import load_keys, prune
from services.auth.verifier import Verifier
from shared.errors import Misconfigured, Unavailable
from shared.ports import Clock, Store
from shared.runtime.http import install_health
from shared.runtime.key_ring import KeyTimes
from shared.runtime.service import Service
from shared.runtime.telemetry import Tracer

__all__ = ["assemble"]

MIGRATIONS = "services.auth.migrations"


async def assemble(
    settings: AuthSettings, *, store: Store, clock: Clock, tracer: Tracer,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Service:  # fmt: skip
    """Auth, ready to serve. `transport` reaches the issuers (tests hand in their own); none = the network.

    Raises Misconfigured for a development issuer outside dev mode, or signing keys that cannot be unsealed.
    """
    _check_issuers(settings)
    chest = KeyChest(store, _key_secret(settings), _key_life(settings), clock)
    await chest.renew()
    issuers = {each.issuer: IssuerKeys(each, clock, _key_times(settings), transport) for each in settings.issuers}
    principals = Principals(
        Verifier(issuers, clock, settings.most_token_bytes), store, clock,
        cache=timedelta(seconds=settings.context_cache_s), size=settings.context_cache_size,
        life=timedelta(seconds=settings.membership_life_s),
    )  # fmt: skip
    lives = Lives(timedelta(seconds=settings.grant_life_s), timedelta(seconds=settings.read_grant_life_s))
    app = api.build(settings, principals, Granting(chest, lives), chest, store, clock, tracer)
    service = Service("auth", app)
    service.tasks["janitor"] = partial(_keep_house, settings, chest, store, clock)
    service.checks["store"] = partial(_store_answers, store)
    service.checks["issuers"] = partial(_an_issuer_answers, tuple(issuers.values()))
    service.closers.extend(issuer.close for issuer in issuers.values())
    install_health(app, service)
    return service


def _check_issuers(settings: AuthSettings) -> None:
    names = [issuer.issuer for issuer in settings.issuers]
    if len(set(names)) != len(names):
        raise Misconfigured("SERAI_AUTH_ISSUERS names an issuer twice")
    development = [issuer.issuer for issuer in settings.issuers if issuer.needs_dev_mode]
    if development and not settings.dev_mode:
        raise Misconfigured(
            f"{development[0]} is a development issuer: it gives tokens to anybody. Take it out of SERAI_AUTH_ISSUERS, "
            "or set SERAI_AUTH_DEV_MODE=true on a machine that nobody else can reach"
        )


def _key_secret(settings: AuthSettings) -> str:
    return (settings.key_secret or settings.service_token).get_secret_value()


def _key_life(settings: AuthSettings) -> KeyLife:
    return KeyLife(
        rotate_after=timedelta(seconds=settings.rotate_after_s),
        publish_before=timedelta(seconds=settings.publish_before_s),
        grant_life=timedelta(seconds=settings.grant_life_s),
    )


def _key_times(settings: AuthSettings) -> KeyTimes:
    return KeyTimes(settings.key_cool_down_s, settings.key_refresh_s, settings.key_expiry_s)


async def _keep_house(settings: AuthSettings, chest: KeyChest, database: Store, clock: Clock) -> None:
    """Reload and rotate keys, drop old rows, for ever."""
    while True:
        await chest.renew()
        now = clock()
        audit_before = now - timedelta(seconds=settings.audit_retention_s)
        seen_before = now - timedelta(seconds=settings.membership_life_s)
        await database.transact(partial(prune, audit_before=audit_before, seen_before=seen_before))
        await asyncio.sleep(settings.janitor_interval_s)


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
