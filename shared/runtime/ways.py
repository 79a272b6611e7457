"""How a question travels to another service: over the network on aiohttp, or over a transport of httpx2's (services in
one process, tests). On aiohttp, because a call costs a third of httpx2's CPU
(docs/decisions/053-services-ask-each-other-with-aiohttp.md).
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Final

import aiohttp
import httpx2 as httpx

Addresses = Callable[[], Sequence[str]]
"""URLs of the copies that are well, as far as is known now."""

_LOST: Final = (aiohttp.ClientError, OSError)
"""A timeout is one too."""
_CONNECT_S: Final = 2.0
_IDLE_S: Final = 20.0
"""How long a connection is kept for the next question: less than its other end keeps it (`EdgeSettings.idle_s`)."""
_NOTHING_OF_ITS_OWN: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Lost(Exception):
    """No answer came, or not all of it; the text says what is known."""


class NotReached(Lost):
    """Nobody could be connected to: nothing was asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it travels. `path` with its query; `silence_s` between two pieces of the answer, None = any."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    silence_s: float | None
    patience_s: float
    """How long it waits for a connection to come free."""


class Told(ABC):
    """An answer that has begun. Reading it raises Lost."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any letters."""

    @abstractmethod
    async def read(self) -> bytes:
        """All of it."""

    @abstractmethod
    def pieces(self) -> AsyncIterator[bytes]:
        """As it comes."""


class Way(ABC):
    """To one other service."""

    @abstractmethod
    def ask(self, asked: Asked) -> AbstractAsyncContextManager[Told]:
        """The answer, from its beginning; what is not read of it is given up. Raises Lost."""

    @abstractmethod
    async def close(self) -> None:
        """Close its connections."""


class AnyCopy(Way):
    """To any of the copies: in turn, and at the next one when one cannot be connected to.

    Only a connection that was not made is tried elsewhere: then nothing was asked yet. Everything else is the asker's.
    """

    def __init__(self, addresses: Addresses, service: str, *, connections: int = 100) -> None:
        """`connections`: open at most; more questions wait for one."""
        self._addresses = addresses
        self._service = service
        self._turn = count()
        self._room = asyncio.Semaphore(connections)
        self._made: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def ask(self, asked: Asked) -> AsyncIterator[Told]:
        await self._enter(asked.patience_s)
        try:
            async with await self._reached(asked) as response:
                yield _Response(response)
        finally:
            self._room.release()

    async def _enter(self, patience_s: float) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(patience_s):
                await self._room.acquire()
        except TimeoutError as late:
            raise Lost(f"no connection came free within {patience_s:g} s") from late

    async def _reached(self, asked: Asked) -> aiohttp.ClientResponse:
        """Raises NotReached naming every copy that was tried."""
        addresses = list(self._addresses())
        first = next(self._turn)
        refused: list[str] = []
        for number in range(len(addresses)):
            address = addresses[(first + number) % len(addresses)]
            try:
                return await self._begun(address.rstrip("/"), asked)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                refused.append(f"{address}: {error}")
            except _LOST as error:
                raise Lost(repr(error)) from error
        raise NotReached("; ".join(refused) or f"no healthy copy of {self._service} is known")

    async def _begun(self, address: str, asked: Asked) -> aiohttp.ClientResponse:
        return await self._session().request(
            asked.method, address + asked.path, headers=asked.headers, data=asked.body, allow_redirects=False,
            timeout=_timeout(asked.silence_s), ssl=_trust() if address.startswith("https:") else True,
        )  # fmt: skip

    def _session(self) -> aiohttp.ClientSession:
        """Made within the event loop that uses it."""
        if self._made is None:
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S), cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_NOTHING_OF_ITS_OWN, auto_decompress=False, trust_env=False,
            )  # fmt: skip
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()


@cache
def _timeout(silence_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=silence_s)


@cache
def _trust() -> ssl.SSLContext:
    """The authorities that httpx2 trusts, as all our clients. Read when first needed: that takes 60 ms of a core."""
    return httpx.create_ssl_context()


class _Response(Told):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except _LOST as lost:
            raise Lost(repr(lost)) from lost

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except _LOST as lost:
            raise Lost(repr(lost)) from lost


class OverHttpx(Way):
    """Over a transport of httpx2's, straight: redirects, cookies and logins are a client's."""

    def __init__(self, base_url: str, transport: httpx.AsyncBaseTransport) -> None:
        self._base_url = base_url.rstrip("/")
        self._transport = transport

    @asynccontextmanager
    async def ask(self, asked: Asked) -> AsyncIterator[Told]:
        timeout = httpx.Timeout(asked.patience_s, connect=_CONNECT_S, read=asked.silence_s).as_dict()
        request = httpx.Request(
            asked.method, f"{self._base_url}{asked.path}", headers=dict(asked.headers), content=asked.body,
            extensions={"timeout": timeout},
        )  # fmt: skip
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.TransportError as lost:
            raise Lost(repr(lost)) from lost
        try:
            yield _HttpxResponse(response)
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._transport.aclose()


class _HttpxResponse(Told):
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.aread()
        except httpx.TransportError as lost:
            raise Lost(repr(lost)) from lost

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.TransportError as lost:
            raise Lost(repr(lost)) from lost


def query(params: Mapping[str, Any] | None) -> str:
    """What follows the path."""
    return f"?{httpx.QueryParams(params)}" if params else ""
