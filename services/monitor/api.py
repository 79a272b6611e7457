"""What the monitor answers over HTTP, to other services only: events of an attempt, logs, kept outputs.

Questions for a user carry that user's read grant; the gateway has checked that the job is visible to them, here VO
and verb are checked. What one may not see is not there.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

import orjson
from fastapi import FastAPI, Query, Request, Response

from services.monitor import kept_store, store
from services.monitor.attempts import AttemptRecord
from services.monitor.changes import Changes, wait
from services.monitor.kept_store import KeptFile
from services.monitor.log_reading import LogQuestion, LogReader
from services.monitor.settings import MonitorSettings
from shared.contracts.questions import EventsAnswer, OutputItem, OutputsAnswer
from shared.errors import NotFound, Refused, Unavailable
from shared.runtime.cutting import CuttableResponse
from shared.runtime.http import between_services, install_problems
from shared.runtime.questions import READ_GRANT_HEADER
from shared.runtime.service_identity import Door
from shared.runtime.tokens import ReadGrant
from shared.runtime.transactions import Transactions

LOG_VERBS: Final = ("job.logs_own", "job.logs_vo")
"""Either lets one read logs and outputs; whose job it is, the gateway has looked at."""


class ReadVerifier(Protocol):
    """Checks read grants (`shared.runtime.tokens.GrantVerifier`)."""

    async def verify_read(self, grant: str) -> ReadGrant: ...


class Answers:
    """The questions, as methods; routes are added by `make_app`."""

    def __init__(
        self,
        transactions: Transactions,
        logs: LogReader,
        changes: Changes,
        verifier: ReadVerifier,
        settings: MonitorSettings,
    ) -> None:
        self._transactions = transactions
        self._store = transactions.store
        self._logs = logs
        self._changes = changes
        self._verifier = verifier
        self._settings = settings

    async def events(
        self, job_id: UUID, attempt: Annotated[int, Query(ge=1)], after: Annotated[int, Query(ge=0)] = 0
    ) -> EventsAnswer:
        """Events of one attempt behind a sequence number."""
        bodies = await self._store.read(lambda c: self._transactions.events_after(c, job_id, attempt, after))
        return EventsAnswer(events=tuple(orjson.loads(body) for body in bodies))

    async def logs(
        self,
        request: Request,
        job_id: UUID,
        attempt: Annotated[int | None, Query(ge=1)] = None,
        stream: Literal["stdout", "stderr"] = "stdout",
        offset: Annotated[int, Query(ge=0)] = 0,
        tail: Annotated[int | None, Query(ge=0)] = None,
        follow: bool = False,
    ) -> Response:
        """Bytes of a log as they come, from `offset` on or the last `tail` of them."""
        if tail is not None and offset:
            raise Refused("give either 'offset' or 'tail'", code="invalid_request")
        record = await self._visible(request, job_id, attempt)
        question = LogQuestion(record.identity.attempt, stream, offset, tail, follow)
        pieces = self._logs.read(question)
        if follow:
            return CuttableResponse(_to_the_end(pieces), media_type="application/octet-stream")
        async with aclosing(pieces):
            data = b"".join([piece async for piece in pieces])
        return Response(data, media_type="application/octet-stream")

    async def outputs(self, request: Request, job_id: UUID) -> OutputsAnswer:
        """The kept outputs of all attempts, the latest first."""
        await self._visible(request, job_id, None)
        await self._settled(job_id)
        kept = await self._store.read(lambda c: kept_store.outputs_of(c, job_id))
        return OutputsAnswer(
            outputs=tuple(OutputItem(name=o.name, size=o.size, problem=o.problem, attempt=o.attempt) for o in kept)
        )

    async def output(
        self, request: Request, job_id: UUID, name: str, attempt: Annotated[int | None, Query(ge=1)] = None
    ) -> Response:
        """The bytes of one output: of the attempt named, or of the latest that has it."""
        await self._visible(request, job_id, attempt)
        pending = not await self._settled(job_id)
        kept = await self._store.read(lambda c: kept_store.output(c, job_id, name, attempt))
        if kept is None and pending:
            raise Unavailable(f"output {name!r} is still being fetched from its site", retry_after_s=2)
        return Response(_bytes_of(name, kept), media_type="application/octet-stream")

    async def _visible(self, request: Request, job_id: UUID, attempt: int | None) -> AttemptRecord:
        grant = await self._verifier.verify_read(request.headers.get(READ_GRANT_HEADER, ""))
        record = await self._store.read(lambda c: store.record_of(c, job_id, attempt))
        if record is None or not any(grant.may(verb, record.identity.vo) for verb in LOG_VERBS):
            raise NotFound("no site has shown such an attempt (yet), or it is not yours to see", code="not_found")
        return record

    async def _settled(self, job_id: UUID) -> bool:
        """Wait a little for what is being fetched; whether it is all there."""
        deadline = asyncio.get_running_loop().time() + self._settings.settle_s
        with self._changes.watch(job_id) as changed:
            while await self._store.read(lambda c: kept_store.is_owed(c, job_id)):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return False
                await wait(changed, min(left, 1.0))
                changed.clear()
        return True


def _bytes_of(name: str, kept: KeptFile | None) -> bytes:
    if kept is None:
        raise NotFound(f"no output {name!r} was kept", code="not_found")
    if kept.data is None:
        raise NotFound(f"output {name!r} was not kept: {kept.problem}", code="not_found")
    return kept.data


async def _to_the_end(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The pieces; the reader's resources go when the asker does."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


def make_app(answers: Answers, door: Door) -> FastAPI:
    """The monitor's HTTP face, without health."""
    app = FastAPI(title="Serai monitor", redirect_slashes=False, openapi_url=None, docs_url=None, redoc_url=None)
    install_problems(app)
    guarded = between_services(door, "gateway")
    job = "/internal/jobs/{job_id}"
    app.add_api_route(f"{job}/events", answers.events, methods=["GET"], **guarded)
    app.add_api_route(f"{job}/logs", answers.logs, methods=["GET"], **guarded, response_model=None)
    app.add_api_route(f"{job}/outputs", answers.outputs, methods=["GET"], **guarded)
    app.add_api_route(f"{job}/outputs/{{name}}", answers.output, methods=["GET"], **guarded, response_model=None)
    return app
