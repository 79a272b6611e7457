"""The agent's HTTP API: from a request to the function that answers it.

Raw ASGI, because several agents share the platform's loop and each answer should cost little. Knows tokens and injected
faults; what the answers are is decided in the other `api_*.py`.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from . import api_client, api_jobs, api_namespaces, api_reads, api_vars, stream
from .faults import KINDS
from .region import Refused
from .web import Answer, HttpError, Message, Receive, Request, Send, json_answer, text_answer

if TYPE_CHECKING:
    from .server import EmbeddedAgent

log = logging.getLogger(__name__)
Handler = Callable[["EmbeddedAgent", Request, str], Awaitable[Answer | None]]

OPEN_PATHS = (
    "/.well-known/jwks.json", "/v1/status/leader", "/v1/status/peers", "/v1/regions", "/v1/agent/health",
)  # fmt: skip
EXACT: dict[str, Handler] = {
    "/v1/jobs": api_jobs.jobs,
    "/v1/jobs/statuses": api_reads.job_statuses,
    "/v1/validate/job": api_jobs.validate,
    "/v1/allocations": api_reads.allocations,
    "/v1/evaluations": api_reads.evaluations,
    "/v1/deployments": api_reads.deployments,
    "/v1/nodes": api_reads.nodes,
    "/v1/namespaces": api_namespaces.namespaces,
    "/v1/namespace": api_namespaces.namespace,
    "/v1/regions": api_reads.regions,
    "/v1/node/pools": api_reads.node_pools,
    "/v1/status/leader": api_reads.leader,
    "/v1/status/peers": api_reads.peers,
    "/v1/agent/health": api_reads.health,
    "/v1/agent/self": api_reads.agent_self,
    "/v1/acl/token/self": api_reads.token_self,
    "/v1/system/gc": api_jobs.system_gc,
    "/v1/client/stats": api_client.node_stats,
    "/v1/vars": api_vars.variables,
    "/.well-known/jwks.json": api_reads.jwks,
}
PREFIXES: list[tuple[str, Handler]] = [
    ("/v1/job/", api_jobs.job),
    ("/v1/allocation/", api_reads.allocation),
    ("/v1/evaluation/", api_reads.evaluation),
    ("/v1/deployment/", api_reads.deployment),
    ("/v1/node/", api_reads.node),
    ("/v1/namespace/", api_namespaces.namespace),
    ("/v1/var/", api_vars.variable),
    ("/v1/client/fs/", api_client.fs),
    ("/v1/client/allocation/", api_client.alloc_stats),
]
STREAMED = "/v1/client/fs/logs/"


class Api:
    """The ASGI application of one agent."""

    def __init__(self, agent: "EmbeddedAgent") -> None:
        self.agent = agent

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; errors become Nomad's plain texts."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, send)
        except HttpError as error:
            answer = text_answer(error.status, error.text)
        except Refused as refused:
            answer = text_answer(refused.status, refused.text)
        except asyncio.CancelledError:
            raise
        except Exception:  # as Nomad: 500 for the one who asked, the rest in the log
            log.exception("%s %s", request.method, request.path)
            answer = text_answer(500, "internal error")
        if answer is not None:
            await answer.send(send)

    async def _answer(self, request: Request, send: Send) -> Answer | None:
        if request.path == "/serai/fault":
            return await self._fault(request)
        if delay := self.agent.faults.delay():
            await asyncio.sleep(delay)
        if failure := self.agent.faults.take_error():
            return text_answer(failure.status, failure.text)
        if (region := request.get("region")) and region != self.agent.settings.region:
            raise HttpError(500, "No path to region")
        token = self._token_state(request)
        if request.path == "/v1/event/stream":
            request.only("GET")
            await stream.serve(self.agent, request, send, allowed=token == "valid" and not self.agent.faults.is_narrow)
            return None
        if (refusal := self._refusal(request, token)) is not None:
            return refusal
        if request.path.startswith(STREAMED):
            return await api_client.logs(self.agent, request, send, request.path.removeprefix(STREAMED))
        return await self._dispatch(request)

    async def _dispatch(self, request: Request) -> Answer | None:
        if handler := EXACT.get(request.path):
            return await handler(self.agent, request, "")
        for prefix, handler in PREFIXES:
            if request.path.startswith(prefix):
                return await handler(self.agent, request, request.path.removeprefix(prefix))
        return Answer(404, b"", "")

    def _token_state(self, request: Request) -> str:
        """`valid`, `none`, or what is wrong with the token."""
        wanted = self.agent.settings.token
        if wanted is None:
            return "valid"
        given = request.header(b"x-nomad-token") or request.header(b"authorization").removeprefix("Bearer ").strip()
        if not given:
            return "none"
        if hmac.compare_digest(given.encode(), wanted.encode()):
            return "valid"
        return "unknown" if len(given) == 36 else "garbage"

    def _refusal(self, request: Request, token: str) -> Answer | None:
        """The answer to a token that may not (reference/nomad-verified.md, b), or to one narrowed by a fault."""
        if request.path in OPEN_PATHS:
            return None
        if request.path == "/v1/acl/token/self":
            if token == "none":
                return json_answer(api_reads.token_row("anonymous", "Anonymous Token"))
            if token == "garbage":
                return text_answer(500, "failed to parse signed token: compact JWS format must have three parts")
        if request.path == "/v1/namespaces" and token == "none":
            return json_answer([])
        if token != "valid":
            return text_answer(403, "Permission denied")
        faults = self.agent.faults
        if not faults.is_narrow or request.path == "/v1/acl/token/self":
            return None
        if faults.narrow_denies or request.path not in (
            "/v1/jobs",
            "/v1/allocations",
            "/v1/evaluations",
            "/v1/namespaces",
        ):
            return text_answer(403, "Permission denied")
        return json_answer([], **api_reads.index_headers(self.agent.region.state.index))

    async def _fault(self, request: Request) -> Answer:
        client = request.scope.get("client")
        if client is None or client[0] not in ("127.0.0.1", "::1"):
            raise HttpError(403, "only from this machine")
        if self._token_state(request) != "valid":
            raise HttpError(403, "Permission denied")
        if request.method == "GET":
            return json_answer(KINDS)
        request.only("GET", "POST", "PUT")
        args = await request.json()
        try:
            await self.agent.inject(str(args.pop("kind", "")), **args)
        except (ValueError, TypeError, KeyError) as error:
            raise HttpError(400, str(error)) from error
        return json_answer({})
