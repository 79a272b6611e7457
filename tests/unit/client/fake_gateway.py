"""A gateway that plays a script: what each job looks like, one look after the other, and which requests fail first.

It speaks the gateway's public API as far as the client's tests need it, and remembers what it was asked.
"""

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOKEN = "token-of-alice"
VO = "vo.climate.example"
Json = dict[str, Any]
DEMO_ISSUER = {"issuer": "http://127.0.0.1:8081", "name": "demo", "demo_token_endpoint": "/demo/token"}


def job_id(number: int) -> str:
    """A UUID that ends in the number."""
    return f"01939f3e-7a2b-7000-8000-{number:012x}"


def look(number: int = 1, state: str = "succeeded", **fields: Any) -> Json:
    """One look of a job, as `GET /v1/jobs/{id}` shows it."""
    return {
        "id": job_id(number), "name": "hello", "vo": VO, "kind": "batch", "state": state, "site": None, "attempt": 0,
        "exit_code": None, "reason": None, "created_at": "2026-11-24T12:00:00Z", "endpoints": [],
        "owner": {"issuer": "http://issuer", "subject": "alice", "name": "Alice"}, **fields,
    }  # fmt: skip


def event(sequence: int, kind: str, number: int = 1, **data: Any) -> Json:
    """A fact as a CloudEvent."""
    content = {"job_id": job_id(number), "vo": VO, "attempt": 0, "sequence": sequence, **data}
    return {
        "specversion": "1.0", "id": f"fact-{kind}-{sequence}", "type": f"eu.serai.{kind}.v1", "source": "scheduler",
        "time": "2026-11-24T12:00:00+00:00", "sequence": f"{sequence:010d}", "attempt": "0", "data": content,
    }  # fmt: skip


def frames(*items: tuple[str, Json], end: str | None = None) -> bytes:
    """Server-sent events with positions, as the gateway writes them."""
    text = "retry: 0\n\n"
    for position, body in items:
        kind = body["type"].removeprefix("eu.serai.").removesuffix(".v1") if "type" in body else "gap"
        text += f"id: {position}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"
    return (text + (f'event: end\ndata: {{"reason": "{end}"}}\n\n' if end else "")).encode()


