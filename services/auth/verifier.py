"""From a bearer token to a principal, in the order that attacks demand: trust first, network second, claims last.

1 size and form; 2 a strict header; 3 the unverified `iss` only as a key into the trust list; 4 issuer and `kid` give
the key, the key gives the algorithm; 5 signature; 6 to 8 what the token says of itself (`claims.py`, `profiles.py`);
9 memberships, from the token or from where its issuer keeps them (`claims_source.py`). Called by `principals.py`.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from joserfc.errors import SecurityWarning

from services.auth.bad_token import BadToken
from services.auth.claims import Trusted, Verified, presented, verified
from services.auth.claims_source import ClaimsSource
from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer
from services.auth.keys import IssuerKey, IssuerKeys
from services.auth.profiles import IGNORED_HEADERS
from shared.ports import Clock
from shared.runtime import jws
from shared.runtime.key_ring import CoolingDown

_REMEMBERED: Final = 4_096
_ANY_IGNORED: Final = frozenset().union(*IGNORED_HEADERS.values())

warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer with everything that is needed to believe its tokens. `source` is None where the token says all."""

    trusted: Trusted
    http: IssuerHttp
    keys: IssuerKeys
    source: ClaimsSource | None

    @property
    def issuer(self) -> Issuer:
        return self.trusted.issuer


class Verifier:
    """Verifies tokens of the trusted issuers. Remembers with which key it has checked a token's signature, and of the
    token its digest only: the same bytes and the same key give the same answer. Everything else is looked at each time.
    """

    def __init__(self, issuers: Mapping[str, TrustedIssuer], clock: Clock, most_bytes: int) -> None:
        self._issuers = issuers
        self._clock = clock
        self._most_bytes = most_bytes
        self._signed: OrderedDict[bytes, IssuerKey] = OrderedDict()

    async def verify(self, token: str, *, change: bool = False) -> Verified:
        """Who is behind the token. `change`: it is asked for something that changes something (younger claims).

        Raises BadToken, or Unavailable when its issuer's keys or claims cannot be had.
        """
        compact = self._parsed(token)
        known = self._issuer(compact)
        if compact.header.keys() - jws.HEADER_NAMES - IGNORED_HEADERS[known.issuer.profile]:
            raise BadToken("its header says more than its issuer may say there")
        key = await self._key(known.keys, compact.kid)
        if compact.algorithm not in key.algorithms or not self._is_signed(compact, key):
            raise BadToken("its signature is not its issuer's")
        said = presented(compact.header, compact.unverified, known.issuer, self._clock().timestamp())
        if not said.token_id:
            said = replace(said, token_id=f"sha256:{hashlib.sha256(token.encode()).hexdigest()}")
        claims = compact.unverified
        if known.source is not None:
            claims = dict(await known.source.claims(token, said, change=change))
        return verified(said, claims, known.trusted)

    def _is_signed(self, token: jws.Compact, key: IssuerKey) -> bool:
        digest = hashlib.sha256(token.text.encode()).digest()
        if self._signed.get(digest) is key:
            return True
        if not jws.verify(token, key.key, token.algorithm):
            return False
        self._signed[digest] = key
        while len(self._signed) > _REMEMBERED:
            self._signed.popitem(last=False)
        return True

    def _parsed(self, token: str) -> jws.Compact:
        try:
            return jws.parse(token, most_bytes=self._most_bytes, ignored=_ANY_IGNORED)
        except jws.Malformed as error:
            raise BadToken(str(error)) from error

    def _issuer(self, compact: jws.Compact) -> TrustedIssuer:
        name = compact.unverified.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise BadToken("its issuer is not one that this platform trusts")
        return issuer

    async def _key(self, keys: IssuerKeys, kid: str) -> IssuerKey:
        if not kid:
            raise BadToken("its header does not name a key")
        try:
            key = await keys.ring.get(kid)
        except CoolingDown as error:
            raise BadToken("its issuer has no such key") from error
        if key is None:
            raise BadToken("its issuer has no such key")
        return key
