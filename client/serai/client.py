"""The Python SDK: everything a researcher or a service can ask of a Serai platform, over its public HTTP API.

    async with Serai("http://127.0.0.1:8080", token) as serai:
        job = await serai.submit({"name": "hello", "vo": "vo.bio.example", "command": ["echo", "hello"]})
        done = (await serai.wait([job.id]))[0]

Errors: `Problem` (the platform refuses, and says why), `Unreachable`, `NotUnderstood`, `WaitTimedOut`.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import httpx2

from serai import streaming, wire
from serai.errors import NotUnderstood, Problem, WaitTimedOut
from serai.values import Event, Gap, Job, Json
from serai.wire import Bearer

LONG_POLL_S: Final = 30
"""How long one question for a change may stay open at the gateway; shorter than proxies' usual 60 s."""

LOOK_S: Final = 10.0
"""Least time for the first look at jobs that are waited for, however short the wait."""

POLLS_AT_ONCE: Final = 32
"""Open questions while many jobs are waited for; the rest wait their turn, which loses nothing."""

LogStream = Literal["stdout", "stderr"]


class Serai:
    """A signed-in connection to one gateway; use as an async context manager.

    `token` is an access token of an issuer that the platform trusts (`root()` names them), or a bearer that has one
    for each request (`serai.signin`); None only for `root()` and `schema()`. `on_break` is told in words when the
    gateway goes away and is tried again; `transport` and `pace` are for tests.
    """

    def __init__(
        self, url: str, token: str | Bearer | None = None, *, transport: httpx2.AsyncBaseTransport | None = None,
        pace: wire.Pace | None = None, timeout_s: float = 30.0, on_break: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self._wire = wire.Wire(self.url, token, transport=transport, pace=pace, timeout_s=timeout_s, on_break=on_break)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.close()

    # -- the platform -------------------------------------------------------------------------------------------

    async def root(self) -> Json:
        """`GET /v1`: issuers, documents and streams; needs no token."""
        return await self._first("/v1", signed=False)

    async def whoami(self) -> Json:
        """Who the platform takes the caller for: principal, memberships with roles and verbs."""
        return await self._first("/v1/whoami")

    async def schema(self) -> Json:
        """The JSON Schema of a job file."""
        return wire.json_of(await self._wire.request("GET", "/v1/schema/job", signed=False))

    async def sites(self) -> list[Json]:
        """Every site with its health, capacity and what is free."""
        return list((await self._get("/v1/sites"))["sites"])

    async def cordon(self, site: str, reason: str = "") -> Json:
        """Place nothing more at `site` (operators); what runs there goes on."""
        return await self._post(f"/v1/sites/{_part(site)}:cordon", {"reason": reason})

    async def uncordon(self, site: str) -> Json:
        """Place at `site` again (operators)."""
        return await self._post(f"/v1/sites/{_part(site)}:uncordon", {})

    # -- secrets ------------------------------------------------------------------------------------------------

    async def secrets(self, vo: str | None = None) -> list[Json]:
        """Names and dates of the caller's secrets, of one VO or of all. Nobody is ever shown a value."""
        return list((await self._get("/v1/secrets", {"vo": vo} if vo else None))["secrets"])

    async def set_secret(self, name: str, value: bytes | str, vo: str) -> Json:
        """Set a secret, new or anew: up to 32 KiB. Jobs of this VO that start from now on get this value."""
        told = base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        body = {"vo": vo, "value": told, "encoding": "base64"}
        return wire.json_of(await self._wire.request("PUT", f"/v1/secrets/{_part(name)}", json=body))

    async def delete_secret(self, name: str, vo: str) -> None:
        """Delete a secret. Queued jobs that name it will not start."""
        await self._wire.request("DELETE", f"/v1/secrets/{_part(name)}", params={"vo": vo})

    # -- subscriptions ------------------------------------------------------------------------------------------

    async def subscriptions(self) -> list[Json]:
        """The caller's subscriptions, newest first; those that have ended in the last days too, and why."""
        return list((await self._get("/v1/subscriptions"))["items"])

    async def subscribe(
        self, vo: str, *, states: Iterable[str] = (), labels: Mapping[str, str] | None = None, own: bool = False,
        since: str | None = None,
    ) -> Json:  # fmt: skip
        """Be told of a VO's events in an AMQP queue; `connection` in the answer is how to read it, told only now.

        `since`: the id of the event to go on behind, or a time (RFC 3339); None = from now on.
        """
        body: Json = {"vo": vo, "states": list(states), "labels": dict(labels or {}), "own": own}
        return await self._post("/v1/subscriptions", body | ({"from": since} if since else {}))

    async def subscription(self, id: str) -> Json:
        """One of the caller's subscriptions."""
        return await self._get(f"/v1/subscriptions/{_part(id)}")

    async def renew_subscription(self, id: str) -> Json:
        """A new password for it, good for another while; connections that are open go on."""
        return wire.json_of(await self._wire.request("POST", f"/v1/subscriptions/{_part(id)}:renew"))

    async def delete_subscription(self, id: str) -> None:
        """End it; its queue goes with what is in it."""
        await self._wire.request("DELETE", f"/v1/subscriptions/{_part(id)}")

    # -- handing in ---------------------------------------------------------------------------------------------

    async def submit(self, job: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Hand in one job. Sent again after a break with the same key, it is still one job."""
        key = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        answer = await self._wire.request("POST", "/v1/jobs", json=dict(job), headers=key, repeatable=True)
        return _job(answer)

    async def put(self, job_id: str, job: Mapping[str, Any]) -> Job:
        """Hand in one job under an id (UUID) that the caller made; the same again is the same job."""
        return _job(await self._wire.request("PUT", _path(job_id), json=dict(job)))

    async def submit_many(
        self, jobs: Sequence[Mapping[str, Any]], idempotency_key: str | None = None
    ) -> list[Job | Problem]:
        """Hand in up to 1,000 jobs with one question; for each, in order, the job or why it was refused."""
        key = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        answer = await self._wire.request(
            "POST", "/v1/jobs:batch", json={"jobs": [dict(job) for job in jobs]}, headers=key, repeatable=True
        )
        return [_item(item, jobs[item["index"]]) for item in wire.json_of(answer)["items"]]

    async def dry_run(self, job: Mapping[str, Any]) -> Json:
        """Where this job would go if it were handed in now: summary and every site's verdict. Changes nothing."""
        return await self._post("/v1/jobs:explain", dict(job))

    # -- following ----------------------------------------------------------------------------------------------

    async def jobs(
        self, *, whole_vo: bool = False, vo: str | None = None, states: Sequence[str] = (), sites: Sequence[str] = (),
        labels: Mapping[str, str] | None = None, created_after: str | None = None, page: int = 100,
    ) -> AsyncIterator[Job]:  # fmt: skip
        """The caller's own jobs, newest first, page by page as they are asked for.

        `whole_vo`: all jobs of the VOs where the caller's role shows them. `created_after` is RFC 3339 text.
        """
        asked: dict[str, Any] = {
            "view": "vo" if whole_vo else None, "vo": vo, "state": list(states), "site": list(sites),
            "created_after": created_after, "limit": page,
            "label": _labels(labels),
        }  # fmt: skip
        while True:
            answer = await self._get("/v1/jobs", asked)
            for raw in answer["items"]:
                yield Job.of(raw)
            if not answer.get("next"):
                return
            asked["cursor"] = answer["next"]

    async def job(self, job_id: str) -> Job:
        """One job as it is now. Raises Problem `not_found` also for jobs that the caller may not see."""
        return _job(await self._wire.request("GET", _path(job_id)))

    async def timeline(self, job_id: str) -> list[Event]:
        """All facts about a job in order."""
        answer = await self._get(_path(job_id, "timeline"))
        return [Event.of({**item, "job_id": job_id}) for item in answer["items"]]

    async def explain(self, job_id: str) -> Json:
        """Why the job is where it is: summary, reason, position in the queue, every site's verdict."""
        return await self._get(_path(job_id, "explain"))

    async def trace(self, job_id: str) -> Json:
        """The spans of everything done for the job so far."""
        return await self._get(_path(job_id, "trace"))

    async def outputs(self, job_id: str) -> list[Json]:
        """The declared outputs: name, size in bytes, and `problem` where one could not be kept."""
        return list((await self._get(_path(job_id, "outputs")))["outputs"])

    async def output(self, job_id: str, name: str) -> bytes:
        """The content of one output."""
        return (await self._wire.request("GET", _path(job_id, "outputs", name))).content

    async def logs(
        self, job_id: str, *, stream: LogStream = "stdout", attempt: int | None = None, follow: bool = False,
        tail: int | None = None,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """What the job printed, all or only its last `tail` bytes; of the current attempt unless one is named.

        With `follow` it waits for the attempt to begin and ends with it. After a break it goes on where it was; that
        needs a named attempt and no `tail`, otherwise Unreachable is raised.
        """
        params = {"stream": stream, "attempt": attempt, "tail": tail}
        source = streaming.log_bytes(self._wire, _path(job_id, "logs"), params, follow=follow)
        async with aclosing(source) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def events(
        self, *, job_id: str | None = None, vos: Sequence[str] = (), states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None, after: str | None = None,
    ) -> AsyncIterator[Event | Gap]:  # fmt: skip
        """Facts as they happen, going on by itself after a break; a `Gap` says that some are lost for good.

        `after` is the `position` of the last event seen. A job's own stream begins with its first fact and ends with
        its last; the stream of everything that the caller may hear begins now and does not end. `states` are of jobs
        or attempts; all three filters are for the stream of everything.
        """
        path = _path(job_id, "events") if job_id else "/v1/events"
        asked = {"vo": list(vos), "state": list(states), "label": _labels(labels)}
        async with aclosing(streaming.events(self._wire, path, asked, after)) as facts:  # type: ignore[type-var]
            async for fact in facts:
                yield fact

    async def until(
        self, job_id: str, true: Callable[[Job], bool], *, timeout_s: float | None = None,
        seen: Callable[[Job], None] = lambda job: None,
    ) -> Job:  # fmt: skip
        """The job once `true(job)` holds or it has ended; `seen` is called with each change on the way.

        One question stays open at the gateway until the job changes: no polling. Raises WaitTimedOut, but not before
        the job was looked at once: one that is there already has not timed out.
        """
        look_by, wait_by = _deadlines(timeout_s)
        try:
            async with asyncio.timeout_at(look_by):
                job = await self.job(job_id)
            seen(job)
            if job.ended or true(job):
                return job
            async with asyncio.timeout_at(wait_by):
                return await self._until(job, true, seen)
        except TimeoutError as error:
            raise WaitTimedOut(timeout_s or 0, [job_id]) from error

    async def _until(self, job: Job, true: Callable[[Job], bool], seen: Callable[[Job], None]) -> Job:
        while not (job.ended or true(job)):
            asked = self._wire.pace.clock()
            news = await self._change(job)
            if news is None and self._wire.pace.clock() - asked < 1:
                await self._wire.pace.sleep(1)  # a gateway, or a proxy before it, that does not wait as it was asked to
            if news is not None:
                job = news
                seen(job)
        return job

    async def _change(self, job: Job) -> Job | None:
        """The job when it has changed since `job`, or None when the gateway's patience ended first."""
        headers = {"Prefer": f"wait={LONG_POLL_S}"} | ({"If-None-Match": job.etag} if job.etag else {})
        answer = await self._wire.request("GET", _path(job.id), headers=headers, timeout_s=LONG_POLL_S + 15)
        if answer.status_code == 304:
            return None
        news = _job(answer)
        return None if news.etag == job.etag and news == job else news

    async def wait(
        self, job_ids: Sequence[str], *, timeout_s: float | None = None, seen: Callable[[Job], None] = lambda job: None
    ) -> list[Job]:
        """The jobs, in the order of `job_ids`, once all have ended. Raises WaitTimedOut; the jobs then go on.

        Each is looked at once, however short the time is.
        """
        known = dict[str, Job]()
        look_by, wait_by = _deadlines(timeout_s)

        async def look(job_id: str) -> None:
            known[job_id] = await self.job(job_id)
            seen(known[job_id])

        async def follow(job_id: str) -> None:
            known[job_id] = await self._until(known[job_id], lambda job: False, seen)

        try:
            await _together(look, tuple(dict.fromkeys(job_ids)), look_by)
            await _together(follow, [job_id for job_id, job in known.items() if not job.ended], wait_by)
        except TimeoutError as error:
            unfinished = [job_id for job_id in job_ids if job_id not in known or not known[job_id].ended]
            raise WaitTimedOut(timeout_s or 0, unfinished) from error
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from group_of_errors
        return [known[job_id] for job_id in job_ids]

    async def report(
        self, job_id: str, fraction: float | None = None, message: str = "",
        results: Mapping[str, float | int | bool | str] | None = None,
    ) -> Json:  # fmt: skip
        """Tell how far a job has come: from inside it, signed in with its own token (`serai.inside`)."""
        body = {"fraction": fraction, "message": message, "results": dict(results or {})}
        return wire.json_of(await self._wire.request("POST", _path(job_id, "progress"), json=body))

    async def cancel(self, job_id: str) -> Job:
        """Ask for the job's end. It is `cancelled` once its site has confirmed; it may have finished before."""
        return _job(await self._wire.request("DELETE", _path(job_id)))

    # -- inside -------------------------------------------------------------------------------------------------

    async def _first(self, path: str, *, signed: bool = True) -> Json:
        """An answer that every gateway has: whoever has it not is none."""
        try:
            return wire.json_of(await self._wire.request("GET", path, signed=signed))
        except Problem as problem:
            if problem.status == 404:
                raise NotUnderstood(f"{self.url} answers, but not as a Serai gateway") from problem
            raise

    async def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        return wire.json_of(await self._wire.request("GET", path, params=params))

    async def _post(self, path: str, body: Json) -> Json:
        """A POST that is harmless when it arrives twice (a question, or a wish for a state)."""
        return wire.json_of(await self._wire.request("POST", path, json=body, repeatable=True))


def _part(text: str) -> str:
    return quote(text, safe="")


def _deadlines(timeout_s: float | None) -> tuple[float | None, float | None]:
    """By when jobs were looked at, and until when they are waited for, by the loop's clock."""
    if timeout_s is None:
        return None, None
    now = asyncio.get_running_loop().time()
    return now + max(timeout_s, LOOK_S), now + timeout_s


async def _together(work: Callable[[str], Awaitable[None]], job_ids: Sequence[str], deadline: float | None) -> None:
    """Work on all of them, some at a time. Raises TimeoutError, or a group with the first failure."""
    if not job_ids:
        return
    turn = asyncio.Semaphore(POLLS_AT_ONCE)

    async def one(job_id: str) -> None:
        async with turn:
            await work(job_id)

    async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
        for job_id in job_ids:
            group.create_task(one(job_id), name=f"wait for {job_id}")


def _path(job_id: str, *parts: str) -> str:
    return "/".join(["/v1/jobs", _part(job_id), *map(_part, parts)])


def _job(answer: httpx2.Response) -> Job:
    return Job.of(wire.json_of(answer), answer.headers.get("etag"))


def _labels(labels: Mapping[str, str] | None) -> list[str]:
    return [f"{name}:{value}" for name, value in (labels or {}).items()]


def _item(item: Json, job: Mapping[str, Any]) -> Job | Problem:
    """What became of one job of a batch; pointers are made to lead into that job instead of the batch."""
    if item.get("id"):
        raw = {"id": item["id"], "state": "accepted", "name": job.get("name"), "vo": job.get("vo")}
        return Job.of(raw | {"kind": job.get("kind")})
    problem = dict(item.get("problem") or {})
    prefix = f"/jobs/{item['index']}"
    problem["errors"] = [
        {**fault, "pointer": str(fault.get("pointer", "")).removeprefix(prefix)}
        for fault in problem.get("errors") or ()
    ]
    return wire.problem_from(int(item["status"]), problem)
