"""One connection to the broker, opened when needed, and its few errands.

Plain connections on purpose, not aio-pika's robust ones: the platform's tasks try again themselves (`supervise`), and
one layer retries. A robust connection would also restart a stream from its first offset and forget return callbacks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel as Underlay

from shared.adapters.rabbitmq.addresses import address
from shared.adapters.rabbitmq.failures import closing, translated
from shared.errors import Unavailable

CONNECT_S: Final = 5.0
CLOSE_S: Final = 2.0
CALL_S: Final = 10.0
BLOCKED_S: Final = 0.5
"""An alarm that is over within this is not worth an error."""


class Link:
    """One connection of the bus. Publishing and consuming have one each: a broker that runs out of memory or disk
    stops the connections that publish, and consumers must go on draining it."""

    def __init__(self, url: str, name: str) -> None:
        """Raises Misconfigured for an address that cannot work."""
        self._address = address(url)
        self.where = self._address.where
        self._name = name
        self._connection: AbstractConnection | None = None
        self._connecting = asyncio.Lock()

    async def open_channel(self, *, returns: bool = False) -> AbstractChannel:
        """A fresh channel with confirms, on a connection that is made if there is none. The caller closes it."""
        async with self._connecting:
            if not self._alive():
                self._connection = await aio_pika.connect(
                    self._address.url, timeout=CONNECT_S, client_properties={"connection_name": self._name},
                    ssl_context=self._address.tls,
                )  # fmt: skip
            assert self._connection is not None
            channel = self._connection.channel(on_return_raises=returns)
        async with asyncio.timeout(CALL_S):
            await channel.initialize()
        return channel

    def _alive(self) -> bool:
        """Whether there is a connection. aio-pika's own is told late, or never, when the one below it has died."""
        connection = self._connection
        if connection is None or connection.is_closed or connection.transport is None:
            return False
        return not connection.transport.connection.is_closed

    @asynccontextmanager
    async def channel(self, doing: str) -> AsyncIterator[AbstractChannel]:
        """A channel for one errand; failures come out as Unavailable or Misconfigured."""
        async with translated(self.where, doing):
            channel = await self.open_channel()
            try:
                yield channel
            finally:
                await close_channel(channel)

    async def check_unblocked(self) -> None:
        """Raise Unavailable while the broker takes nothing in from this connection (its memory or disk alarm)."""
        if not self._alive():
            return
        assert self._connection is not None and self._connection.transport is not None
        try:
            async with asyncio.timeout(BLOCKED_S):
                await self._connection.transport.ready()
        except TimeoutError:
            raise Unavailable(
                f"{self.where} takes no messages: its memory or disk alarm is on; free some, or raise its limit "
                "(rabbitmq-diagnostics alarms)",
                code="bus_blocked",
                retry_after_s=5.0,
            ) from None

    async def close(self) -> None:
        """Close the connection; what is unsettled on it goes back."""
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed:
            return
        async with closing(CLOSE_S):
            await connection.close()


async def below(channel: AbstractChannel) -> Underlay:
    """The channel of the library below aio-pika. On the hot paths: what aio-pika wraps around each message costs as
    much as the message, and its publish waits until each one is on its way before it takes the next.
    """
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, Underlay)
    return underlay


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel that may have died already."""
    if channel.is_closed:
        return
    async with closing(CLOSE_S):
        await channel.close()
