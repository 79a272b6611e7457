"""Streamed answers that never look whole when they are not.

A log that broke off must not end like one that is complete: its reader would believe that the job printed no more. An
error of ours after the first byte therefore ends the connection without the last chunk (RFC 9112, section 8), and the
reader asks again from where it was. Used by the services' routes for bytes that come as they are written.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi.responses import StreamingResponse

from shared.errors import SeraiError, Unavailable
from shared.runtime import logs

log = logs.get("runtime.cutting")


class CuttableResponse(StreamingResponse):
    """A `StreamingResponse` whose body may break off with a `SeraiError`: told in one line of the log, not as a whole
    answer and not as a traceback."""

    async def stream_response(self, send: Callable[[Any], Awaitable[None]]) -> None:
        try:
            await super().stream_response(send)
        except SeraiError as error:
            log.info("answer_cut", why=error.what)


async def until(stopping: Callable[[], Awaitable[None]], chunks: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The chunks, as long as `stopping()` has not ended. Raises what it raised, or Unavailable when it returned: go on
    later.
    """
    stop = asyncio.ensure_future(stopping())
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(chunks, None))
            await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                stop.result()
                raise Unavailable("the service is stopping; ask again, from where you are", retry_after_s=1)
            chunk = coming.result()
            if chunk is None:
                return
            yield chunk
    finally:
        if not stop.cancel() and not stop.cancelled():
            stop.exception()  # looked at, so that asyncio does not call it lost
        if coming is not None:
            await ended(coming)
        await chunks.aclose()


async def ended(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and return when it has ended; raises CancelledError then, if we were cancelled meanwhile.

    A web framework's task group cancels its tasks again and again until they are gone (anyio's cancel scopes), so one
    plain `await` in a `finally` would leave before the task has: its generator could not be closed then.
    """
    cancelled: asyncio.CancelledError | None = None
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as again:
            cancelled = again
    if cancelled is not None:
        raise cancelled
