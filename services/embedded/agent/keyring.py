"""The region's keys, as Nomad's keyring: one seals variables at rest, one signs the identities of workloads.

Kept in `<data>/keystore/`, closed to everybody else, beside the journal that they protect: a copy of the journal alone
opens nothing. Blocking while it opens; `server.py` opens it once at start.
"""

import base64
import os
import uuid
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .jobspec import Row

ALGORITHM: Final = "EdDSA"
"""One of Nomad's two. Its default RS256 costs a tenth of a second for the key and a millisecond for each task."""
_NONCE: Final = 12


class Keyring:
    """One root key, made at the first start."""

    def __init__(self, directory: Path) -> None:
        file = directory / "root.json"
        kept = orjson.loads(file.read_bytes()) if file.exists() else _made(directory, file)
        self.key_id: str = kept["KeyID"]
        self._seal = AESGCM(base64.b64decode(kept["Seals"]))
        self._signs = Ed25519PrivateKey.from_private_bytes(base64.b64decode(kept["Signs"]))

    def seal(self, path: str, items: dict[str, str]) -> str:
        """Items of a variable as text for the journal, bound to its path."""
        nonce = os.urandom(_NONCE)
        return base64.b64encode(nonce + self._seal.encrypt(nonce, orjson.dumps(items), path.encode())).decode()

    def open(self, path: str, sealed: str) -> dict[str, str]:
        """The opposite of `seal`."""
        box = base64.b64decode(sealed)
        items: dict[str, str] = orjson.loads(self._seal.decrypt(box[:_NONCE], box[_NONCE:], path.encode()))
        return items

    def sign(self, claims: dict[str, Any]) -> str:
        """A workload identity (a JWT; RFC 7519, RFC 8037)."""
        header = {"alg": ALGORITHM, "kid": self.key_id, "typ": "JWT"}
        signed = f"{_base64url(orjson.dumps(header))}.{_base64url(orjson.dumps(claims))}"
        return f"{signed}.{_base64url(self._signs.sign(signed.encode()))}"

    def jwks(self) -> Row:
        """`/.well-known/jwks.json`."""
        public = _base64url(self._signs.public_key().public_bytes_raw())
        key = {"use": "sig", "kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "alg": ALGORITHM, "x": public}
        return {"keys": [key]}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _made(directory: Path, file: Path) -> Row:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    row = {
        "KeyID": str(uuid.uuid4()),
        "Seals": base64.b64encode(AESGCM.generate_key(256)).decode(),
        "Signs": base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode(),
    }
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(orjson.dumps(row))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    return row
