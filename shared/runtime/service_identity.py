"""How services of the platform know each other: each signs for itself, for one receiver, for a minute.

A credential is a compact JWS (`serai-service+jwt`, Ed25519) in the header `Serai-Service`, with issuer and audience:
what a service was shown opens no other door, and a key that was stolen from one service speaks for no other. Receivers
know the public keys of all (settings: `service_keys`) and say per route who may ask (`shared/runtime/http.py`).
"""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws as jose
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from shared.errors import Misconfigured, Refused
from shared.ports import Clock
from shared.runtime import jws
from shared.runtime.clock import system_clock

SERVICES: Final = ("auth", "gateway", "monitor", "scheduler")
TYPE: Final = "serai-service+jwt"
_ALGORITHM: Final = "Ed25519"
_LIFE: Final = timedelta(seconds=60)
_SKEW: Final = timedelta(seconds=60)
_MOST_BYTES: Final = 2_048
_REMEMBERED: Final = 256

HEADER: Final = "Serai-Service"

Keys = Mapping[str, Sequence[OKPKey]]
"""Public keys by service; several while one is being replaced."""


class Identity:
    """What a service shows to others."""

    def __init__(self, service: str, key: OKPKey, clock: Clock = system_clock) -> None:
        self._service = service
        self._key = key
        self._clock = clock
        self._shown: dict[str, tuple[str, float]] = {}

    def headers(self, receiver: str) -> dict[str, str]:
        """What goes along with a question."""
        return {HEADER: self.shown_to(receiver)}

    def shown_to(self, receiver: str) -> str:
        """The credential for one receiver; made anew when half of its life is over."""
        now = self._clock().timestamp()
        credential, until = self._shown.get(receiver, ("", 0.0))
        if not credential or not now < until <= now + _LIFE.total_seconds():
            credential = self._signed(receiver, now)
            self._shown[receiver] = credential, now + _LIFE.total_seconds() / 2
        return credential

    def _signed(self, receiver: str, now: float) -> str:
        header = {"alg": _ALGORITHM, "typ": TYPE, "kid": self._key.thumbprint()}
        claims = {"iss": self._service, "aud": receiver, "iat": now, "exp": now + _LIFE.total_seconds()}
        return jose.serialize_compact(header, orjson.dumps(claims), self._key, algorithms=[_ALGORITHM])


class SharedSecret:
    """The same secret for everybody: for services without keys, in one process. No setting of a process leads here."""

    def __init__(self, token: str) -> None:
        self._token = token

    def headers(self, receiver: str) -> dict[str, str]:
        """What goes along with a question."""
        return {"Authorization": f"Bearer {self._token}"}


@dataclass(frozen=True, slots=True)
class _Known:
    service: str
    until: float


class Door:
    """Tells a receiver which service asks. `keys` are the public keys of all; `shared`, where there are none, a secret
    that all in one process show.
    """

    def __init__(self, receiver: str, keys: Keys, *, shared: str = "", clock: Clock = system_clock) -> None:
        assert not (keys and shared), "a shared secret beside keys would open what they close"
        self._receiver = receiver
        self._keys = {key.thumbprint(): (service, key) for service, those in keys.items() for key in those}
        self._shared = f"Bearer {shared}".encode() if shared else b""
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def who(self, headers: Mapping[str, str], may: Sequence[str]) -> str:
        """The service that asks, `any` behind the shared secret. Raises Refused unless it is one of `may`.

        `headers` are looked up in small letters.
        """
        credential = headers.get(HEADER.lower(), "")
        if not credential or not self._keys:
            given = headers.get("authorization", "").encode()
            if self._shared and hmac.compare_digest(given, self._shared):
                return "any"
            raise _stranger("it shows nothing that says which it is" if not credential else "no keys are known here")
        service = self._verified(credential)
        if service not in may:
            raise Refused(f"the service {service} may not ask this", code="forbidden")
        return service

    def _verified(self, credential: str) -> str:
        now, digest = self._clock().timestamp(), hashlib.sha256(credential.encode(errors="replace")).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._read(credential, now)
            self._known[digest] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if now >= known.until:
            raise _stranger("its time is over")
        return known.service

    def _read(self, credential: str, now: float) -> _Known:
        try:
            token = jws.parse(credential, most_bytes=_MOST_BYTES)
        except jws.Malformed as error:
            raise _stranger(str(error)) from error
        service, key = self._keys.get(token.kid, ("", None))
        if key is None or token.header.get("typ") != TYPE or not jws.verify(token, key, _ALGORITHM):
            raise _stranger("its signature is not a service's")
        said = token.unverified
        issued, until = said.get("iat"), said.get("exp")
        if said.get("iss") != service or said.get("aud") != self._receiver:
            raise _stranger(f"it is not {service}'s for {self._receiver}")
        if not isinstance(issued, float | int) or not isinstance(until, float | int):
            raise _stranger("it does not say how long it is good")
        if issued > now + _SKEW.total_seconds() or until > now + (_LIFE + _SKEW).total_seconds():
            raise _stranger("it is of the future: check the clocks")
        return _Known(service, until)


def _stranger(why: str) -> Refused:
    return Refused(f"this route is for services of the platform only: {why}", code="unauthenticated")


# -- keys as settings spell them ----------------------------------------------------------------------------------


def made_key() -> tuple[str, str]:
    """A new private key and its public half, as settings spell them."""
    key = OKPKey.generate_key("Ed25519").as_dict(private=True)
    return str(key["d"]), str(key["x"])


def private_key(text: str) -> OKPKey:
    """A private key from a setting. Raises Misconfigured, without showing it."""
    try:
        seed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    except ValueError as error:
        raise Misconfigured("SERAI_SERVICE_KEY is not a key of `serai-platform service-keys`") from error
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": text, "x": x})


def public_keys(text: str) -> dict[str, list[OKPKey]]:
    """The public keys of all services from a setting: `gateway=<key>,scheduler=<key>,...`. Raises Misconfigured."""
    found: dict[str, list[OKPKey]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        service, _, key = entry.partition("=")
        if service not in SERVICES:
            raise Misconfigured(f"SERAI_SERVICE_KEYS: there is no service {service[:40]!r}: {', '.join(SERVICES)}")
        try:
            found.setdefault(service, []).append(OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": key}))
        except (ValueError, JoseError) as error:
            raise Misconfigured(f"SERAI_SERVICE_KEYS: the key of {service} is not one: {error}") from error
    return found
