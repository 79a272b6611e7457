"""Routes that hand jobs in, ask where one would go, and cancel."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Request, Response

from services.gateway import granting, requests
from services.gateway.access import Access, Caller
from services.gateway.api import bodies, routing
from services.gateway.api.documents import BatchAnswer
from services.gateway.commanding import Commanding
from services.gateway.input_errors import InputError
from services.gateway.job_view import JobView
from services.gateway.lookup import job_id_of
from services.gateway.permissions import SUBMIT
from services.gateway.settings import GatewaySettings
from services.gateway.submission import Granted, Ready, Submission, Taken
from shared.contracts.questions import ExplainRequest, Explanation, GrantAnswer
from shared.errors import Refused, SeraiError
from shared.job import JobSpec
from shared.runtime import problems
from shared.runtime.questions import Questions
from shared.runtime.telemetry import Tracer

_INPUT = ("invalid_request", "undecodable", "unsupported_media_type", "too_large", "forbidden")
_BREATH = 32

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key with the same request is answered once; kept 14 days.",
        json_schema_extra={"pattern": r"^[\x21-\x7e]{1,255}$"},
    ),
]


class JobRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(
        self, settings: GatewaySettings, access: Access, submission: Submission, commanding: Commanding,
        scheduler: Questions, tracer: Tracer,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._access = access
        self._submission = submission
        self._commanding = commanding
        self._scheduler = scheduler
        self._tracer = tracer

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        conflict = ("idempotency_key_reused",)
        routing.add(
            app, "POST", "/v1/jobs", self.submit_job, tag="jobs", permission="job.submit", answer=JobView, status=202,
            problems=(*_INPUT, *conflict), body="JobFile",
        )  # fmt: skip
        routing.add(
            app, "POST", "/v1/jobs:batch", self.submit_jobs, tag="jobs", permission="job.submit", answer=BatchAnswer,
            status=202, problems=(*_INPUT, *conflict), body="JobBatch",
            responses={200: {"description": "Not one was taken", "model": BatchAnswer}},
        )  # fmt: skip
        routing.add(
            app, "POST", "/v1/jobs:explain", self.explain_before_submitting, tag="jobs", permission="job.submit",
            answer=Explanation, problems=_INPUT, body="JobFile",
        )  # fmt: skip
        routing.add(
            app, "PUT", "/v1/jobs/{job_id}", self.put_job, tag="jobs", permission="job.submit", answer=JobView,
            status=202, problems=(*_INPUT, "job_id_taken", "not_found", "precondition_failed"), body="JobFile",
            responses={200: {"description": "It was there already, with this content", "model": JobView}},
        )  # fmt: skip
        routing.add(
            app, "DELETE", "/v1/jobs/{job_id}", self.cancel_job, tag="jobs", permission="job.cancel", answer=JobView,
            status=202, problems=("not_found", "forbidden", "precondition_failed"),
            responses={200: {"description": "It had ended before", "model": JobView}},
        )  # fmt: skip

    async def submit_job(self, request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Hand in a job. It is kept from the 202 on, whatever happens to us; `Location` is where to follow it."""
        caller = await self._access.caller(request)
        body = await bodies.read_body(request, self._settings.body_limit)
        key = bodies.idempotency_key(request, body)
        spec = requests.read_job(bodies.decode_json(request, body))
        with self._tracer.span("POST /v1/jobs", kind="server", traceparent=_caller_trace(request)) as span:
            taken = await self._submission.submit(caller, spec, key)
            span.attributes |= {"serai.job_id": str(taken.job_id), "serai.vo": spec.vo}
            span.job_id = taken.job_id if taken.new else None
        return _answer(taken, 202)

    async def put_job(
        self, request: Request, job_id: str, if_match: routing.IfMatch = None, if_none_match: routing.OnlyNew = None
    ) -> Response:
        """Hand in a job under an id (UUID) of your own: safe to repeat. The same content again is answered 200."""
        caller, id = await self._access.caller(request), job_id_of(job_id)
        spec = requests.read_job(await self._json(request, self._settings.body_limit))
        with self._tracer.span("PUT /v1/jobs/{job_id}", kind="server", job_id=id):
            taken = await self._submission.put(caller, id, spec, routing.conditions(request))
        return _answer(taken, 202 if taken.new else 200)

    async def explain_before_submitting(self, request: Request) -> Response:
        """Where a job would go if it were handed in now: every site's verdict. Nothing is kept."""
        caller = await self._access.caller(request)
        spec = requests.read_job(await self._json(request, self._settings.body_limit))
        caller.must_be_able_to(SUBMIT, spec.vo)
        explanation = await self._scheduler.ask(
            "POST", "/internal/explain", Explanation, body=ExplainRequest(spec=spec),
            read_grant=caller.context.read_grant,
        )  # fmt: skip
        return routing.json_bytes(explanation.model_dump_json().encode())

    async def cancel_job(self, request: Request, job_id: str, if_match: routing.IfMatch = None) -> Response:
        """Cancel a job. 202: the request is kept and carried out; it is over when the state is final. Repeatable.

        With `If-Match` only if nothing has happened to it since: not when it began to run meanwhile, for example.
        """
        caller, id = await self._access.caller(request), job_id_of(job_id)
        with self._tracer.span("DELETE /v1/jobs/{job_id}", kind="server", job_id=id):
            cancelled = await self._commanding.cancel(caller, id, routing.conditions(request))
        headers = routing.job_headers(cancelled.version, id)
        return routing.json_bytes(cancelled.body, status=200 if cancelled.final else 202, headers=headers)

    async def submit_jobs(self, request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Hand in up to 1,000 jobs, `{"jobs": [...]}`. Each is taken or refused by itself; 200 when none was taken."""
        caller = await self._access.caller(request)
        body = await bodies.read_body(request, self._settings.batch_body_limit)
        key = bodies.idempotency_key(request, body)
        answer = await self._submission.answered(caller, key)
        if answer is None:
            files = _files(bodies.decode_json(request, body), self._settings.batch_limit)
            with self._tracer.span("POST /v1/jobs:batch", kind="server", traceparent=_caller_trace(request)) as span:
                span.attributes["serai.jobs"] = len(files)
                items, granted = await self._decided(caller, files)
                answer = orjson.dumps(_batch_document(items))
                answer = await self._submission.keep_all(caller, key, answer, granted) or answer
        return routing.json_bytes(answer, status=200 if answer.startswith(b'{"accepted":0,') else 202)

    async def _decided(self, caller: Caller, files: list[Any]) -> tuple[list[dict[str, Any]], list[Granted]]:
        """What becomes of each file of a batch, and the jobs to be taken."""
        items: list[dict[str, Any]] = []
        specs: dict[int, JobSpec] = {}
        for index, file in enumerate(files):
            if index % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            try:
                specs[index] = requests.read_job(file, ("jobs", index))
                caller.must_belong_to(specs[index].vo)
                items.append({"index": index})
            except Refused as refusal:
                specs.pop(index, None)
                items.append({"index": index, **self._refusal(refusal)})
        granted = []
        answers = await self._submission.submit_all(caller, list(specs.values()))
        for index, (job, answer) in zip(specs, answers, strict=True):
            items[index] |= self._outcome(job, answer)
            if answer.grant is not None:
                granted.append((job, answer.grant))
        return items, granted

    def _outcome(self, job: Ready, answer: GrantAnswer) -> dict[str, Any]:
        try:
            granting.granted(answer)
        except Refused as refusal:
            return self._refusal(refusal)
        id = str(job.command.job_id)
        return {"status": 202, "id": id, "location": f"/v1/jobs/{id}"}

    def _refusal(self, refusal: SeraiError) -> dict[str, Any]:
        code = problems.code_of(refusal)
        members: dict[str, Any] = refusal.details
        status, problem = problems.document(code, refusal.what, base=self._settings.public_url, **members)
        return {"status": status, "problem": problem}

    async def _json(self, request: Request, limit: int) -> Any:
        return bodies.decode_json(request, await bodies.read_body(request, limit))


def _answer(taken: Taken, status: int) -> Response:
    return routing.json_bytes(taken.body, status=status, headers=routing.job_headers(taken.version, taken.job_id))


def _files(batch: Any, limit: int) -> list[Any]:
    """The job files of a batch. Raises Refused (code `invalid_request`)."""
    if not isinstance(batch, Mapping) or not isinstance(batch.get("jobs"), list):
        raise requests.refused([InputError("/jobs", 'send {"jobs": [...]}, a list of job files')])
    unknown = sorted(set(batch) - {"jobs"})
    if unknown:
        raise requests.refused([InputError(f"/{unknown[0]}", f"unknown field {unknown[0][:80]!r}", "known here: jobs")])
    files: list[Any] = batch["jobs"]
    if not 1 <= len(files) <= limit:
        raise requests.refused([InputError("/jobs", f"holds {len(files)} jobs; send 1 to {limit} at a time")])
    return files


def _batch_document(items: list[dict[str, Any]]) -> dict[str, Any]:
    accepted = sum(item["status"] == 202 for item in items)
    return {"accepted": accepted, "refused": len(items) - accepted, "items": items}


def _caller_trace(request: Request) -> str:
    return request.headers.get("traceparent", "")
