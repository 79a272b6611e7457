"""Lists and single reads over HTTP: blocking, paged, filtered; nodes with their drains; the agent about itself."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import filters, views
from . import nodes as node_actions
from .entities import Alloc, Job
from .filters import FilterError
from .jobspec import Row, duration
from .state import State
from .web import Answer, HttpError, Request, json_answer

if TYPE_CHECKING:
    from .server import EmbeddedAgent

UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
TokenOf = Callable[[Any], str]


def index_headers(index: int) -> dict[str, str]:
    """The headers of every read."""
    return {"X_Nomad_Index": str(index), "X_Nomad_KnownLeader": "true", "X_Nomad_LastContact": "0"}


class Page:
    """Filter, order and page of a list, from the query."""

    def __init__(self, request: Request) -> None:
        text = request.get("per_page")
        if text and not text.isdigit():
            raise HttpError(400, "Expect a number for `per_page` query string parameter")
        self.size = int(text or 0)
        self.next_token = request.get("next_token")
        self.reverse = request.flag("reverse")
        self.prefix = request.get("prefix")
        self.namespace = request.get("namespace") or "default"
        try:
            self.test = filters.parse(request.get("filter")) if request.get("filter") else None
        except FilterError as error:
            raise HttpError(400, str(error)) from error

    def shows(self, namespace: str) -> bool:
        """Whether rows of a namespace are in the list."""
        return self.namespace in ("*", namespace)

    def cut(
        self, items: Iterable[Any], token_of: TokenOf, order: Callable[[Any], Any], view: Callable[[Any], Any]
    ) -> tuple[list[Any], str]:
        """The page's items and the token of the next one ("" on the last page)."""
        ordered = sorted(items, key=order, reverse=self.reverse)
        if self.next_token:
            start = next((i for i, item in enumerate(ordered) if self._reached(token_of(item))), len(ordered))
            ordered = ordered[start:]
        found: list[Any] = []
        for item in ordered:
            if not self._passes(view(item)):
                continue
            if self.size and len(found) == self.size:
                return found, token_of(item)
            found.append(item)
        return found, ""

    def _reached(self, token: str) -> bool:
        one, two = _comparable(token), _comparable(self.next_token)
        return one <= two if self.reverse else one >= two

    def _passes(self, row: Any) -> bool:
        try:
            return self.test is None or self.test(row)
        except FilterError as error:
            raise HttpError(400, str(error)) from error


def _comparable(token: str) -> tuple[int, str]:
    """Tokens that begin with an index order by number."""
    number, _, rest = token.partition(".")
    return (int(number), rest) if number.isdigit() else (0, token)


def _listing(rows: list[Any], token: str, index: int) -> Answer:
    headers = index_headers(index)
    if token:
        headers["X_Nomad_NextToken"] = token
    return json_answer(rows, **headers)


