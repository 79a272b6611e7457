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
from services.auth.standing import LastSeen
from services.auth.verifier import Verifier
from shared.contracts.commands import Principal
from shared.ports import Clock, Store

_WRITE_AGAIN: Final = timedelta(minutes=5)
"""How old `seen_at` may be before an unchanged principal is written again: another copy may have written otherwise."""
_Seen = tuple[dict[str, permissions.Role], frozenset[permissions.PlatformRole], frozenset[str]]


class Principals:
    """Verified principals: a short memory by token, a long one by name. What was seen counts for `life`, for less where
    `lives` says so of the issuer.
    """

    def __init__(
        self, verifier: Verifier, database: Store, clock: Clock, *, cache: timedelta, size: int, life: timedelta,
        lives: Mapping[str, timedelta],
    ) -> None:  # fmt: skip
        self._verifier = verifier
        self._store = database
        self._clock = clock
        self._cache = cache
        self._size = size
        self._life = life
        self._lives = lives
        self._verified: OrderedDict[bytes, tuple[Verified, datetime]] = OrderedDict()
        self._written: OrderedDict[tuple[str, str], tuple[_Seen, datetime]] = OrderedDict()

    async def behind(self, token: str) -> Verified:
        """The principal behind a token, from memory where that is fresh. Raises BadToken or Unavailable."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        known, until = self._verified.get(digest, (None, self._clock()))
        if known is not None and self._clock() < until:
            self._verified.move_to_end(digest)
            return known
        verified = await self._seen(token, change=False)
        self._verified[digest] = (verified, min(verified.expires_at, self._clock() + self._cache))
        while len(self._verified) > self._size:
            self._verified.popitem(last=False)
        return verified

    async def verified_now(self, token: str) -> Verified:
        """The principal behind a live token, verified at this moment and durably remembered."""
        return await self._seen(token, change=True)

    async def _seen(self, token: str, *, change: bool) -> Verified:
        verified = await self._verifier.verify(token, change=change)
        if verified.workload is None:  # a job is nobody whose jobs are dispatched
            await self._remember(verified)
        return verified

    async def _remember(self, verified: Verified) -> None:
        who = (verified.principal.issuer, verified.principal.subject)
        seen: _Seen = (dict(verified.memberships), verified.platform_roles, verified.assurance)
        now = self._clock()
        before, at = self._written.get(who, (None, now))
        if before == seen and now - at < _WRITE_AGAIN:
            return
        await self._store.transact(partial(store.remember, seen=verified, now=now))
        self._written[who] = (seen, now)
        self._written.move_to_end(who)
        while len(self._written) > self._size:
            self._written.popitem(last=False)

    async def last_seen(self, principal: Principal) -> LastSeen | None:
        """What is remembered of a principal who is not here, as far as it is young enough to decide by."""
        since = self._clock() - min(self._life, self._lives.get(principal.issuer, self._life))
        return await self._store.read(partial(store.last_seen, principal=principal, since=since))
