"""Reaching one of several copies of a service: in turn, and at the next copy when one cannot be connected to.

Only a connection that was refused is tried elsewhere: then nothing was asked yet. Everything else is the caller's.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count

import httpx2 as httpx

Addresses = Callable[[], Sequence[str]]
"""URLs of the copies that are well, as far as is known now."""


class AnyCopy(httpx.AsyncBaseTransport):
    """A transport whose requests go to any of the copies, whatever host they name."""

    def __init__(self, addresses: Addresses, service: str) -> None:
        self._addresses = addresses
        self._service = service
        self._inner = httpx.AsyncHTTPTransport(retries=0)
        self._turn = count()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ConnectError naming every copy that was tried."""
        addresses = list(self._addresses())
        first = next(self._turn)
        refused: list[str] = []
        for number in range(len(addresses)):
            address = _read(addresses[(first + number) % len(addresses)])
            request.url = request.url.copy_with(scheme=address.scheme, host=address.host, port=address.port)
            request.headers["Host"] = address.netloc.decode("ascii")
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused.append(f"{address}: {error}")
        raise httpx.ConnectError("; ".join(refused) or f"no healthy copy of {self._service} is known", request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@lru_cache(maxsize=64)
def _read(address: str) -> httpx.URL:
    return httpx.URL(address)
