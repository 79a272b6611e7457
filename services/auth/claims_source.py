"""An issuer's word on memberships where the token does not carry it: its userinfo or introspection endpoint.

One question at a time for each token, a bounded number for each issuer, none while the issuer has just failed several
times. Answers are kept by the token's digest, never the token. Who wants to change something gets a younger answer
than who reads, and a reader an older one while the issuer is away. Called by `verifier.py`.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.auth.bad_token import BadToken
from services.auth.breaker import Breaker
from services.auth.claims import Presented, check_audience
from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer
from shared.errors import Misconfigured, Unavailable
from shared.ports import Clock

_REFUSED_FOR: Final = timedelta(seconds=10)
_MOST_REMEMBERED: Final = 10_000
_MOST_WAITING: Final = 200
"""Questions that may wait for a free place; the next are told to come again."""

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old an answer may be: for reads, for changes, and for reads while the issuer does not answer."""

    read: timedelta
    write: timedelta
    stale: timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout_s` of one question, `at_once` of them; after `failures` in a row none for `pause_s`."""

    timeout_s: float = 2.0
    at_once: int = 16
    failures: int = 5
    pause_s: float = 10.0


class ClaimsSource:
    """The claims behind the tokens of one issuer."""

    def __init__(self, issuer: Issuer, http: IssuerHttp, clock: Clock, freshness: Freshness, limits: Limits) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._freshness = freshness
        self._timeout_s = limits.timeout_s
        self._places = asyncio.Semaphore(limits.at_once)
        self._waiting = 0
        self._breaker = Breaker(clock, limits.failures, timedelta(seconds=limits.pause_s))
        self._secret = _secret(issuer.client_secret_file) if issuer.claims_from == "introspection" else ""
        self._known: OrderedDict[bytes, tuple[Claims, datetime]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[BadToken, datetime]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Claims]] = {}

    async def claims(self, token: str, said: Presented, *, change: bool) -> Claims:
        """The claims behind a token whose signature is good. `change`: somebody wants to change something.

        Raises BadToken when the issuer disowns the token, Unavailable when it cannot be asked.
        """
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        known, at = self._known.get(digest, (None, now))
        if known is not None and now - at < (self._freshness.write if change else self._freshness.read):
            self._known.move_to_end(digest)
            return known
        refusal, until = self._refused.get(digest, (None, now))
        if refusal is not None and now < until:
            raise refusal
        try:
            return await self._ask_once(digest, token, said)
        except Unavailable:
            if known is not None and not change and now - at < self._freshness.stale:
                return known
            raise

    async def _ask_once(self, digest: bytes, token: str, said: Presented) -> Claims:
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._ask(digest, token, said), name=f"claims:{self._issuer.issuer}")
            self._asking[digest] = asking
            asking.add_done_callback(partial(self._asked, digest))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, asking: "asyncio.Task[Claims]") -> None:
        self._asking.pop(digest, None)
        if not asking.cancelled():
            asking.exception()

    async def _ask(self, digest: bytes, token: str, said: Presented) -> Claims:
        try:
            claims = await self._answer(token, said)
        except BadToken as refusal:
            self._known.pop(digest, None)
            self._refused[digest] = (refusal, self._clock() + _REFUSED_FOR)
            _trim(self._refused)
            raise
        self._known[digest] = (claims, self._clock())
        self._known.move_to_end(digest)
        _trim(self._known)
        return claims

    async def _answer(self, token: str, said: Presented) -> Claims:
        """One question, in its place. What fails counts against the issuer, what it refuses does not."""
        if self._waiting >= _MOST_WAITING:
            raise Unavailable(f"too many questions to {self._issuer.label} are waiting", retry_after_s=2)
        self._waiting += 1
        try:
            async with self._places:
                self._breaker.check(self._issuer.label)
                async with asyncio.timeout(self._timeout_s):
                    claims = await self._question(token, said)
        except TimeoutError:
            self._breaker.failed()
            raise Unavailable(f"{self._issuer.label} did not answer within {self._timeout_s:g} s") from None
        except Unavailable:
            self._breaker.failed()
            raise
        except BadToken:
            self._breaker.worked()
            raise
        finally:
            self._waiting -= 1
        self._breaker.worked()
        return claims

    async def _question(self, token: str, said: Presented) -> Claims:
        if self._issuer.claims_from == "userinfo":
            address = await self._http.endpoint(self._issuer.userinfo_uri, "userinfo_endpoint")
            return checked_userinfo(await self._http.get_as(address, token), said)
        address = await self._http.endpoint(self._issuer.introspection_uri, "introspection_endpoint")
        form = {"token": token, "token_type_hint": "access_token"}
        answer = await self._http.post_form(address, form, (self._issuer.client_id, self._secret))
        return checked_introspection(answer, said, self._issuer)


def checked_userinfo(answer: Claims, said: Presented) -> Claims:
    """The answer, when it is about the same subject (OpenID Connect Core 5.3.2). Raises BadToken."""
    if answer.get("sub") != said.subject:
        raise BadToken("its issuer's userinfo endpoint speaks of somebody else")
    return answer


def checked_introspection(answer: Claims, said: Presented, issuer: Issuer) -> Claims:
    """The answer, when it says `active` and contradicts the token nowhere (RFC 7662, 2.2). Raises BadToken."""
    if answer.get("active") is not True:
        raise BadToken("its issuer says that it is not active")
    for name, expected in (("iss", issuer.issuer), ("sub", said.subject), ("client_id", said.client)):
        if name in answer and answer[name] != expected:
            raise BadToken(f"its issuer's introspection endpoint contradicts its `{name}`")
    if "sub" not in answer:
        raise BadToken("its issuer's introspection endpoint does not say whose it is")
    if "exp" in answer and answer["exp"] != said.expires:
        raise BadToken("its issuer's introspection endpoint contradicts its `exp`")
    if "aud" in answer:
        check_audience(answer["aud"], issuer)
    return answer


def _secret(file: Path | None) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() if file is not None else ""
    except OSError as error:
        raise Misconfigured(f"the client secret in {file} cannot be read: {error.strerror}") from error


def _trim(cache: OrderedDict[bytes, Any]) -> None:
    while len(cache) > _MOST_REMEMBERED:
        cache.popitem(last=False)
