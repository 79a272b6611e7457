"""Sealing users' secrets at rest: AES-256-GCM under keys of the settings, bound to whose secret it is. No I/O.

The associated data (NIST SP 800-38D) is VO, owner and name: a row that was copied to another place does not open
there. Each sealed value names its key, so that a new key can come while the old one still opens what it sealed.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.contracts.commands import Principal
from shared.errors import Misconfigured

_NONCE: Final = 12
"""Bytes; random. NIST allows 2**32 of them under one key."""


@dataclass(frozen=True, slots=True)
class Whose:
    """What a secret belongs to; two that differ in anything never open each other's."""

    vo: str
    owner: Principal
    name: str

    def bound(self) -> bytes:
        """The associated data: a JSON list, so that no two owners can spell the same bytes."""
        return orjson.dumps([self.vo, self.owner.issuer, self.owner.subject, self.name])


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value at rest."""

    key_id: str
    box: bytes


class SecretBox:
    """Seals with the current key; opens with that one and those before it."""

    def __init__(self, current: str, former: Sequence[str] = ()) -> None:
        made = [_key(secret) for secret in (current, *former)]
        self._keys = {key_id: AESGCM(key) for key_id, key in made}
        self.current = made[0][0]
        self.former = frozenset(self._keys) - {self.current}

    def seal(self, value: bytes, whose: Whose) -> Sealed:
        nonce = os.urandom(_NONCE)
        return Sealed(self.current, nonce + self._keys[self.current].encrypt(nonce, value, whose.bound()))

    def open(self, sealed: Sealed, whose: Whose) -> bytes:
        """The value. Raises Misconfigured when no key of the settings opens it."""
        key = self._keys.get(sealed.key_id)
        try:
            if key is not None:
                return key.decrypt(sealed.box[:_NONCE], sealed.box[_NONCE:], whose.bound())
        except InvalidTag:
            pass  # told below, together with a key that is not there
        raise Misconfigured(
            f"the secret {whose.name!r} in {whose.vo} cannot be opened: the key {sealed.key_id} that sealed it is "
            "neither SERAI_AUTH_SECRETS_KEY nor among SERAI_AUTH_SECRETS_FORMER_KEYS, or the row was tampered with"
        )


def _key(secret: str) -> tuple[str, bytes]:
    """A key and its id, both derived: the id tells nothing of the key."""
    key = HKDF(hashes.SHA256(), 32, salt=None, info=b"serai-auth users' secrets").derive(secret.encode())
    return hashlib.sha256(b"id" + key).hexdigest()[:16], key
