"""Routes for event streams."""

from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Query, Request, Response
from pydantic.config import JsonDict

from services.gateway import job_view, resume
from services.gateway.access import Access, Caller
from services.gateway.api import preferences, routing
from services.gateway.lookup import Lookup, job_id_of
from services.gateway.permissions import EventFilter
from services.gateway.sse import CONTENT_TYPE, Streams
from shared.runtime.cutting import CuttableResponse

_ID: Final[JsonDict] = {"pattern": resume.PATTERN}
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", description="The last `id:` received: goes on behind it, at any gateway.",
        json_schema_extra=_ID,
    ),
]  # fmt: skip
After = Annotated[
    str | None, Query(description="As `Last-Event-ID`, for those who cannot send headers.", json_schema_extra=_ID)
]
_EVENT: Final = {
    "type": "object", "required": ["event", "data"],
    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
}  # fmt: skip
"""One frame of the stream."""
_STREAM = routing.stream_of(
    CONTENT_TYPE,
    _EVENT,
    "Server-Sent Events: `event:` is the kind (`job.running`), `data:` a CloudEvent, `id:` is `<epoch>-<position>`. "
    "`event: gap`: events may be lost, read again what you follow. `event: end`: the reason why the stream ends.",
)


class EventRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(self, access: Access, lookup: Lookup, streams: Streams) -> None:
        self._access = access
        self._lookup = lookup
        self._streams = streams

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        problems = ("invalid_cursor", "invalid_request")
        over: dict[int | str, dict[str, Any]] = {204: {"description": "The job has ended and you have heard of it"}}
        routing.add(
            app, "GET", "/v1/events", self.stream_events, tag="events", permission="job.view_own", problems=problems,
            responses=_STREAM,
        )  # fmt: skip
        routing.add(
            app, "GET", "/v1/jobs/{job_id}/events", self.stream_job_events, tag="events", permission="job.view_own",
            problems=(*problems, "not_found"), responses={**_STREAM, **over},
        )  # fmt: skip

    async def stream_events(
        self, request: Request,
        vo: Annotated[list[str] | None, Query(description="Repeat it for several.", max_length=50)] = None,
        state: Annotated[list[str] | None, Query(description="Of the job or the attempt.", max_length=20)] = None,
        label: Annotated[list[str] | None, Query(
            description="`key:value`; all must hold.", max_length=32, json_schema_extra=routing.LABELS
        )] = None,
        after: After = None,
        last_event_id: LastEventId = None,
    ) -> Response:  # fmt: skip
        """All events that you may hear of, from now on or from where you were. Ends with its token."""
        caller = await self._access.caller(request)
        for each in vo or ():
            if not caller.sight.sees_all_of(each):
                caller.must_belong_to(each)
        wanted = EventFilter(vos=frozenset(vo or ()), states=frozenset(state or ()), labels=preferences.labels(label))
        return await self._stream(caller, wanted, last_event_id or after)

    async def stream_job_events(
        self, request: Request, job_id: str, after: After = None, last_event_id: LastEventId = None
    ) -> Response:
        """The events of one job, from the first one or from where you were, up to its end."""
        caller = await self._access.caller(request)
        view = await self._lookup.view(caller, job_id_of(job_id))
        last_id = last_event_id or after
        if job_view.is_final(view) and await self._streams.is_over(str(view.id), last_id):
            return Response(status_code=204)
        return await self._stream(caller, EventFilter(job_id=str(view.id)), last_id)

    async def _stream(self, caller: Caller, wanted: EventFilter, last_id: str | None) -> Response:
        chunks = await self._streams.open(caller, wanted, last_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return CuttableResponse(chunks, media_type=CONTENT_TYPE, headers=headers)
