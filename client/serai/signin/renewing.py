"""The access token of a kept sign-in, renewed when it must be, by one process at a time.

Issuers rotate refresh tokens: each is good once, and one that comes a second time ends the whole sign-in (RFC 9700,
4.14.2). So the renewal is done under a lock that all processes share, whoever waited for it looks first whether the
work is done, and an interruption (Ctrl-C) does not come between the issuer's answer and its being kept.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Final

import httpx2

from serai.errors import ClientError, IssuerRefused, NoWayIn, Unreachable
from serai.signin.logins import Login, Logins
from serai.signin.oauth import Endpoints, OAuth, Tokens
from serai.wire import Pace

EARLY: Final = timedelta(seconds=5)
"""So long before its end a token is renewed; one that ends on its way is renewed on the gateway's 401."""


class KeptLogin:
    """The bearer of a sign-in that `logins` keeps for a gateway."""

    def __init__(
        self, logins: Logins, url: str, pace: Pace, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._logins = logins
        self._url = url
        self._pace = pace
        self._transport = transport
        self._login: Login | None = None
        self._turn = asyncio.Lock()

    async def token(self, refused: str | None = None) -> str | None:
        """A token that is good now and is not the `refused` one, where one can be had. Raises NoWayIn, Unreachable."""
        async with self._turn:
            if self._login is None:
                self._login = self._logins.of(self._url)
            if self._login is not None and not self._good(self._login, refused):
                self._login = await self._renewed(refused)
            return self._login.token if self._login is not None else None

    def _good(self, login: Login, refused: str | None) -> bool:
        return login.token != refused and login.good_at(self._pace.now() + EARLY)

    async def _renewed(self, refused: str | None) -> Login | None:
        """To its end even when interrupted: the issuer may have made the old refresh token void already."""
        work = asyncio.create_task(self._renew(refused), name="renew the sign-in")
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def _renew(self, refused: str | None) -> Login | None:
        async with self._logins.lock(self._pace):
            login = self._logins.of(self._url)
            if login is None or self._good(login, refused) or login.refresh_token is None:
                return login
            try:
                tokens = await self._exchanged(login, login.refresh_token)
            except ClientError as error:
                return self._as_it_is(login, error, refused)
            return self._kept(login, tokens)

    async def _exchanged(self, login: Login, refresh_token: str) -> Tokens:
        async with OAuth(self._transport) as oauth:
            at = Endpoints(login.issuer, login.token_endpoint)
            return await oauth.refresh(at, login.client_id, refresh_token, login.audience)

    def _kept(self, login: Login, tokens: Tokens) -> Login:
        renewed = replace(
            login, token=tokens.access, refresh_token=tokens.refresh or login.refresh_token,
            expires_at=self._pace.now() + timedelta(seconds=tokens.expires_in_s) if tokens.expires_in_s else None,
        )  # fmt: skip
        self._logins.keep(self._url, renewed)
        return renewed

    def _as_it_is(self, login: Login, error: ClientError, refused: str | None) -> Login:
        """It could not be renewed: go on with the old token while it is good. Raises what stands in the way."""
        ended = isinstance(error, IssuerRefused)
        if ended:
            login = replace(login, refresh_token=None)
            self._logins.keep(self._url, login)
        if login.token != refused and login.good_at(self._pace.now()):
            return login
        if ended:
            raise NoWayIn(f"your sign-in at {login.issuer} has ended: {error}").then(
                "sign in again: `serai login`"
            ) from error
        if isinstance(error, Unreachable):
            raise Unreachable(login.issuer, f"{error.why}; your sign-in cannot be renewed").then(
                "try again when the issuer answers"
            ) from (error.__cause__ or error)
        raise error
