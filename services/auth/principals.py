"""Who is behind a token, and what is remembered of them for the time when their jobs are dispatched.

A verified token is not verified again for a minute when only its context is asked for; for a grant it always is.
What a token said about memberships is durable before anything is granted on it. Called by `api.py`.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.auth import permissions, store
from services.auth.claims import Verified
from services.auth.verifier import Verifier
from shared.contracts.commands import Principal
from shared.contracts.questions import Decision, DecisionRequest
from shared.ports import Clock, Store

_WRITE_AGAIN: Final = timedelta(hours=1)
"""How old `seen_at` may be before an unchanged principal is written again."""
_Seen = tuple[dict[str, permissions.Role], frozenset[permissions.PlatformRole]]


class Principals:
    """Verified principals: a short memory by token, a long one by name."""

    def __init__(
        self, verifier: Verifier, database: Store, clock: Clock, *, cache: timedelta, size: int, life: timedelta
    ) -> None:
        self._verifier = verifier
        self._store = database
        self._clock = clock
        self._cache = cache
        self._size = size
        self._life = life
        self._verified: OrderedDict[bytes, tuple[Verified, datetime]] = OrderedDict()
        self._written: OrderedDict[tuple[str, str], tuple[_Seen, datetime]] = OrderedDict()

    async def behind(self, token: str) -> Verified:
        """The principal behind a token, from memory where that is fresh. Raises BadToken or Unavailable."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        known, until = self._verified.get(digest, (None, self._clock()))
        if known is not None and self._clock() < until:
            self._verified.move_to_end(digest)
            return known
        verified = await self.verified_now(token)
        self._verified[digest] = (verified, min(verified.expires_at, self._clock() + self._cache))
        while len(self._verified) > self._size:
            self._verified.popitem(last=False)
        return verified

    async def verified_now(self, token: str) -> Verified:
        """The principal behind a live token, verified at this moment and durably remembered."""
        verified = await self._verifier.verify(token)
        await self._remember(verified)
        return verified

    async def _remember(self, verified: Verified) -> None:
        who = (verified.principal.issuer, verified.principal.subject)
        seen: _Seen = (dict(verified.memberships), verified.platform_roles)
        now = self._clock()
        before, at = self._written.get(who, (None, now))
        if before == seen and now - at < _WRITE_AGAIN:
            return
        await self._store.transact(partial(store.remember, seen=verified, now=now))
        self._written[who] = (seen, now)
        self._written.move_to_end(who)
        while len(self._written) > self._size:
            self._written.popitem(last=False)

    async def still_may(self, asked: DecisionRequest, site_vos: Mapping[str, tuple[str, ...]]) -> Decision:
        """The dispatch question: may this principal still have this done, at this site? From what was last seen."""
        read = partial(store.last_seen, principal=asked.principal, since=self._clock() - self._life)
        return dispatch_decision(asked, await self._store.read(read), site_vos)


def dispatch_decision(
    asked: DecisionRequest, seen: store.LastSeen | None, site_vos: Mapping[str, tuple[str, ...]]
) -> Decision:
    """The decision itself, over what is known. Codes beside the table's: `unknown_principal`, `vo_not_at_site`."""
    if seen is None:
        words = f"{_words(asked.principal)} was never seen here"
        return Decision(allowed=False, code="unknown_principal", message=words)
    decision = permissions.decide(seen.memberships, seen.platform_roles, asked.verb, asked.vo or None, own=True)
    if not decision.allowed:
        return decision
    if asked.site is not None and asked.vo not in site_vos.get(asked.site, (asked.vo,)):
        words = f"VO {asked.vo} may not use the site {asked.site}"
        return Decision(allowed=False, code="vo_not_at_site", message=words)
    return decision


def _words(principal: Principal) -> str:
    return f"{principal.subject[:80]} of {principal.issuer[:200]}"