def problem(
    status: int, code: str, detail: str = "", headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A problem document."""
    body = {"type": f"/problems/{code}", "title": code, "status": status, "detail": detail or code, "code": code}
    return JSONResponse({**body, **members}, status, headers, media_type="application/problem+json")


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeGateway:
    """`jobs`: number -> looks in turn (the last one stays). `first`: answers that come before all others, in turn.
    `log_breaks`: after how many bytes the next logs break off (over a transport that streams)."""

    jobs: dict[int, list[Json]] = field(default_factory=dict)
    first: list[Response] = field(default_factory=list)
    streams: list[Response] = field(default_factory=list)
    logs: dict[str, bytes] = field(default_factory=dict)
    log_breaks: list[int] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)
    timeline: list[Json] = field(default_factory=list)
    explanation: Json = field(default_factory=dict)
    spans: list[Json] = field(default_factory=list)
    refusals: dict[str, Response] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    page: int = 100
    vouches: str = "http://issuer"
    memberships: list[Json] = field(default_factory=lambda: [{"vo": VO, "role": "manager", "verbs": ["job.submit"]}])
    issuers: list[Json] = field(default_factory=lambda: [dict(DEMO_ISSUER)])

    @property
    def app(self) -> Starlette:
        job = "/v1/jobs/{id}"
        routes = [
            Route("/v1", self.root), Route("/v1/whoami", self.whoami), Route("/v1/schema/job", self.schema),
            Route("/v1/jobs", self.list), Route("/v1/jobs", self.submit, methods=["POST"]),
            Route("/v1/jobs:batch", self.batch, methods=["POST"]),
            Route("/v1/jobs:explain", self.explain, methods=["POST"]),
            Route("/v1/events", self.events), Route("/v1/sites", self.sites),
            Route("/v1/sites/{name}", self.cordoned, methods=["POST"]),
            Route(f"{job}/events", self.events), Route(f"{job}/timeline", self.told), Route(f"{job}/logs", self.log),
            Route(f"{job}/explain", self.explain), Route(f"{job}/trace", self.trace),
            Route(f"{job}/outputs", self.kept),
            Route(f"{job}/outputs/{{name}}", self.content),
            Route(job, self.job), Route(job, self.cancel, methods=["DELETE"]),
            Route("/demo/users", self.users), Route("/demo/token", self.token, methods=["POST"]),
            *self.more_routes(),
        ]  # fmt: skip
        return Starlette(
            routes=[Route(r.path, self._guarded(r.endpoint), methods=list(r.methods or ())) for r in routes]
        )

    def more_routes(self) -> Iterable[Route]:
        """Those of a gateway that can more."""
        return ()

    def paths(self, method: str = "GET") -> list[str]:
        """What was asked with a method, in order."""
        return [asked.path for asked in self.asked if asked.method == method]

    def _guarded(self, endpoint: Any) -> Any:
        async def handle(request: Request) -> Response:
            body = await request.body()
            self.asked.append(
                Asked(request.method, request.url.path, dict(request.query_params), dict(request.headers), body)
            )
            if self.first:
                return self.first.pop(0)
            is_open = request.url.path == "/v1" or request.url.path.startswith(("/demo", "/v1/schema"))
            if not is_open and not self.accepts(request.headers.get("authorization")):
                return problem(401, "unauthenticated", "no valid access token")
            answer: Response = await endpoint(request)
            return answer

        return handle

    def accepts(self, authorization: str | None) -> bool:
        return authorization == f"Bearer {TOKEN}"

    async def root(self, request: Request) -> Response:
        return JSONResponse({"name": "serai", "version": "1.0", "issuers": self.issuers})

    async def users(self, request: Request) -> Response:
        return JSONResponse({"users": [{"user": "alice", "about": "manager"}, {"user": "bob", "about": "member"}]})

    async def token(self, request: Request) -> Response:
        return JSONResponse({"access_token": TOKEN, "expires_in": 3600})

    async def whoami(self, request: Request) -> Response:
        principal = {"issuer": self.vouches, "subject": "alice", "name": "Alice"}
        return JSONResponse({"principal": principal, "memberships": self.memberships, "platform_roles": []})

    async def schema(self, request: Request) -> Response:
        return JSONResponse({"title": "Serai job file"})

    async def sites(self, request: Request) -> Response:
        site = {"name": "prague", "country": "CZ", "health": "passing", "reachable": True, "cores_total": 8,
                "cores_free": 7.5, "vos": [VO], "attempts": 1}  # fmt: skip
        return JSONResponse({"sites": [site]})

    async def cordoned(self, request: Request) -> Response:
        return JSONResponse({"site": request.path_params["name"]}, 202)

    async def list(self, request: Request) -> Response:
        start = int(request.query_params.get("cursor", 0))
        newest = [looks[-1] for _, looks in sorted(self.jobs.items(), reverse=True)]
        end = start + self.page
        return JSONResponse({"items": newest[start:end], "next": str(end) if end < len(newest) else None})

    async def submit(self, request: Request) -> Response:
        job = await request.json()
        if job.get("name") in self.refusals:
            return self.refusals[job["name"]]
        number = next((n for n, looks in self.jobs.items() if looks[0]["name"] == job["name"]), 1)
        looks = self.jobs.setdefault(number, [look(number)])
        return JSONResponse({**looks[0], "state": "accepted"}, 202, {"ETag": '"0"'})

    async def batch(self, request: Request) -> Response:
        items = []
        for index, job in enumerate((await request.json())["jobs"]):
            if job.get("name") in self.refusals:
                refusal = self.refusals[job["name"]]
                body = json.loads(bytes(refusal.body))
                for fault in body.get("errors", ()):
                    fault["pointer"] = f"/jobs/{index}{fault['pointer']}"
                items.append({"index": index, "status": refusal.status_code, "problem": body})
            else:
                self.jobs.setdefault(index + 1, [look(index + 1)])
                items.append({"index": index, "status": 202, "id": job_id(index + 1)})
        return JSONResponse({"accepted": 0, "refused": 0, "items": items}, 202)

    async def job(self, request: Request) -> Response:
        looks = self._looks(request)
        if looks is None:
            return problem(404, "not_found", "there is no such job")
        if request.headers.get("prefer") and len(looks) > 1:
            looks.pop(0)
        elif request.headers.get("prefer"):
            return Response(status_code=304, headers={"ETag": '"last"'})
        return JSONResponse(looks[0], headers={"ETag": f'"{-len(looks)}"'})

    async def cancel(self, request: Request) -> Response:
        looks = self._looks(request)
        if looks is None:
            return problem(404, "not_found", "there is no such job")
        return JSONResponse(looks[0], 202)

    async def events(self, request: Request) -> Response:
        return self.streams.pop(0) if self.streams else Response(status_code=204)

    async def told(self, request: Request) -> Response:
        return JSONResponse({"job_id": request.path_params["id"], "items": self.timeline})

    async def explain(self, request: Request) -> Response:
        return JSONResponse(self.explanation)

    async def trace(self, request: Request) -> Response:
        return JSONResponse({"trace_id": "4bf9", "spans": self.spans})

    async def kept(self, request: Request) -> Response:
        return JSONResponse({"outputs": [{"name": n, "size": len(c), "attempt": 1} for n, c in self.outputs.items()]})

    async def content(self, request: Request) -> Response:
        content = self.outputs.get(request.path_params["name"])
        return Response(content) if content is not None else problem(404, "not_found", "there is no such output")

    async def log(self, request: Request) -> Response:
        whole = self.logs.get(request.query_params.get("stream", "stdout"), b"")
        rest = whole[int(request.query_params.get("offset", 0)) :]
        if not self.log_breaks:
            return Response(rest, media_type="text/plain")
        return StreamingResponse(_broken(rest[: self.log_breaks.pop(0)]), media_type="text/plain")

    def _looks(self, request: Request) -> Any:
        return self.jobs.get(int(request.path_params["id"][-12:], 16))


async def _broken(start: bytes) -> AsyncIterator[bytes]:
    yield start
    raise httpx2.ReadError("the connection broke")


def sse(content: bytes) -> Response:
    """One connection's worth of an event stream: it breaks at the end of `content`."""
    return Response(content, media_type="text/event-stream")