async def jobs(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Jobs in order of namespace and id."""
    state = agent.region.state
    page = Page(request)
    await agent.block(request, lambda: _jobs_index(state))
    chosen = (j for (ns, job_id), j in state.jobs.items() if page.shows(ns) and job_id.startswith(page.prefix))
    found, token = page.cut(
        chosen, lambda j: f"{j.row['Namespace']}.{j.row['ID']}", lambda j: (j.row["Namespace"], j.row["ID"]), _job_view
    )
    stubs = [views.job_stub(state, job, meta=request.flag("meta")) for job in found]
    return _listing(stubs, token, _jobs_index(state))


def _jobs_index(state: State) -> int:
    """The jobs list changes with the jobs and with their summaries, which follow the allocations."""
    return max(state.table_index.get("jobs", 0), state.table_index.get("allocs", 0))


def _job_view(job: Job) -> Row:
    return job.row


async def job_statuses(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Status rows of all jobs (newest first), or of the jobs named in the body."""
    state = agent.region.state
    page = Page(request)
    wanted: set[tuple[str, str]] | None = None
    if request.method in ("POST", "PUT"):
        body = await request.json()
        wanted = {(j.get("namespace") or "default", j["id"]) for j in body.get("jobs") or []} or None
    await agent.block(request, lambda: _jobs_index(state))
    chosen = [j for k, j in state.jobs.items() if (k in wanted if wanted is not None else page.shows(k[0]))]
    page.reverse = not page.reverse
    found, token = page.cut(chosen, lambda j: str(j.row["ModifyIndex"]), lambda j: j.row["ModifyIndex"], _job_view)
    return _listing([views.job_status(state, job) for job in found], token, _jobs_index(state))


def _created_token(row: Row) -> str:
    return f"{row['CreateIndex']}.{row['ID']}"


def _created_order(row: Row) -> tuple[int, str]:
    return (row["CreateIndex"], row["ID"])


async def allocations(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Allocations, oldest first."""
    request.only("GET")
    state = agent.region.state
    page = Page(request)
    await agent.block(request, lambda: state.table_index.get("allocs", 0))
    chosen = (
        a for a in state.allocs.values() if page.shows(a.row["Namespace"]) and a.row["ID"].startswith(page.prefix)
    )

    def view(alloc: Alloc) -> Any:
        return views.filter_view(state, alloc) if page.test else None

    found, token = page.cut(chosen, lambda a: _created_token(a.row), lambda a: _created_order(a.row), view)
    shown = {"task_states": request.flag("task_states", True), "resources": request.flag("resources")}
    return _listing([views.alloc_stub(state, a, **shown) for a in found], token, state.table_index.get("allocs", 0))


async def evaluations(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Evaluations, oldest first; `job` and `status` narrow."""
    request.only("GET")
    state = agent.region.state
    page = Page(request)
    job_id, status = request.get("job"), request.get("status")
    await agent.block(request, lambda: state.table_index.get("evals", 0))
    chosen = (
        e for e in state.evals.values()
        if page.shows(e["Namespace"]) and (not job_id or e["JobID"] == job_id) and (not status or e["Status"] == status)
    )  # fmt: skip
    found, token = page.cut(chosen, _created_token, _created_order, lambda e: e)
    return _listing(found, token, state.table_index.get("evals", 0))


async def deployments(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Deployments, oldest first."""
    request.only("GET")
    state = agent.region.state
    page = Page(request)
    await agent.block(request, lambda: state.table_index.get("deployment", 0))
    chosen = (d for d in state.deployments.values() if page.shows(d["Namespace"]))
    found, token = page.cut(chosen, _created_token, _created_order, lambda d: d)
    return _listing(found, token, state.table_index.get("deployment", 0))


async def nodes(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Nodes."""
    request.only("GET")
    state = agent.region.state
    page = Page(request)
    await agent.block(request, lambda: state.table_index.get("nodes", 0))
    chosen = (n.row for n in state.nodes.values() if n.row["ID"].startswith(page.prefix))
    found, token = page.cut(chosen, lambda n: str(n["ID"]), lambda n: n["ID"], lambda n: n)
    stubs = [views.node_stub(n, resources=request.flag("resources"), with_os=request.flag("os")) for n in found]
    return _listing(stubs, token, state.table_index.get("nodes", 0))


def checked_id(text: str, what: str) -> str:
    """A whole UUID, refused in Nomad's words."""
    if not UUID.fullmatch(text):
        raise HttpError(500, f"{what} lookup failed: index error: UUID must be 36 characters")
    return text


async def allocation(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """One allocation with its job."""
    request.only("GET")
    state = agent.region.state
    alloc_id = checked_id(rest, "alloc")
    await agent.block(request, lambda: state.allocs[alloc_id].row["ModifyIndex"] if alloc_id in state.allocs else 0)
    alloc = state.allocs.get(alloc_id)
    if alloc is None:
        raise HttpError(404, "alloc not found")
    return json_answer(views.full_alloc(state, alloc), **index_headers(alloc.row["ModifyIndex"]))


async def evaluation(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """One evaluation, or its allocations."""
    request.only("GET")
    state = agent.region.state
    eval_id = checked_id(rest.removesuffix("/allocations"), "eval")
    if rest.endswith("/allocations"):
        found = [a for a in state.allocs.values() if a.row["EvalID"] == eval_id]
        stubs = [views.alloc_stub(state, a, task_states=True, resources=False) for a in found]
        return json_answer(stubs, **index_headers(state.table_index.get("allocs", 0)))
    await agent.block(request, lambda: state.evals.get(eval_id, {}).get("ModifyIndex", 0))
    row = state.evals.get(eval_id)
    if row is None:
        raise HttpError(404, "eval not found")
    return json_answer(row, **index_headers(row["ModifyIndex"]))


async def deployment(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """One deployment."""
    request.only("GET")
    row = agent.region.state.deployments.get(rest)
    if row is None:
        raise HttpError(404, "deployment not found")
    return json_answer(row, **index_headers(row["ModifyIndex"]))


async def node(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """One node, its allocations, its drain, its eligibility."""
    node_id, _, action = rest.partition("/")
    state = agent.region.state
    checked_id(node_id, "node")
    if node_id not in state.nodes:
        raise HttpError(404, "node not found")
    if action == "drain":
        return await _drain(agent, request, node_id)
    if action == "eligibility":
        return await _eligibility(agent, request, node_id)
    request.only("GET")
    if action == "allocations":
        rows = [views.full_alloc(state, state.allocs[i]) for i in state.nodes[node_id].allocs]
        return json_answer(rows, **index_headers(state.table_index.get("allocs", 0)))
    if action:
        return Answer(404, b"", "")
    await agent.block(request, lambda: state.nodes[node_id].row["ModifyIndex"])
    row = state.nodes[node_id].row
    return json_answer(row, **index_headers(row["ModifyIndex"]))


async def _drain(agent: "EmbeddedAgent", request: Request, node_id: str) -> Answer:
    request.only("POST", "PUT")
    body = await request.json()
    spec = body.get("DrainSpec")
    deadline = duration(spec.get("Deadline")) if spec else None
    answer = node_actions.drain(agent.region, node_id, deadline, bool(body.get("MarkEligible")), agent.now())
    await agent.durable()
    return json_answer(answer, X_Nomad_Index=str(answer["Index"]))


async def _eligibility(agent: "EmbeddedAgent", request: Request, node_id: str) -> Answer:
    request.only("POST", "PUT")
    wanted = (await request.json()).get("Eligibility")
    if wanted not in ("eligible", "ineligible"):
        raise HttpError(500, f'invalid scheduling eligibility "{wanted}"')
    answer = node_actions.set_eligibility(agent.region, node_id, wanted, agent.now())
    await agent.durable()
    return json_answer(answer, X_Nomad_Index=str(answer["Index"]))


async def node_pools(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Node pools."""
    request.only("GET")
    rows = [
        {"CreateIndex": 1, "Description": "", "Meta": None, "ModifyIndex": 1, "Name": n}
        for n in sorted(agent.region.pools)
    ]
    return json_answer(rows, **index_headers(1))


async def regions(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The one region there is."""
    request.only("GET")
    return json_answer([agent.settings.region])


async def leader(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The leader: this agent."""
    request.only("GET")
    return json_answer(agent.address.removeprefix("http://"))


async def peers(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The servers: this agent."""
    request.only("GET")
    return json_answer([agent.address.removeprefix("http://")])


async def health(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Well."""
    request.only("GET")
    return json_answer({"client": {"message": "ok", "ok": True}, "server": {"message": "ok", "ok": True}})


async def jwks(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The public key of workload identities; open to everybody."""
    request.only("GET")
    return json_answer(agent.keyring.jwks(), Cache_Control="max-age=3600")


async def agent_self(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The agent's configuration, as far as anybody reads it."""
    request.only("GET")
    version = {
        "Revision": "",
        "Version": agent.settings.version,
        "VersionMetadata": "serai-embedded",
        "VersionPrerelease": "",
    }
    config = {
        "ACL": {"Enabled": agent.settings.token is not None}, "Datacenter": agent.settings.datacenter,
        "NodeName": agent.settings.first_node_name, "Region": agent.settings.region,
        "Server": {"Enabled": True, "EventBufferSize": agent.settings.event_buffer_size}, "Version": version,
    }  # fmt: skip
    member = {
        "Name": f"{agent.settings.name}.{agent.settings.region}",
        "Status": "alive",
        "Tags": {"build": agent.settings.version},
    }
    return json_answer({"config": config, "member": member, "stats": {"nomad": {"server": "true", "leader": "true"}}})


def token_row(accessor: str, name: str) -> Row:
    """An ACL token as its owner sees it."""
    return {
        "AccessorID": accessor, "CreateIndex": 0, "CreateTime": "0001-01-01T00:00:00Z", "ExpirationTTL": "",
        "ExpirationTime": None,
        "Global": False, "Hash": None, "ModifyIndex": 0, "Name": name, "Policies": None, "Roles": None,
        "SecretID": "", "Type": "client",
    }  # fmt: skip


async def token_self(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The caller's token."""
    request.only("GET")
    if agent.settings.token is None:
        return json_answer(token_row("acls-disabled", "ACLs disabled token"), **index_headers(0))
    row = {**token_row("00000000-0000-0000-0000-0000000000a1", "Embedded management token"), "Type": "management"}
    return json_answer(row, **index_headers(1))
