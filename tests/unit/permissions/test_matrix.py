"""A7: every route of every service, asked by everybody, answers as docs/permissions.md says.

The page is the specification: a route that is not on it fails, and so does a cell that is not true.
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute
from starlette.routing import Route

from services.auth.permissions import PLATFORM_VERBS, ROLE_VERBS, PlatformRole, Role, Verb
from tests.unit.gateway.world import OTHER_VO, VO, a_file
from tests.unit.permissions import matrix
from tests.unit.permissions.matrix import COLUMNS, Row
from tests.unit.permissions.world import SERVICE_TOKEN, Platform, a_platform

pytestmark = [pytest.mark.fast, pytest.mark.asyncio(loop_scope="module")]

CHANGING = ("PUT", "POST", "DELETE")
SUSPENSION = {"kind": "subject", "issuer": "https://issuer.example", "value": "mallory", "reason": "stolen laptop"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/jobs"): a_file(), ("POST", "/v1/jobs:batch"): {"jobs": [a_file()]},
    ("POST", "/v1/jobs:explain"): a_file(), ("PUT", "/v1/jobs/{job_id}"): a_file(),
    ("PUT", "/v1/vos/{vo}/policy"): {}, ("PUT", "/v1/secrets/{name}"): {"vo": VO, "value": "x"},
    ("POST", "/v1/suspensions"): SUSPENSION, ("POST", "/v1/jobs/{job_id}/progress"): {"fraction": 0.5},
    ("POST", "/v1/subscriptions"): {"vo": VO},
}  # fmt: skip
HEADERS = {("PUT", "/v1/vos/{vo}/policy"): {"If-Match": "*"}}
QUERIES = {
    ("GET", "/v1/can-i"): {"verb": "job.submit", "vo": VO}, ("GET", "/v1/jobs"): {"view": "vo", "vo": VO},
    ("GET", "/v1/secrets"): {"vo": VO}, ("DELETE", "/v1/secrets/{name}"): {"vo": VO},
}  # fmt: skip
NAMES = {
    "vo": VO, "site": "prague", "name": "result.txt", "code": "not_found", "id": "none",
    "subscription_id": "none",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with a_platform(tmp_path_factory.mktemp("platform")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def job(platform: Platform) -> str:
    """A job of the owner that has run, for those who read."""
    return await platform.a_job(placed=True)


async def test_a7_every_route_names_what_it_needs_and_is_on_the_page(platform: Platform) -> None:
    named = {
        (service, method, route.path, named_by(route))
        for service, app in platform.apps.items()
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in ("/healthz", "/readyz")
    }
    assert named == {(row.service, row.method, row.path, row.verb) for row in matrix.rows()}
    verbs = {*Verb, "open", "authenticated", "service", "job.cancel", "job.report"}
    assert {row.verb for row in matrix.rows()} <= verbs


def named_by(route: Route) -> str:
    extra = (route.openapi_extra or {}) if isinstance(route, APIRoute) else {"x-permission": "open"}
    return str(extra.get("x-permission", "NOTHING"))


@pytest.mark.parametrize("row", matrix.of_people(), ids=lambda row: f"{row.method} {row.path}")
async def test_a7_who_may_ask_what(platform: Platform, job: str, row: Row) -> None:
    assert len(row.cells) == len(COLUMNS)
    told = [await status_of(platform, job, row, who) for who in COLUMNS]
    assert dict(zip(COLUMNS, told, strict=True)) == dict(zip(COLUMNS, row.cells, strict=True))


async def status_of(platform: Platform, job: str, row: Row, who: str) -> str:
    """The status that somebody gets, and for a 404 of a job that the answer is that of one that is not there."""
    if row.method in CHANGING and "{job_id}" in row.path:
        job = str(uuid4()) if row.method == "PUT" else await platform.a_job()
    names = NAMES | {"name": {"/docs/{name}": "docs.css", "/v1/secrets/{name}": "key"}.get(row.path, "result.txt")}
    if row.path.startswith("/v1/secrets/") and row.method == "DELETE":
        names["name"] = "none"
    path = row.path.format(**names, job_id=job)
    more: dict[str, Any] = {}
    if (row.method, row.path) in BODIES:
        more["json"] = BODIES[row.method, row.path]
    if (row.method, row.path) in QUERIES:
        more["params"] = QUERIES[row.method, row.path]
    headers = platform.headers(who, job) | HEADERS.get((row.method, row.path), {})
    if row.path.endswith("/events"):
        return await first_status(platform, row, path, headers)
    answer = await platform.ask(row.service, row.method, path, headers, **more)
    if answer.status_code == 404 and "{job_id}" in row.path:
        other = await platform.ask(row.service, row.method, row.path.format(**NAMES, job_id=uuid4()), headers, **more)
        assert (other.status_code, other.content) == (404, answer.content)
    return str(answer.status_code)


async def first_status(platform: Platform, row: Row, path: str, headers: dict[str, str]) -> str:
    """Of a stream that does not end."""
    async with platform.clients[row.service].stream(row.method, path, headers=headers) as answer:
        return str(answer.status_code)


@pytest.mark.parametrize("row", matrix.of_services(), ids=lambda row: f"{row.service} {row.method} {row.path}")
async def test_a7_services_ask_each_other_and_nobody_else_does(platform: Platform, row: Row) -> None:
    path = row.path.format(**NAMES, job_id=uuid4())
    body = {"content": b"{}"} if row.method == "POST" else {}
    for headers in (
        {}, *(platform.headers(who) for who in COLUMNS[1:]), {"Authorization": SERVICE_TOKEN},
        {"Authorization": f"Bearer {SERVICE_TOKEN}x"}, {"Authorization": f"Basic {SERVICE_TOKEN}"},
        {"Authorization": "Bearer "},
    ):  # fmt: skip
        answer = await platform.ask(row.service, row.method, path, headers, **body)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    let_in = await platform.ask(row.service, row.method, path, {"Authorization": f"Bearer {SERVICE_TOKEN}"}, **body)
    assert let_in.status_code not in (401, 404, 405)
    assert row.cells == ("401", "401", "in")


def malformed(platform: Platform, row: Row) -> list[dict[str, Any]]:
    """Requests for a route that are wrong in their form: without what it needs, with what it does not know, or with
    nonsense in everything that it does."""
    [route] = [
        each for each in platform.apps[row.service].routes
        if isinstance(each, APIRoute) and each.path == row.path and row.method in each.methods
    ]  # fmt: skip
    known, named = route.dependant.query_params, route.dependant.header_params
    found: list[dict[str, Any]] = [
        {}, {"params": {"nonsense": "1"}}, {"params": {field.alias: "\x00-nonsense" for field in known}},
        {"headers": {field.alias: '"nonsense' for field in named}},
        {"headers": {"Prefer": "wait=nonsense", "Idempotency-Key": "a b", "Last-Event-ID": "nonsense"}},
    ]  # fmt: skip
    if row.method in ("PUT", "POST"):
        json, text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
        found += [{"content": b"{", "headers": json}, {"content": b"[1]", "headers": json}, {"content": b"{}"},
                  {"content": b"\xff", "headers": text}, {"content": b"x" * 200_000, "headers": json}]  # fmt: skip
    return found


@pytest.mark.parametrize(
    "row",
    [row for row in matrix.rows() if row.verb != "open"],
    ids=lambda row: f"{row.service} {row.method} {row.path}",
)
async def test_a7_whatever_is_wrong_with_a_request_is_told_only_to_who_may_ask(platform: Platform, row: Row) -> None:
    """401 comes before everything else, however the request looks; and it looks the same."""
    path = row.path.format(**NAMES, job_id="no-id")
    told = set()
    for wrong in malformed(platform, row):
        wrong = dict(wrong)
        answer = await platform.ask(row.service, row.method, path, wrong.pop("headers", {}), **wrong)
        told.add((answer.status_code, answer.content, answer.headers.get("www-authenticate")))
    [(status, body, challenge)] = told
    assert (status, challenge) == (401, "Bearer")
    assert b"unauthenticated" in body


async def test_the_page_has_the_table_of_verbs() -> None:
    told = matrix.verb_table()
    assert told == {
        str(verb): {str(role): verb in ROLE_VERBS[role] for role in Role}
        | {str(role): verb in PLATFORM_VERBS[role] for role in PlatformRole}
        for verb in Verb
    }


# -- A2: lists of ids ---------------------------------------------------------------------------------------------


async def test_a2_no_route_takes_a_list_of_jobs(platform: Platform) -> None:
    """What takes none cannot be fooled by one that is mixed. A route that comes must refuse a mixed list as a whole."""
    description = (await platform.ask("gateway", "GET", "/openapi.json", {})).json()
    taking = [
        (path, method, parameter["name"])
        for path, item in description["paths"].items()
        for method, operation in item.items()
        for parameter in operation.get("parameters", ())
        if "array" in str(parameter["schema"]) and ("id" in parameter["name"].split("_") or "job" in parameter["name"])
    ]
    assert taking == []


@pytest.mark.parametrize("between", [",", ";", "%2C", "+", "&", "%20"])
async def test_a2_ids_in_one_path_are_no_id(platform: Platform, job: str, between: str) -> None:
    hidden = await platform.a_job()
    for method in ("GET", "DELETE"):
        path = f"/v1/jobs/{job}{between}{hidden}"
        for who in ("owner", "member", "admin"):
            assert (await platform.ask("gateway", method, path, platform.headers(who))).status_code == 404
    assert (await platform.gateway.job(job, platform.headers("owner")["Authorization"][7:]))[
        "cancel_requested_at"
    ] is None


async def test_a2_a_mixed_list_of_vos_is_refused_as_a_whole(platform: Platform) -> None:
    mixed = {"vo": [VO, OTHER_VO]}
    answer = await platform.ask("gateway", "GET", "/v1/events", platform.headers("manager"), params=mixed)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


# -- what is hidden -----------------------------------------------------------------------------------------------


async def test_a1_hidden_and_absent_look_the_same_in_every_header(platform: Platform, job: str) -> None:
    """Status and body are compared for every cell of the page; here everything else that is sent."""
    for method, rest in (("GET", ""), ("GET", "/timeline"), ("GET", "/logs"), ("GET", "/trace"), ("DELETE", "")):
        hidden, absent = [
            await platform.ask("gateway", method, f"/v1/jobs/{id}{rest}", platform.headers("member"))
            for id in (job, uuid4())
        ]
        told = [
            {name: value for name, value in answer.headers.items() if name not in ("ratelimit",)}
            for answer in (hidden, absent)
        ]
        assert told[0] == told[1]
