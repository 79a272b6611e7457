"""From a bearer token to a principal, in the order that attacks demand: trust first, network second, claims last.

1 size and form; 2 a strict header; 3 the unverified `iss` only as a key into the trust list; 4 issuer and `kid` give
the key, the key gives the algorithm; 5 signature; 6 to 9 the claims (`claims.py`). Called by `principals.py`.
"""

import warnings
from collections.abc import Mapping
from typing import Final

from joserfc.errors import SecurityWarning

from services.auth.claims import BadToken, Verified, trust_of, verified
from services.auth.entitlements import Trust
from services.auth.keys import IssuerKey, IssuerKeys
from shared.ports import Clock
from shared.runtime import jws
from shared.runtime.key_ring import CoolingDown

_IGNORED: Final[Mapping[str, frozenset[str]]] = {
    "rfc9068": frozenset(),
    "keycloak": frozenset({"x5t", "x5t#S256"}),
}
_ANY_IGNORED: Final = frozenset().union(*_IGNORED.values())

warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


class Verifier:
    """Verifies tokens of the trusted issuers. Remembers nothing but keys."""

    def __init__(self, issuers: Mapping[str, IssuerKeys], clock: Clock, most_bytes: int) -> None:
        self._issuers = issuers
        self._trust: dict[str, Trust] = {name: trust_of(keys.issuer) for name, keys in issuers.items()}
        self._clock = clock
        self._most_bytes = most_bytes

    async def verify(self, token: str) -> Verified:
        """Who is behind the token. Raises BadToken, or Unavailable when its issuer's keys cannot be had."""
        compact = self._parsed(token)
        issuer = self._issuer(compact)
        if compact.header.keys() - jws.HEADER_NAMES - _IGNORED[issuer.issuer.profile]:
            raise BadToken("its header says more than its issuer may say there")
        key = await self._key(issuer, compact.kid)
        if compact.algorithm not in key.algorithms or not jws.verify(compact, key.key, compact.algorithm):
            raise BadToken("its signature is not its issuer's")
        trust = self._trust[issuer.issuer.issuer]
        return verified(compact.header, compact.unverified, issuer.issuer, trust, self._clock().timestamp())

    def _parsed(self, token: str) -> jws.Compact:
        try:
            return jws.parse(token, most_bytes=self._most_bytes, ignored=_ANY_IGNORED)
        except jws.Malformed as error:
            raise BadToken(str(error)) from error

    def _issuer(self, compact: jws.Compact) -> IssuerKeys:
        name = compact.unverified.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise BadToken("its issuer is not one that this platform trusts")
        return issuer

    async def _key(self, issuer: IssuerKeys, kid: str) -> IssuerKey:
        if not kid:
            raise BadToken("its header does not name a key")
        try:
            key = await issuer.ring.get(kid)
        except CoolingDown as error:
            raise BadToken("its issuer has no such key") from error
        if key is None:
            raise BadToken("its issuer has no such key")
        return key
