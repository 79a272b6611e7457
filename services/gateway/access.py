"""Who is calling: bearer token -> context, asked of auth and remembered for a short while.

While auth is away, reads go on with contexts that are known, for a bounded time; writes need a grant and wait for auth.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from fastapi import Request

from services.gateway.pacing import Pace
from services.gateway.permissions import Sight, sight_of
from shared.contracts.questions import Context, ContextRequest, WorkloadIdentity
from shared.errors import Refused, Unavailable
from shared.ports import Clock
from shared.runtime.questions import Questions
from shared.runtime.trust_watch import TrustWatch, Version

STANDING: Final = "serai.standing"
"""Where in the ASGI scope stands how the caller stands with the limit that the request was paid from."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller. The token is only ever handed on to auth."""

    token: str
    context: Context
    sight: Sight

    @property
    def issuer(self) -> str:
        return self.context.principal.issuer

    @property
    def workload(self) -> WorkloadIdentity | None:
        """The running job that calls with its own token."""
        return self.context.workload

    @property
    def bucket(self) -> tuple[str, str]:
        """Whose requests are counted together."""
        return self.sight.issuer, self.sight.subject

    @property
    def subject(self) -> str:
        return self.context.principal.subject

    def must_belong_to(self, vo: str) -> None:
        """Raises Refused (code `forbidden`) unless the caller is in the VO."""
        mine = sorted(membership.vo for membership in self.context.memberships)
        if vo not in mine:
            others = (
                f"; you are in: {', '.join(mine)}. Name one of these, or ask" if mine else ", nor in any other: ask"
            )
            raise Refused(
                f"you are not in the VO {vo[:80]!r}{others} that VO's managers to take you in", code="forbidden"
            )

    def must_be_able_to(self, verb: str, vo: str) -> None:
        """Raises Refused (code `forbidden`) unless the caller is in the VO with a role that holds the verb."""
        self.must_belong_to(vo)
        roles = {membership.role for membership in self.context.memberships if membership.vo == vo}
        if not any(verb in each.verbs for each in self.context.memberships if each.vo == vo):
            raise Refused(
                f"you are in VO {vo} as {' and '.join(sorted(roles))}, which does not allow {verb}; ask a manager of "
                "the VO for another role",
                code="forbidden",
            )

    def must_hold_somewhere(self, verb: str) -> None:
        """Raises Refused (code `forbidden`) unless some VO or platform role of the caller holds the verb."""
        held = (self.context.platform_verbs, *(membership.verbs for membership in self.context.memberships))
        if not any(verb in verbs for verbs in held):
            raise Refused(
                f"{verb} needs a role in a VO or on the platform, and you have none that allows it; ask the managers "
                "of your VO to take you in",
                code="forbidden",
            )


@dataclass(frozen=True, slots=True)
class _Known:
    """`trust`: the version of suspensions and policies that the context was made under; another ends its freshness."""

    caller: Caller
    trust: Version
    fresh_until: datetime
    stale_until: datetime


@dataclass(frozen=True, slots=True)
class CacheTimes:
    """Seconds: how long a context is fresh, how long it serves while auth is away, how long a refusal holds."""

    fresh_s: float
    stale_s: float
    refused_s: float


