"""One connection to the broker, opened when needed, and aio-pika's many failures as the port's few.

Plain connections on purpose, not aio-pika's robust ones: the platform's tasks try again themselves (`supervise`), and
one layer retries. A robust connection would also restart a stream from its first offset and forget return callbacks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika import exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from shared.errors import Misconfigured, Unavailable

CONNECT_S: Final = 5.0
HEARTBEAT_S: Final = 10
"""A dead peer is noticed after about three times as long."""
CLOSE_S: Final = 5.0
CALL_S: Final = 10.0


class Link:
    """One connection of the bus. Publishing and consuming have one each: a broker that runs out of memory or disk
    stops the connections that publish, and consumers must go on draining it."""

    def __init__(self, url: str, name: str) -> None:
        given = URL(url)
        self._url = given if "heartbeat" in given.query else given.update_query(heartbeat=str(HEARTBEAT_S))
        self.where = f"RabbitMQ at {given.host}:{given.port or 5672}"
        self._name = name
        self._connection: AbstractConnection | None = None
        self._connecting = asyncio.Lock()

    async def open_channel(self, *, returns: bool = False) -> AbstractChannel:
        """A fresh channel with confirms, on a connection that is made if there is none. The caller closes it."""
        async with self._connecting:
            if self._connection is None or self._connection.is_closed:
                self._connection = await aio_pika.connect(
                    self._url, timeout=CONNECT_S, client_properties={"connection_name": self._name}
                )
        channel = self._connection.channel(on_return_raises=returns)
        async with asyncio.timeout(CALL_S):
            await channel.initialize()
        return channel

    @asynccontextmanager
    async def channel(self, doing: str) -> AsyncIterator[AbstractChannel]:
        """A channel for one errand; failures come out as Unavailable or Misconfigured."""
        async with translated(self.where, doing):
            channel = await self.open_channel()
            try:
                yield channel
            finally:
                await close_channel(channel)

    async def close(self) -> None:
        """Close the connection; what is unsettled on it goes back."""
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await connection.close()
        except (exceptions.AMQPError, OSError, RuntimeError, TimeoutError):
            return  # the broker is gone, and the connection with it


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel that may have died already."""
    if channel.is_closed:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await channel.close()
    except (exceptions.AMQPError, OSError, RuntimeError, TimeoutError):
        return  # it died meanwhile: closed is closed


@asynccontextmanager
async def translated(where: str, doing: str) -> AsyncIterator[None]:
    """Failures of the client library as Misconfigured (an operator must act) or Unavailable (try again)."""
    try:
        yield
    except exceptions.PublishError as error:
        raise Misconfigured(
            f"{where}: nothing is bound to what was published ({error}): see shared/contracts/routes.py, and run "
            "'declare' once",
            code="unroutable",
        ) from error
    except exceptions.DeliveryError as error:
        raise Unavailable(f"{where} refused a message: a queue is full", code="queue_full") from error
    except (exceptions.ChannelNotFoundEntity, exceptions.ChannelPreconditionFailed) as error:
        raise Misconfigured(f"{where}: {error}; its topology is another: run 'declare' once") from error
    except exceptions.AuthenticationError as error:
        raise Misconfigured(f"{where} does not accept our credentials: {error}") from error
    except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError, TimeoutError) as error:
        raise Unavailable(f"{where} does not answer ({doing}): {error!r}", code="bus_away") from error
    except asyncio.CancelledError as error:
        # aiormq cancels waiting calls when it gives up a stuck connection, though nobody cancelled the task.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"{where} went silent ({doing})", code="bus_away") from error
