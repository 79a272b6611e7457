"""The public keys of the trusted issuers: fetched from where the settings say, cleaned, kept.

Nothing that a token says becomes an address (`issuer_http.py`). One issuer's trouble is its own: each has its client,
its keys and its cool-down. Called by `verifier.py`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer
from services.auth.weak_keys import rsa_weakness
from shared.errors import Unavailable
from shared.ports import Clock
from shared.runtime import jws, logs
from shared.runtime.key_ring import KeyRing, KeyTimes

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

    def __init__(self, http: IssuerHttp, issuer: Issuer, clock: Clock, times: KeyTimes) -> None:
        self.issuer = issuer
        self._http = http
        self.ring: KeyRing[IssuerKey] = KeyRing(issuer.issuer, self._fetch, clock, times)

    async def _fetch(self) -> Mapping[str, IssuerKey]:
        """Its key set, from where the settings say, else from where its discovery document of this moment says."""
        if self.issuer.jwks_uri is None:
            await self._http.discover()
        address = await self._http.endpoint(self.issuer.jwks_uri, "jwks_uri")
        keys = usable(await self._http.get(address), self.issuer)
        if not keys:
            raise Unavailable(f"{self.issuer.issuer} publishes no key that can be used")
        return keys


def usable(document: Mapping[str, Any], issuer: Issuer) -> dict[str, IssuerKey]:
    """The keys of a JWKS (RFC 7517) that may verify signatures, by `kid`; each one left out is logged.

    Raises Unavailable when the document is not a key set at all.
    """
    found, left_out = examined(document, issuer)
    for kid, why in left_out:
        log.warning("key_left_out", issuer=issuer.issuer, kid=kid, why=why)
    return found


def examined(document: Mapping[str, Any], issuer: Issuer) -> tuple[dict[str, IssuerKey], list[tuple[str, str]]]:
    """The usable keys of a JWKS, and those left out as (`kid`, why). Raises Unavailable when it is no key set."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise Unavailable(f"{issuer.issuer} answered with something that is not a key set")
    entries = [entry for entry in entries if isinstance(entry, dict)]
    counts = Counter(entry.get("kid") for entry in entries if isinstance(entry.get("kid"), str))
    found: dict[str, IssuerKey] = {}
    left_out: list[tuple[str, str]] = []
    for entry in entries:
        kid, key = entry.get("kid"), _usable(entry, issuer)
        if isinstance(kid, str) and counts[kid] > 1:
            key = "its `kid` stands there twice"
        if isinstance(key, IssuerKey) and isinstance(kid, str):
            found[kid] = key
        else:
            left_out.append((str(kid)[:80], key if isinstance(key, str) else "it has no `kid`"))
    return found, left_out


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