class Access:
    """Answers `who is this?`, at most one question at a time for each token."""

    def __init__(self, auth: Questions, clock: Clock, times: CacheTimes, size: int, pace: Pace) -> None:
        self._auth = auth
        self._pace = pace
        self._clock = clock
        self._times = times
        self._size = size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[Refused, datetime]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}
        self._trust = TrustWatch(auth, clock)

    async def caller(self, request: Request) -> Caller:
        """The caller of a request, a person or a service, never a running job (`anybody`)."""
        caller = await self.anybody(request)
        if caller.workload is not None:
            raise Refused("a job's own token reads that job and tells of its progress, nothing else", code="forbidden")
        return caller

    async def anybody(self, request: Request) -> Caller:
        """The caller of a request, also a running job; the request is paid for with this. Raises Refused
        (`unauthenticated`, `token_expired`, `suspended`), Unavailable or TooMany.

        Two tokens in one request are a way to show one to a proxy and the other to us (RFC 6750, section 2).
        """
        headers = request.headers.getlist("authorization")
        if len(headers) > 1 or "access_token" in request.query_params:
            raise Refused("send exactly one access token, in one Authorization header", code="invalid_request")
        token = bearer(headers[0] if headers else "")
        caller = self.fresh(token) or await self._looked_up(request, token)
        standing = self._pace.request(caller.bucket, request.method)
        if standing is not None:
            request.scope[STANDING] = standing
        return caller

    async def _looked_up(self, request: Request, token: str) -> Caller:
        """The caller behind a token; an address that sent many bad ones has to wait, unless the token is known."""
        if _digest(token) in self._known:
            return await self.verify(token)
        address = request.client.host if request.client else ""
        self._pace.stranger(address)
        try:
            return await self.verify(token)
        except Refused:
            self._pace.refused(address)
            raise

    async def again(self, caller: Caller) -> Caller:
        """The caller as auth sees them by now: for answers that take long, every few seconds while they last.

        Raises Refused when they may do nothing any more, at the token's end at the latest; Unavailable when auth has
        been away for longer than reads go on without it.
        """
        if self._clock() >= caller.context.expires_at:
            raise Refused("the access token has expired; sign in again", code="token_expired")
        return self.fresh(caller.token) or await self.verify(caller.token)

    def fresh(self, token: str) -> Caller | None:
        """The caller if that is known without asking, and so is that nothing was suspended in the last seconds."""
        known = self._known.get(_digest(token))
        return known.caller if known is not None and self._trust.glance() and self._is_fresh(known) else None

    def _is_fresh(self, known: _Known) -> bool:
        return self._clock() < known.fresh_until and known.trust == self._trust.version

    async def verify(self, token: str) -> Caller:
        """The caller behind a token."""
        digest, now = _digest(token), self._clock()
        await self._trust.current()
        known = self._known.get(digest)
        if known is not None and self._is_fresh(known):
            self._known.move_to_end(digest)
            return known.caller
        refusal, until = self._refused.get(digest, (None, now))
        if refusal is not None and now < until:
            raise refusal
        try:
            return await self._ask_once(digest, token)
        except Unavailable:
            if known is not None and now < known.stale_until:
                return known.caller
            raise

    async def _ask_once(self, digest: bytes, token: str) -> Caller:
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._ask(digest, token), name="gateway.context")
            self._asking[digest] = asking
            asking.add_done_callback(partial(self._asked, digest))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, asking: asyncio.Task[Caller]) -> None:
        self._asking.pop(digest, None)
        if not asking.cancelled():
            asking.exception()

    async def _ask(self, digest: bytes, token: str) -> Caller:
        trust = self._trust.version
        try:
            context = await self._auth.ask("POST", "/internal/context", Context, body=ContextRequest(token=token))
        except Refused as refusal:
            self._known.pop(digest, None)
            self._refused[digest] = (refusal, self._clock() + timedelta(seconds=self._times.refused_s))
            _trim(self._refused, self._size)
            raise
        caller = Caller(token, context, sight_of(context))
        self._remember(digest, caller, trust)
        return caller

    def _remember(self, digest: bytes, caller: Caller, trust: Version) -> None:
        now, expires = self._clock(), caller.context.expires_at
        self._known[digest] = _Known(
            caller,
            trust,
            min(expires, now + timedelta(seconds=self._times.fresh_s)),
            min(expires, now + timedelta(seconds=self._times.stale_s)),
        )
        self._known.move_to_end(digest)
        self._refused.pop(digest, None)
        _trim(self._known, self._size)


def bearer(header: str) -> str:
    """The token of an `Authorization` header. Raises Refused (code `unauthenticated`)."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(
            "this needs an access token: sign in (`serai login`) and send `Authorization: Bearer <token>`",
            code="unauthenticated",
        )
    return token.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _trim(cache: OrderedDict[bytes, Any], size: int) -> None:
    while len(cache) > size:
        cache.popitem(last=False)
