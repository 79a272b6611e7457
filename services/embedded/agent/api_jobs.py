"""Jobs over HTTP: register, plan, validate, stop, and what hangs below `/v1/job/:id`."""

from typing import TYPE_CHECKING, Any

from . import api_reads, collect, views
from .entities import Job
from .jobspec import Row, canonical_job
from .region import Registered
from .rows import thawed
from .validation import error_text, job_errors
from .web import Answer, HttpError, Request, json_answer
from .wiretypes import type_fault

if TYPE_CHECKING:
    from .server import EmbeddedAgent

ANSWER_TAIL: Row = {"KnownLeader": False, "LastContact": 0, "NextToken": ""}


async def jobs(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer | None:
    """List (GET) or register (POST, PUT)."""
    if request.method == "GET":
        return await api_reads.jobs(agent, request, rest)
    request.only("POST", "PUT")
    return await _register(agent, request, "")


async def _register(agent: "EmbeddedAgent", request: Request, path_id: str) -> Answer:
    body = await request.json()
    job = _job_of(body, "Job ID hasn't been provided")
    if path_id and job["ID"] != path_id:
        raise HttpError(400, "Job ID does not match name")
    spec = _checked(agent, request, job)
    enforce, index = bool(body.get("EnforceIndex")), int(body.get("JobModifyIndex") or 0)
    done = agent.region.register(spec, enforce, index, agent.now())
    await agent.durable()
    return json_answer({**_registered(done), "Warnings": "", **ANSWER_TAIL}, X_Nomad_Index=str(done.index))


def _registered(done: Registered) -> Row:
    return {
        "EvalCreateIndex": done.eval_index,
        "EvalID": done.eval_id,
        "Index": done.index,
        "JobModifyIndex": done.job_modify_index,
    }


def _job_of(body: dict[str, Any], without_id: str) -> dict[str, Any]:
    """The request's job, refused like Go's decoder and handlers refuse it."""
    job = body.get("Job")
    if job is None:
        raise HttpError(400, "Job must be specified")
    if not isinstance(job, dict):
        raise HttpError(400, "json: cannot unmarshal into Go struct field JobRegisterRequest.Job of type api.Job")
    if fault := type_fault(job):
        raise HttpError(400, fault)
    if without_id and not job.get("ID"):
        raise HttpError(400, without_id)
    return job


def _canonical(agent: "EmbeddedAgent", request: Request, job: dict[str, Any]) -> Row:
    """The job's own namespace wins over the query's, as in Nomad."""
    named = {**job, "Namespace": job.get("Namespace") or request.get("namespace") or "default"}
    try:
        return canonical_job(named, agent.settings.region)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise HttpError(400, f"json: {error}") from error


def _checked(agent: "EmbeddedAgent", request: Request, job: dict[str, Any]) -> Row:
    spec = _canonical(agent, request, job)
    if spec["Type"] not in ("batch", "service") and not job_errors(spec, agent.region.namespaces, agent.region.pools):
        raise HttpError(501, f'the embedded agent runs batch and service jobs, not "{spec["Type"]}"')
    if spec["Periodic"] or spec["ParameterizedJob"]:
        raise HttpError(501, "the embedded agent runs neither periodic nor parameterized jobs")
    if errors := job_errors(spec, agent.region.namespaces, agent.region.pools):
        raise HttpError(500, error_text(errors))
    return spec


async def validate(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """All faults of a job; the status is 200 either way."""
    request.only("POST", "PUT")
    job = _job_of(await request.json(), "")
    errors = job_errors(_canonical(agent, request, job), agent.region.namespaces, agent.region.pools)
    return json_answer(
        {"DriverConfigValidated": True, "Error": error_text(errors), "ValidationErrors": errors or None, "Warnings": ""}
    )


async def job(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer | None:
    """Everything below `/v1/job/`; ids may hold slashes, so the suffix decides."""
    for suffix, handler in SUFFIXES.items():
        if rest.endswith(suffix) and len(rest) > len(suffix):
            return await handler(agent, request, rest.removesuffix(suffix))
    if request.method == "GET":
        return await _read(agent, request, rest)
    if request.method == "DELETE":
        return await _deregister(agent, request, rest)
    request.only("GET", "DELETE", "POST", "PUT")
    return await _register(agent, request, rest)


async def _plan(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("POST", "PUT")
    body = await request.json()
    wanted = _job_of(body, "Job must have a valid ID")
    if wanted["ID"] != job_id:
        raise HttpError(400, "Job ID does not match")
    answer = agent.region.plan(_checked(agent, request, wanted), agent.now(), diff=body.get("Diff") is True)
    return json_answer(answer, X_Nomad_Index=str(answer["Index"]))


async def _deregister(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    key = (request.get("namespace") or "default", job_id)
    done = agent.region.deregister(key, request.flag("purge"), agent.now())
    await agent.durable()
    tail = {**ANSWER_TAIL, "VolumeEvalID": "", "VolumeEvalIndex": 0}
    return json_answer({**_registered(done), **tail}, X_Nomad_Index=str(done.index))


def _find(agent: "EmbeddedAgent", request: Request, job_id: str) -> Job | None:
    return agent.region.state.jobs.get((request.get("namespace") or "default", job_id))


async def _read(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    state = agent.region.state

    def index() -> int:
        found = _find(agent, request, job_id)
        return found.row["ModifyIndex"] if found else 0

    await agent.block(request, index)
    found = _find(agent, request, job_id)
    if found is None:
        raise HttpError(404, "job not found")
    row = found.row
    return json_answer(row, **api_reads.index_headers(row["ModifyIndex"] or state.index))


async def _allocations(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("GET")
    state = agent.region.state
    key = (request.get("namespace") or "default", job_id)
    await agent.block(request, lambda: max([a.row["ModifyIndex"] for a in state.job_allocs(key)], default=0))
    stubs = [
        views.alloc_stub(state, a, task_states=True, resources=request.flag("resources")) for a in state.job_allocs(key)
    ]
    return json_answer(stubs, **api_reads.index_headers(state.table_index.get("allocs", 0)))


async def _evaluations(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("GET")
    state = agent.region.state

    def rows() -> list[Row]:
        found = _find(agent, request, job_id)
        return [state.evals[i] for i in found.evals] if found else []

    await agent.block(request, lambda: max([row["ModifyIndex"] for row in rows()], default=0))
    return json_answer(rows(), **api_reads.index_headers(state.table_index.get("evals", 0)))


def _deployments_of(agent: "EmbeddedAgent", request: Request, job_id: str) -> list[Row]:
    state, found = agent.region.state, _find(agent, request, job_id)
    return [d for d in state.deployments.values() if found is not None and state.job_of(d) is found]


async def _deployments(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("GET")
    rows = _deployments_of(agent, request, job_id)
    return json_answer(rows, **api_reads.index_headers(agent.region.state.table_index.get("deployment", 0)))


async def _deployment(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    """The newest, or null."""
    request.only("GET")
    newest = max(_deployments_of(agent, request, job_id), key=lambda d: d["CreateIndex"], default=None)
    return json_answer(newest, **api_reads.index_headers(agent.region.state.table_index.get("deployment", 0)))


async def _summary(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("GET")
    found = _find(agent, request, job_id)
    if found is None:
        raise HttpError(404, "job not found")
    row = views.job_summary(agent.region.state, found)
    return json_answer(row, **api_reads.index_headers(row["ModifyIndex"]))


async def _versions(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    request.only("GET")
    found = _find(agent, request, job_id)
    if found is None:
        raise HttpError(404, "job versions not found")
    versions = [{**row, "TaskGroups": thawed(row["TaskGroups"])} for row in (found.row, *found.versions)]
    tail = {"Diffs": None, "Index": found.row["ModifyIndex"], "KnownLeader": True, "LastContact": 0, "NextToken": ""}
    return json_answer({**tail, "Versions": versions}, **api_reads.index_headers(found.row["ModifyIndex"]))


async def _not_here(agent: "EmbeddedAgent", request: Request, job_id: str) -> Answer:
    raise HttpError(501, "not implemented by the embedded agent")


SUFFIXES = {
    "/plan": _plan,
    "/allocations": _allocations,
    "/evaluations": _evaluations,
    "/deployments": _deployments,
    "/deployment": _deployment,
    "/summary": _summary,
    "/versions": _versions,
    "/dispatch": _not_here,
    "/evaluate": _not_here,
    "/scale": _not_here,
    "/revert": _not_here,
    "/stable": _not_here,
}


async def system_gc(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Collect everything finished, at once."""
    request.only("PUT", "POST")
    collect.collect(agent.region, agent.now(), force=True)
    await agent.durable()
    return Answer(200, b"", "")
