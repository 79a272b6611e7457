"""The client library's many failures as the port's few: Misconfigured (an operator must act), Unavailable (try again).

Nothing here tries again: that is for the platform's tasks (`supervise`), the one layer that does.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika import exceptions
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed

from shared.errors import Misconfigured, SeraiError, Unavailable


@asynccontextmanager
async def translated(where: str, doing: str) -> AsyncIterator[None]:
    """Failures inside come out as SeraiError; `where` and `doing` say at which broker and at what."""
    try:
        yield
    except Exception as error:
        if not _of_library(error):
            raise
        raise _ours(where, doing, error) from error
    except asyncio.CancelledError as error:
        # aiormq cancels waiting calls when it gives up a stuck connection, though nobody cancelled the task.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"{where} went silent ({doing})", code="bus_away") from error


@asynccontextmanager
async def closing(within_s: float) -> AsyncIterator[None]:
    """For closing what may have died meanwhile, or dies now: closed is closed."""
    with suppress(SeraiError):
        async with translated("", "close"), asyncio.timeout(within_s):
            yield


def _of_library(error: Exception) -> bool:
    """Also a bare `Exception`: aiormq ends calls with it when their channel closes and it knows no cause."""
    return type(error) is Exception or isinstance(error, (*exceptions.CONNECTION_EXCEPTIONS, TimeoutError))


def _ours(where: str, doing: str, error: Exception) -> SeraiError:
    untrusted = error if isinstance(error, ssl.SSLCertVerificationError) else error.__cause__
    match error:
        case exceptions.PublishError():
            return Misconfigured(
                f"{where}: nothing is bound to what was published ({error}): declare the topology "
                "(serai-platform rabbitmq declare)",
                code="unroutable",
            )
        case exceptions.DeliveryError():
            return Unavailable(f"{where} refused a message: a queue is full", code="queue_full")
        case exceptions.ChannelNotFoundEntity() if "down or inaccessible" in str(error):
            return Unavailable(f"{where} has not opened a queue yet after its start: {error}", code="bus_away")
        case exceptions.ChannelNotFoundEntity() | exceptions.ChannelPreconditionFailed():
            return Misconfigured(
                f"{where}: {error}; declare the topology (serai-platform rabbitmq declare), after removing what is "
                "there with other arguments"
            )
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return Misconfigured(f"{where} does not accept our user name or password")
        case exceptions.InvalidFrameError() if "Connection.Close" in str(error):
            return Misconfigured(  # the library drops the broker's words at this point
                f"{where} closed the connection at once: there is no such virtual host, or our user may not enter it, "
                "or it has as many connections as it may; docs/rabbitmq.md tells every user's permissions"
            )
        case ChannelAccessRefused() | ConnectionNotAllowed():
            return Misconfigured(
                f"{where} does not permit this ({doing}): {error}; docs/rabbitmq.md tells every user's permissions"
            )
        case _ if isinstance(untrusted, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"{where} shows a certificate that we do not trust: {untrusted.verify_message}; `cafile` in its "
                "address names the authority, and the host in it must be in the certificate"
            )
        case _:
            return Unavailable(f"{where} does not answer ({doing}): {error!r}", code="bus_away")
