"""Routes that show jobs: lists, one job, its timeline, why it is where it is, its spans."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import FastAPI, Header, Query, Request, Response
from pydantic import BeforeValidator

from services.gateway import cursors, listing
from services.gateway.access import Access, Caller
from services.gateway.api import preferences, routing
from services.gateway.api.documents import JobList, Timeline, TraceDocument
from services.gateway.changes import Changes
from services.gateway.job_view import JobView, has_ended
from services.gateway.listing import JobFilter
from services.gateway.lookup import Lookup, job_id_of
from services.gateway.reporting import Reporting
from services.gateway.requests import refused_parameter
from services.gateway.settings import GatewaySettings
from services.gateway.store import HotRow
from services.gateway.timeline import Timelines, last_verdicts
from shared import ids
from shared.contracts.questions import Explanation
from shared.errors import NotFound, Refused
from shared.job import JobSpec, JobState
from shared.ports import Store
from shared.runtime.clock import micros
from shared.runtime.preconditions import etag, has_already
from shared.runtime.questions import Questions
from shared.runtime.telemetry import SpanReader

Label = Annotated[
    list[str] | None,
    Query(description="`key:value`; repeat it: all must hold.", max_length=32, json_schema_extra=routing.LABELS),
]
IfNoneMatch = routing.IfNoneMatch
Moment = Annotated[datetime | None, Query(description="RFC 3339."), BeforeValidator(preferences.moment)]


class ViewRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(
        self, settings: GatewaySettings, access: Access, reporting: Reporting, lookup: Lookup, store: Store,
        changes: Changes, scheduler: Questions, timelines: Timelines, spans: SpanReader | None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._access = access
        self._reporting = reporting
        self._lookup = lookup
        self._store = store
        self._changes = changes
        self._scheduler = scheduler
        self._timelines = timelines
        self._spans = spans
        self._cursor_key = cursors.key_from(settings.service_token.get_secret_value())

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        one: dict[str, Any] = {"tag": "jobs", "permission": "job.view_own", "problems": ("not_found",)}
        listed = {**one, "problems": ("invalid_request", "invalid_cursor", "forbidden")}
        not_modified = routing.NOT_MODIFIED
        routing.add(app, "GET", "/v1/jobs", self.list_jobs, answer=JobList, **listed)
        routing.add(app, "GET", "/v1/jobs/{job_id}", self.get_job, answer=JobView, responses=not_modified, **one)
        routing.add(
            app, "GET", "/v1/jobs/{job_id}/spec", self.get_job_spec, answer=JobSpec, responses=not_modified, **one
        )
        routing.add(app, "GET", "/v1/jobs/{job_id}/timeline", self.get_timeline, answer=Timeline, **one)
        routing.add(app, "GET", "/v1/jobs/{job_id}/explain", self.explain_job, answer=Explanation, **one)
        routing.add(app, "GET", "/v1/jobs/{job_id}/trace", self.get_trace, answer=TraceDocument, **one)

    async def list_jobs(
        self, request: Request,
        view: Annotated[Literal["own", "vo"], Query(description="Your own, or all of the VOs you may see.")] = "own",
        vo: Annotated[str | None, Query(json_schema_extra=routing.VO)] = None,
        state: Annotated[list[JobState] | None, Query(description="Repeat it for several.")] = None,
        site: Annotated[list[str] | None, Query(description="Repeat it for several.", max_length=50)] = None,
        label: Label = None,
        created_after: Moment = None,
        created_before: Moment = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=512)] = None,
    ) -> Response:  # fmt: skip
        """Jobs, newest first. A page costs the same however many jobs there are."""
        caller = await self._access.caller(request)
        wanted = JobFilter(
            whole_vo=view == "vo", vo=vo, states=tuple(dict.fromkeys(state or ())), sites=tuple(site or ()),
            labels=preferences.labels(label), created_after=_micros(created_after),
            created_before=_micros(created_before),
        )  # fmt: skip
        _may_list(caller, wanted)
        name = wanted.name(caller.sight)
        place = cursors.read(self._cursor_key, cursor, name) if cursor else None
        page = await self._store.read_long(
            lambda connection: listing.page(connection, wanted, caller.sight, place, limit)
        )
        following = cursors.write(self._cursor_key, page.last, name) if page.last else None
        body = b'{"items":[' + b",".join(page.summaries) + b'],"next":' + orjson.dumps(following) + b"}"
        return routing.json_bytes(body, headers=_link(request, following))

    async def get_job(
        self, request: Request, job_id: str,
        if_none_match: IfNoneMatch = None,
        prefer: Annotated[str | None, Header(description="`wait=30`: answer when it changes, or after 30 s.")] = None,
    ) -> Response:  # fmt: skip
        """One job. With `Prefer: wait=<s>` the answer comes when the job is no longer as `If-None-Match` says, or has
        ended: an ended job is never waited for.
        """
        caller, id = await self._access.anybody(request), job_id_of(job_id)
        if caller.workload is not None:
            await self._reporting.speaking(caller.workload, id)
        wait_s = preferences.wait_s(prefer, self._settings.wait_limit_s)
        row = await self._lookup.row(caller, id)
        headers = {}
        if wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s:g}"
            if has_already(if_none_match or "*", etag(row.version)):
                row = await self._changed(caller, id, row, wait_s)
        headers |= routing.job_headers(row.version)
        if has_already(if_none_match, etag(row.version)):
            return Response(status_code=304, headers=headers)
        return routing.json_bytes(bytes(row.body), headers=headers)

    async def get_job_spec(self, request: Request, job_id: str, if_none_match: IfNoneMatch = None) -> Response:
        """All that was asked for, values of `env` and contents of `files` included: for the owner only."""
        caller = await self._access.caller(request)
        spec = await self._lookup.spec(caller, job_id_of(job_id))
        headers = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
        return routing.unless_known(spec, if_none_match, headers)

    async def get_timeline(self, request: Request, job_id: str) -> Response:
        """Everything that happened to the job, in order."""
        caller = await self._access.caller(request)
        view = await self._lookup.view(caller, job_id_of(job_id))
        items = await self._timelines.of(view)
        return routing.json_bytes(orjson.dumps({"job_id": str(view.id), "items": items}))

    async def explain_job(self, request: Request, job_id: str) -> Response:
        """Why the job is where it is: its place in the queue, and every site's verdict, today's where it is queued.

        Of a job that is placed or has ended the verdicts are those of its last placement.
        """
        caller = await self._access.caller(request)
        view = await self._lookup.view(caller, job_id_of(job_id))
        try:
            explanation = await self._scheduler.ask(
                "GET", f"/internal/jobs/{view.id}/explain", Explanation, read_grant=caller.context.read_grant
            )
        except NotFound:
            summary = "The job is accepted and on its way to the scheduler."
            explanation = Explanation(state=view.state, summary=summary, job_id=view.id)
        if not explanation.verdicts and (verdicts := last_verdicts(await self._timelines.of(view))):
            explanation = explanation.model_copy(update={"verdicts": verdicts})
        return routing.json_bytes(explanation.model_dump_json().encode())

    async def get_trace(self, request: Request, job_id: str) -> Response:
        """The job's spans, where the platform keeps them itself; otherwise the operators' collector has them."""
        caller, id = await self._access.caller(request), job_id_of(job_id)
        await self._lookup.row(caller, id)
        if self._spans is None:
            raise NotFound(
                f"spans are not kept here; ask the operators' trace collector for trace {ids.trace_id(id)}",
                code="not_found",
            )
        spans = await asyncio.to_thread(self._spans, ids.trace_id(id))
        return routing.json_bytes(orjson.dumps({"trace_id": ids.trace_id(id), "spans": spans}))

    async def _changed(self, caller: Caller, job_id: UUID, row: HotRow, wait_s: float) -> HotRow:
        """The job once it is no longer at this version, or as it is when the time is up: to who may see it then."""
        version = row.version
        with self._changes.watch(str(job_id)) as watcher, suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while _may_change(row, version) and not self._changes.closed:
                    watcher.clear()
                    row = await self._lookup.row(caller, job_id)
                    if _may_change(row, version):
                        await watcher.wait()
        return await self._lookup.row(await self._access.again(caller), job_id)


def _may_change(row: HotRow, version: int) -> bool:
    """It is as it was, and has not ended."""
    return row.version == version and not has_ended(row.body)


def _may_list(caller: Caller, wanted: JobFilter) -> None:
    sight = caller.sight
    if not wanted.whole_vo:
        if wanted.vo is not None:
            caller.must_belong_to(wanted.vo)
        return
    if wanted.vo is None and not sight.whole_vos:
        raise Refused(
            "name a VO with 'vo'" if sight.everything else "your role in your VOs shows you your own jobs only",
            code="forbidden",
        )
    if wanted.vo is not None and not sight.sees_all_of(wanted.vo):
        caller.must_belong_to(wanted.vo)
        raise Refused(
            f"your role in {wanted.vo} shows you your own jobs only; its managers and observers see all",
            code="forbidden",
        )


def _micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise refused_parameter("created_after/created_before", "needs a time zone, e.g. 2026-11-24T12:00:00Z")
    return micros(moment)


def _link(request: Request, following: str | None) -> dict[str, str]:
    if following is None:
        return {}
    url = request.url.include_query_params(cursor=following)
    return {"Link": f'<{url.path}?{url.query}>; rel="next"'}
