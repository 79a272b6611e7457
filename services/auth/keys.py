"""The public keys of the trusted issuers: fetched from where the settings say, cleaned, kept.

Nothing that a token says becomes an address. One issuer's trouble is its own: each has its client, its keys and its
cool-down. Called by `verifier.py`.
"""

import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.auth.settings import Issuer
from services.auth.weak_keys import rsa_weakness
from shared.errors import Unavailable
from shared.ports import Clock
from shared.runtime import jws, logs
from shared.runtime.key_ring import KeyRing, KeyTimes

MOST_BYTES: Final = 262_144
_TIMEOUT: Final = httpx.Timeout(2.0, connect=2.0)
_DISCOVERY: Final = "/.well-known/openid-configuration"
_CURVES: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("Ed25519", "EdDSA")}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PUBLIC_MEMBERS: Final = ("kty", "n", "e", "crv", "x", "y")

log = logs.get("auth.keys")


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A usable key and the algorithms that it may be used with: the key says, never the token."""

    key: jws.PublicKey
    algorithms: frozenset[str]


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(
        self, issuer: Issuer, clock: Clock, times: KeyTimes, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.issuer = issuer
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=issuer.ca_file) if issuer.ca_file else True
        self._client = httpx.AsyncClient(
            transport=transport, verify=verify, timeout=_TIMEOUT, follow_redirects=False, trust_env=False
        )
        self.ring: KeyRing[IssuerKey] = KeyRing(issuer.issuer, self._fetch, clock, times)

    async def close(self) -> None:
        await self._client.aclose()

    async def _fetch(self) -> Mapping[str, IssuerKey]:
        address = self.issuer.jwks_uri or await self._discover()
        keys = usable(await self._get(address), self.issuer)
        if not keys:
            raise Unavailable(f"{self.issuer.issuer} publishes no key that can be used")
        return keys

    async def _discover(self) -> str:
        """The key set's address in the discovery document (OpenID Connect Discovery 1.0, section 4.3)."""
        document = await self._get(self.issuer.issuer.rstrip("/") + _DISCOVERY)
        if document.get("issuer") != self.issuer.issuer:
            raise Unavailable(f"the discovery document at {self.issuer.issuer} names another issuer")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or urlsplit(address)[:2] != urlsplit(self.issuer.issuer)[:2]:
            raise Unavailable(f"{self.issuer.issuer} keeps its keys elsewhere: set `jwks_uri` if that is right")
        return address

    async def _get(self, address: str) -> dict[str, Any]:
        try:
            async with self._client.stream("GET", address, headers={"Accept": "application/json"}) as response:
                if response.status_code != 200:
                    raise Unavailable(f"{address} answered {response.status_code}")
                return jws.strict_json(await _limited(response, address), 6, "the document")
        except (httpx.HTTPError, jws.Malformed, ssl.SSLError) as error:
            raise Unavailable(f"{address} does not answer as it should: {error!r}") from error


async def _limited(response: httpx.Response, address: str) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Unavailable(f"{address} answered more than {MOST_BYTES} bytes")
    return body


def usable(document: Mapping[str, Any], issuer: Issuer) -> dict[str, IssuerKey]:
    """The keys of a JWKS (RFC 7517) that may verify signatures, by `kid`; each one left out is logged.

    Raises Unavailable when the document is not a key set at all.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise Unavailable(f"{issuer.issuer} answered with something that is not a key set")
    entries = [entry for entry in entries if isinstance(entry, dict)]
    counts = Counter(entry.get("kid") for entry in entries if isinstance(entry.get("kid"), str))
    found: dict[str, IssuerKey] = {}
    for entry in entries:
        kid, key = entry.get("kid"), _usable(entry, issuer)
        if isinstance(kid, str) and counts[kid] > 1:
            key = "its `kid` stands there twice"
        if isinstance(key, IssuerKey) and isinstance(kid, str):
            found[kid] = key
        else:
            log.warning("key_left_out", issuer=issuer.issuer, kid=str(kid)[:80], why=key or "it has no `kid`")
    return found


def _usable(entry: Mapping[str, Any], issuer: Issuer) -> IssuerKey | str:
    """The key of one entry, or why there is none."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return "it is not for signatures"
    algorithms = frozenset(_possible(entry)) & frozenset(issuer.algorithms)
    if "alg" in entry:
        algorithms &= {str(entry["alg"])}
    if not algorithms:
        return "no algorithm of it is accepted"
    public = {name: entry[name] for name in _PUBLIC_MEMBERS if name in entry}
    try:
        return _imported(public, algorithms)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        return f"it is broken: {type(error).__name__}"


def _possible(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if entry.get("kty") == "RSA":
        return _RSA
    return _CURVES.get(str(entry.get("crv")), ()) if entry.get("kty") in ("EC", "OKP") else ()


def _imported(public: dict[str, Any], algorithms: frozenset[str]) -> IssuerKey | str:
    match public["kty"]:
        case "RSA":
            key = RSAKey.import_key(public)
            numbers = key.public_key.public_numbers()
            return rsa_weakness(numbers.n, numbers.e) or IssuerKey(key, algorithms)
        case "EC":
            return IssuerKey(ECKey.import_key(public), algorithms)
        case _:
            return IssuerKey(OKPKey.import_key(public), algorithms)
