"""The life of the signing keys: made, published, signing, published still, forgotten. All copies share them.

The private halves are in the database, sealed with a secret from the settings. The next key is published long before
it signs, so whoever caches the key set knows it in time. Called by the wiring and by the janitor.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import orjson
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import OKPKey
from sqlalchemy import Connection

from services.auth import store
from services.auth.store import StoredKey
from shared.errors import Misconfigured
from shared.ports import Clock, Store
from shared.runtime.tokens import ALGORITHM

_MARGIN: Final = timedelta(hours=1)
"""How long a key is published after the last grant it may have signed has expired."""


@dataclass(frozen=True, slots=True)
class KeyLife:
    """When keys change: `rotate_after` of signing, `publish_before` signing, `grant_life` of what they sign."""

    rotate_after: timedelta
    publish_before: timedelta
    grant_life: timedelta


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key in hand."""

    kid: str
    key: OKPKey
    signs_from: datetime

    def public(self) -> dict[str, Any]:
        """Its entry in the JWKS."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": ALGORITHM}


def next_signs_from(keys: Sequence[StoredKey], now: datetime, life: KeyLife) -> datetime | None:
    """When a key that must be made now is to start signing; None when none must be made."""
    if not keys:
        return now
    due = keys[-1].signs_from + life.rotate_after - life.publish_before
    return max(now + life.publish_before, keys[-1].signs_from) if now >= due else None


def retired(keys: Sequence[StoredKey], now: datetime, life: KeyLife) -> list[str]:
    """The keys whose successors have been signing for longer than any grant of theirs can live."""
    return [key.kid for key, after in pairwise(keys) if after.signs_from + life.grant_life + _MARGIN < now]


class KeyChest:
    """The signing keys of the platform, as this copy knows them."""

    def __init__(self, database: Store, secret: str, life: KeyLife, clock: Clock) -> None:
        self._store = database
        self._seal = Fernet(_sealing_key(secret))
        self._life = life
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}

    async def renew(self) -> None:
        """Read the keys, make the next one if it is time, forget what is past."""
        stored = await self._store.transact(self._round)
        self._keys = {key.kid: self._keys.get(key.kid) or self._opened(key) for key in stored}

    def current(self) -> SigningKey:
        """The key to sign with now: the newest whose time has come. Chosen here, never by a library."""
        now = self._clock()
        able = [key for key in self._keys.values() if key.signs_from <= now]
        if not able:
            raise Misconfigured("no signing key may sign yet: the clock stands before the time the keys were made")
        return max(able, key=lambda key: key.signs_from)

    def published(self) -> dict[str, Any]:
        """The JWKS document (RFC 7517)."""
        return {"keys": [key.public() for key in self._keys.values()]}

    def _round(self, connection: Connection) -> list[StoredKey]:
        keys, now = store.load_keys(connection), self._clock()
        starts = next_signs_from(keys, now, self._life)
        if starts is not None:
            store.add_key(connection, self._made(starts))
        store.drop_keys(connection, retired(keys, now, self._life))
        return store.load_keys(connection) if starts is not None else keys

    def _made(self, signs_from: datetime) -> StoredKey:
        key = OKPKey.generate_key("Ed25519")
        sealed = self._seal.encrypt(orjson.dumps(key.as_dict(private=True))).decode()
        return StoredKey(key.thumbprint(), sealed, signs_from)

    def _opened(self, stored: StoredKey) -> SigningKey:
        try:
            plain = self._seal.decrypt(stored.sealed.encode())
        except InvalidToken as error:
            raise Misconfigured(
                "the signing keys in the database cannot be unsealed: SERAI_AUTH_KEY_SECRET (or, without it, "
                "SERAI_AUTH_SERVICE_TOKEN) is not the one they were sealed with"
            ) from error
        return SigningKey(stored.kid, OKPKey.import_key(orjson.loads(plain)), stored.signs_from)


def _sealing_key(secret: str) -> bytes:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"serai-auth signing keys").derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
