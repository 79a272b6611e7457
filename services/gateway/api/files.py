"""Routes for what a job leaves: logs and outputs, passed through from the monitor."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import FastAPI, Query, Request, Response

from services.gateway.access import Access, Caller
from services.gateway.api import routing
from services.gateway.api.documents import OutputList
from services.gateway.changes import Changes
from services.gateway.job_view import JobView, is_final
from services.gateway.lookup import Lookup, absent, job_id_of
from services.gateway.requests import refused_parameter
from services.gateway.room import Room
from shared.contracts.questions import OutputsAnswer
from shared.errors import NotFound, Refused
from shared.runtime import cutting
from shared.runtime.cutting import CuttableResponse
from shared.runtime.questions import Questions

_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RECHECK_S = 2.0
"""So often it is looked whether who reads a log still may."""
_FIRST_CHUNK_S = 0.5
"""An error that comes within this time still becomes a problem document; later it cuts the stream."""

Attempt = Annotated[int | None, Query(ge=1, le=100_000, description="The current one when left out.")]


class FileRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(
        self, access: Access, lookup: Lookup, changes: Changes, monitor: Questions, room: Room
    ) -> None:  # fmt: skip
        self._access = access
        self._lookup = lookup
        self._changes = changes
        self._monitor = monitor
        self._room = room

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        one: dict[str, Any] = {"tag": "files", "permission": "job.logs_own", "problems": ("not_found", "forbidden")}
        text = routing.text_content("text/plain", "The bytes as the task wrote them, as they come")
        file = routing.text_content("application/octet-stream", "The file")
        routing.add(app, "GET", "/v1/jobs/{job_id}/logs", self.get_logs, responses=text, **one)
        routing.add(app, "GET", "/v1/jobs/{job_id}/outputs", self.list_outputs, answer=OutputList, **one)
        routing.add(app, "GET", "/v1/jobs/{job_id}/outputs/{name}", self.get_output, responses=file, **one)

    async def get_logs(
        self, request: Request, job_id: str,
        stream: Literal["stdout", "stderr"] = "stdout",
        follow: Annotated[bool, Query(description="Go on until the attempt has ended.")] = False,
        tail: Annotated[int | None, Query(ge=0, le=2**40, description="Only the last so many bytes.")] = None,
        offset: Annotated[
            int, Query(ge=0, le=2**40, description="Leave out so many bytes: to go on after a break; needs `attempt`.")
        ] = 0,
        attempt: Attempt = None,
    ) -> Response:  # fmt: skip
        """What the job wrote. With `follow` it waits for the job to start and goes on to the end of the attempt.

        An answer that breaks off (no final chunk) is not whole: ask again with `offset`.
        """
        _check_place(offset, tail, attempt)
        caller = await self._access.caller(request)
        view = await self._readable(caller, job_id)
        place = {"tail": tail, "offset": offset or None}
        chosen: dict[str, Any] = {"stream": stream, "follow": "true" if follow else "false"}
        chosen |= {name: value for name, value in place.items() if value is not None}
        if attempt is None and view.attempt == 0 and not (follow and not is_final(view)):
            raise NotFound("the job has no attempt yet, so no logs; `follow=true` waits for them", code="not_found")
        if follow:
            self._room.check()
        chunks = cutting.until(partial(self._while_readable, caller, view), self._log(caller, view.id, attempt, chosen))
        return CuttableResponse(
            await _started(chunks), media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )  # fmt: skip

    async def list_outputs(self, request: Request, job_id: str, attempt: Attempt = None) -> Response:
        """The outputs that were kept, and which were not and why."""
        caller = await self._access.caller(request)
        view = await self._readable(caller, job_id)
        params = {"attempt": attempt} if attempt else {}
        try:
            answer = await self._monitor.ask(
                "GET", f"/internal/jobs/{view.id}/outputs", OutputsAnswer, params=params,
                read_grant=caller.context.read_grant,
            )  # fmt: skip
        except NotFound:
            answer = OutputsAnswer(outputs=())
        return routing.json_bytes(answer.model_dump_json().encode())

    async def get_output(self, request: Request, job_id: str, name: str, attempt: Attempt = None) -> Response:
        """One output, at most 1 MiB."""
        caller = await self._access.caller(request)
        view = await self._readable(caller, job_id)
        if not _OUTPUT_NAME.fullmatch(name):
            raise NotFound("the job has no such output; `/outputs` lists those that were kept", code="not_found")
        params = {"attempt": attempt} if attempt else {}
        path = f"/internal/jobs/{view.id}/outputs/{name}"
        content = await self._monitor.fetch(path, params=params, read_grant=caller.context.read_grant)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, headers=headers, media_type="application/octet-stream")

    async def _readable(self, caller: Caller, job_id: str) -> JobView:
        """The job, if its files may be read. Raises NotFound, Refused (code `forbidden`)."""
        view = await self._lookup.view(caller, job_id_of(job_id))
        _check_reader(caller, view)
        return view

    async def _while_readable(self, caller: Caller, view: JobView) -> None:
        """Return when the gateway stops. Raises Refused, NotFound or Unavailable when the caller may not read the job's
        files any more: seconds after a suspension, at the token's end.
        """
        with self._changes.watch(str(view.id)) as changed:
            while not self._changes.closed:
                changed.clear()
                caller = await self._access.again(caller)
                _check_reader(caller, view)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RECHECK_S):
                        await changed.wait()

    async def _log(
        self, caller: Caller, job_id: UUID, attempt: int | None, chosen: dict[str, Any]
    ) -> AsyncGenerator[bytes]:
        """The bytes of an attempt's log (None = the current one); followed, from the moment when there is one."""
        path, follow = f"/internal/jobs/{job_id}/logs", chosen["follow"] == "true"
        with self._changes.watch(str(job_id)) as changed, self._room.taken() if follow else nullcontext():
            while True:
                changed.clear()
                view = await self._lookup.view(caller, job_id)
                params = {**chosen, "attempt": attempt or view.attempt}
                try:
                    if params["attempt"]:
                        grant = (await self._access.again(caller)).context.read_grant
                        source = self._monitor.stream(path, params=params, read_grant=grant)
                        async with aclosing(cast("AsyncGenerator[bytes]", source)) as pieces:
                            async for piece in pieces:
                                yield piece
                        return
                except NotFound:
                    if not follow or is_final(view):
                        raise
                if is_final(view):
                    return
                await changed.wait()


def _check_reader(caller: Caller, view: JobView) -> None:
    """Raises NotFound for a job that the caller may not see, Refused (code `forbidden`) for one without its files."""
    sight, owner = caller.sight, view.owner
    if not sight.sees(view.vo, owner.issuer, owner.subject):
        raise absent()
    if not sight.reads_files(view.vo, owner.issuer, owner.subject):
        raise Refused(
            f"logs and outputs may hold data: only the owner and the managers of {view.vo} read them", code="forbidden"
        )


def _check_place(offset: int, tail: int | None, attempt: int | None) -> None:
    """Raises Refused when the place in the log is not one."""
    if offset and tail is not None:
        raise refused_parameter("offset", "give either 'offset' or 'tail'")
    if offset and attempt is None:
        raise refused_parameter("offset", "counts in the log of one attempt: name it with 'attempt'")


async def _started(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, after waiting a moment for the first one: an early error is raised here."""
    first = asyncio.ensure_future(anext(chunks, b""))
    await asyncio.wait([first], timeout=_FIRST_CHUNK_S)
    if first.done():
        first.result()
    return _from(first, chunks)


async def _from(first: asyncio.Future[bytes], chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield await first
        async for chunk in chunks:
            yield chunk
    finally:
        first.cancel()
