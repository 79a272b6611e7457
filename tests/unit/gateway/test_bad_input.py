"""Every wrong request gets a problem that says what, where and how to mend it, and leaves nothing behind."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from services.gateway import store
from shared.runtime.problems import PROBLEMS
from tests.builders import VO
from tests.unit.gateway.world import OTHER_VO, World, a_file, a_world

pytestmark = [pytest.mark.fast, pytest.mark.asyncio(loop_scope="module")]

FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("unknown field", {"comand": ["x"]}, "/comand"),
    ("unknown field below", {"resources": {"memry": 1}}, "/resources/memry"),
    ("a name that needs escaping", {"a/b~c": 1}, "/a~1b~0c"),
    ("command is a string", {"command": "ls -l"}, "/command"),
    ("command has numbers", {"command": ["sleep", 5]}, "/command/1"),
    ("no command and no image", {"command": []}, ""),
    ("command is null", {"command": None}, "/command"),
    ("name is missing", {"name": None}, "/name"),
    ("name is a number", {"name": 5}, "/name"),
    ("name is too long", {"name": "x" * 101}, "/name"),
    ("name ends in a line break", {"name": "x\n"}, "/name"),
    ("name begins with a dash", {"name": "-x"}, "/name"),
    ("vo with a slash", {"vo": "a/b"}, "/vo"),
    ("unknown kind", {"kind": "cron"}, "/kind"),
    ("image with a space", {"image": "alpine latest"}, "/image"),
    ("negative cpu", {"resources": {"cpu": -1}}, "/resources/cpu"),
    ("no cpu at all", {"resources": {"cpu": 0}}, "/resources/cpu"),
    ("absurd cpu", {"resources": {"cpu": 1e9}}, "/resources/cpu"),
    ("cpu is a truth value", {"resources": {"cpu": True}}, "/resources/cpu"),
    ("cpu as text", {"resources": {"cpu": "2"}}, "/resources/cpu"),
    ("negative memory", {"resources": {"memory": -512}}, "/resources/memory"),
    ("absurd memory", {"resources": {"memory": "9999TiB"}}, "/resources/memory"),
    ("memory too small", {"resources": {"memory": "1MiB"}}, "/resources/memory"),
    ("memory with a strange unit", {"resources": {"memory": "5 gigs"}}, "/resources/memory"),
    ("memory in bits", {"resources": {"memory": "5Gb"}}, "/resources/memory"),
    ("memory is a list", {"resources": {"memory": [1]}}, "/resources/memory"),
    ("memory is a truth value", {"resources": {"memory": True}}, "/resources/memory"),
    ("disk is empty text", {"resources": {"disk": ""}}, "/resources/disk"),
    ("too many gpus", {"resources": {"gpus": {"count": 65}}}, "/resources/gpus/count"),
    ("half a gpu", {"resources": {"gpus": {"count": 0.5}}}, "/resources/gpus/count"),
    ("gpus is a number", {"resources": {"gpus": 1}}, "/resources/gpus"),
    ("resources is a list", {"resources": []}, "/resources"),
    ("max_runtime in words", {"max_runtime": "two hours"}, "/max_runtime"),
    ("max_runtime in the wrong order", {"max_runtime": "30m1h"}, "/max_runtime"),
    ("max_runtime of nothing", {"max_runtime": 0}, "/max_runtime"),
    ("max_runtime of nothing in words", {"max_runtime": "0h"}, "/max_runtime"),
    ("max_wait beyond a year", {"max_wait": "366d"}, "/max_wait"),
    ("negative start_deadline", {"start_deadline": -1}, "/start_deadline"),
    ("priority of nothing", {"priority": 0}, "/priority"),
    ("half a priority", {"priority": 1.5}, "/priority"),
    ("priority too high", {"priority": 101}, "/priority"),
    ("unknown on_lost", {"on_lost": "ignore"}, "/on_lost"),
    ("too many retries", {"retries": {"attempts": 21}}, "/retries/attempts"),
    ("unknown failure", {"retries": {"on": ["bad_luck"]}}, "/retries/on/0"),
    ("country in small letters", {"placement": {"countries": {"allow": ["cz"]}}}, "/placement/countries/allow/0"),
    ("site with capitals", {"placement": {"sites": {"deny": ["Prague"]}}}, "/placement/sites/deny/0"),
    ("unknown wish", {"placement": {"sites": {"avoid": []}}}, "/placement/sites/avoid"),
    ("env name with a dash", {"env": {"A-B": "x"}}, "/env/A-B"),
    ("env name of ours", {"env": {"SERAI_JOB": "x"}}, "/env/SERAI_JOB"),
    ("env name of Nomad", {"env": {"NOMAD_ADDR": "x"}}, "/env/NOMAD_ADDR"),
    ("env value is a number", {"env": {"A": 1}}, "/env/A"),
    ("env value with NUL", {"env": {"A": "\0"}}, "/env/A"),
    ("file above the folder", {"files": [{"path": "../x", "content": ""}]}, "/files/0/path"),
    ("file at the root", {"files": [{"path": "/etc/x", "content": ""}]}, "/files/0/path"),
    ("file hidden above", {"files": [{"path": "a/../../x", "content": ""}]}, "/files/0/path"),
    ("file without content", {"files": [{"path": "x"}]}, "/files/0/content"),
    ("file too large", {"files": [{"path": "x", "content": "x" * 262_145}]}, "/files/0/content"),
    ("file twice", {"files": [{"path": "x", "content": ""}] * 2}, "/files/1/path"),
    ("output with a slash in its name", {"outputs": [{"name": "a/b", "path": "a"}]}, "/outputs/0/name"),
    ("output twice", {"outputs": [{"name": "a", "path": "a"}] * 2}, "/outputs/1/name"),
    ("too many labels", {"labels": {f"l{n}": "" for n in range(33)}}, "/labels"),
    ("label with a space", {"labels": {"a b": "x"}}, "/labels/a b"),
    ("label value too long", {"labels": {"a": "x" * 256}}, "/labels/a"),
    ("metadata value is an object", {"metadata": {"a": {}}}, "/metadata/a"),
    ("endpoints of a batch job", {"endpoints": [{"name": "web"}]}, "/endpoints"),
    ("endpoint twice", {"kind": "service", "endpoints": [{"name": "web"}] * 2}, "/endpoints/1/name"),
    ("port out of range", {"kind": "service", "endpoints": [{"name": "web", "port": 70_000}]}, "/endpoints/0/port"),
    ("unknown protocol", {"kind": "service", "endpoints": [{"name": "w", "protocol": "udp"}]}, "/endpoints/0/protocol"),
    ("health path without slash", {"kind": "service", "endpoints": [{"name": "w", "health_path": "x"}]},
     "/endpoints/0/health_path"),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One gateway for all of them: after each there is nothing left that the next could meet."""
    async with a_world(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left_behind(world: World) -> AsyncIterator[None]:
    world.auth.refuse = lambda index: False
    world.auth.grant_questions.clear()
    world.auth.context_questions = 0
    yield
    for table in (store.jobs, store.labels, store.idempotency, store.runtime.outbox):
        count = select(func.count()).select_from(table)
        rows = await world.store.read(lambda connection: connection.execute(count).scalar())  # noqa: B023
        assert rows == 0, f"{table.name} has rows"


@pytest.mark.parametrize(("fields", "pointer"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
async def test_a_wrong_job_file_is_refused_at_the_right_place(
    world: World, fields: dict[str, Any], pointer: str
) -> None:
    body = orjson.dumps(a_file(**fields))
    headers = world.as_("alice", **{"Content-Type": "application/json", "Idempotency-Key": "k"})
    for method, path in (("POST", "/v1/jobs"), ("PUT", f"/v1/jobs/{uuid4()}"), ("POST", "/v1/jobs:explain")):
        answer = await world.http.request(method, path, content=body, headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["type"]) == ("invalid_request", "/problems/invalid_request")
        assert pointer in [error["pointer"] for error in problem["errors"]], problem
        assert all(error["detail"] for error in problem["errors"])


async def test_all_faults_are_told_at_once_with_the_nearest_names(world: World) -> None:
    wrong = {"nam": "x", "vo": VO, "cpus": 2, "command": "x", "resources": {"mem": 1}, "endpoints": [{"name": "w"}]}
    answer = await world.http.post("/v1/jobs", json=wrong, headers=world.as_("alice"))

    told = {error["pointer"]: error.get("hint", error["detail"]) for error in answer.json()["errors"]}
    assert told["/name"] == "the field 'name' is required"
    assert told["/nam"] == "did you mean 'name'?"
    assert told["/resources/mem"] == "did you mean 'memory'?"
    assert "sh" in told["/command"] and "/endpoints" in told and "/cpus" in told


JSON_HEADERS = {"Content-Type": "application/json"}
BODIES: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("no body", b"", JSON_HEADERS, 400, "undecodable"),
    ("not JSON", b"{name: x}", JSON_HEADERS, 400, "undecodable"),
    ("half of it", b'{"name": ', JSON_HEADERS, 400, "undecodable"),
    ("not UTF-8", b'{"name": "\xff"}', JSON_HEADERS, 400, "undecodable"),
    ("not a number of JSON", b'{"priority": NaN}', JSON_HEADERS, 400, "undecodable"),
    ("nested too deeply", b"[" * 2000 + b"]" * 2000, JSON_HEADERS, 400, "undecodable"),
    ("a list", b"[]", JSON_HEADERS, 422, "invalid_request"),
    ("a word", b'"x"', JSON_HEADERS, 422, "invalid_request"),
    ("null", b"null", JSON_HEADERS, 422, "invalid_request"),
    ("YAML", b"name: x", {"Content-Type": "application/yaml"}, 415, "unsupported_media_type"),
    ("no content type", b"{}", {}, 415, "unsupported_media_type"),
    ("another charset", b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
    ("compressed", b"{}", {**JSON_HEADERS, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    ("an empty key", b"{}", {**JSON_HEADERS, "Idempotency-Key": ""}, 422, "invalid_request"),
    ("a key that is too long", b"{}", {**JSON_HEADERS, "Idempotency-Key": "k" * 256}, 422, "invalid_request"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
async def test_a_body_that_cannot_be_read_is_refused(
    world: World, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    for path in ("/v1/jobs", "/v1/jobs:batch"):
        answer = await world.http.post(path, content=body, headers=world.as_("alice", **headers))
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_huge_body_is_refused_before_it_is_read(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b" " * 65_536

    headers = world.as_("alice", **JSON_HEADERS)
    declared = {**headers, "Content-Length": str(2**31)}
    told = await world.http.post("/v1/jobs", content=b"{}", headers=declared)
    streamed = await world.http.post("/v1/jobs", content=endless(), headers=headers)

    for answer in (told, streamed):
        assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "too_large", 1_048_576)


TOKENS: list[tuple[str, dict[str, str], str]] = [
    ("none", {}, "unauthenticated"),
    ("empty", {"Authorization": "Bearer "}, "unauthenticated"),
    ("another scheme", {"Authorization": "Basic YTpi"}, "unauthenticated"),
    ("foreign", {"Authorization": "Bearer foreign"}, "unauthenticated"),
    ("expired", {"Authorization": "Bearer expired"}, "token_expired"),
]
GUARDED = [
    ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("POST", "/v1/jobs:batch"), ("POST", "/v1/jobs:explain"),
    ("GET", "/v1/jobs/{id}"), ("PUT", "/v1/jobs/{id}"), ("DELETE", "/v1/jobs/{id}"), ("GET", "/v1/jobs/{id}/timeline"),
    ("GET", "/v1/jobs/{id}/spec"), ("GET", "/v1/jobs/{id}/explain"), ("GET", "/v1/jobs/{id}/trace"),
    ("GET", "/v1/jobs/{id}/logs"), ("GET", "/v1/jobs/{id}/outputs"), ("GET", "/v1/jobs/{id}/outputs/x"),
    ("GET", "/v1/jobs/{id}/events"), ("GET", "/v1/events"), ("GET", "/v1/sites"), ("GET", "/v1/whoami"),
    ("POST", "/v1/sites/prague:cordon"), ("POST", "/v1/sites/prague:uncordon"),
    ("GET", "/v1/secrets"), ("PUT", "/v1/secrets/key"), ("DELETE", "/v1/secrets/key?vo=vo.x"),
    ("POST", "/v1/subscriptions"), ("GET", "/v1/subscriptions"), ("GET", "/v1/subscriptions/one"),
    ("POST", "/v1/subscriptions/one:renew"), ("DELETE", "/v1/subscriptions/one"),
    ("POST", "/v1/jobs/{id}/progress"),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "code"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS])
async def test_nothing_is_answered_without_a_good_token(world: World, headers: dict[str, str], code: str) -> None:
    for method, path in GUARDED:
        answer = await world.http.request(method, path.replace("{id}", str(uuid4())), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code), (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert world.auth.context_questions <= 1


async def test_every_route_that_is_not_open_is_in_that_list(world: World) -> None:
    description = (await world.http.get("/openapi.json")).json()
    guarded = {
        (method.upper(), path)
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if operation["x-permission"] != "open"
    }
    listed = {
        (
            method,
            path.replace("{id}", "{job_id}")
            .replace("outputs/x", "outputs/{name}")
            .replace("prague", "{site}")
            .replace("secrets/key", "secrets/{name}")
            .partition("?")[0]
            .replace("subscriptions/one", "subscriptions/{subscription_id}"),
        )
        for method, path in GUARDED
    }
    assert guarded == listed


async def test_a_vo_that_the_user_is_not_in_is_forbidden_and_those_he_is_in_are_named(world: World) -> None:
    for method, path in (("POST", "/v1/jobs"), ("PUT", f"/v1/jobs/{uuid4()}"), ("POST", "/v1/jobs:explain")):
        answer = await world.http.request(method, path, json=a_file(vo=OTHER_VO), headers=world.as_("alice"))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert VO in answer.json()["detail"]
    assert world.auth.grant_questions == []


async def test_what_auth_refuses_leaves_nothing_behind(world: World) -> None:
    world.auth.refuse = lambda index: True
    answer = await world.http.post("/v1/jobs", json=a_file(), headers=world.as_("alice", **{"Idempotency-Key": "k"}))
    assert (answer.status_code, answer.json()["detail"]) == (403, "your role may not do this")


PARAMETERS: list[tuple[str, str, int, str]] = [
    ("/v1/jobs?stat=queued", "state", 400, "unknown_parameter"),
    ("/v1/jobs?offset=3", "known here", 400, "unknown_parameter"),
    ("/v1/jobs?state=done", "queued", 422, "invalid_request"),
    ("/v1/jobs?limit=0", "limit", 422, "invalid_request"),
    ("/v1/jobs?limit=many", "limit", 422, "invalid_request"),
    ("/v1/jobs?label=run", "key:value", 422, "invalid_request"),
    ("/v1/jobs?view=all", "view", 422, "invalid_request"),
    ("/v1/jobs?created_after=yesterday", "created_after", 422, "invalid_request"),
    ("/v1/jobs?created_after=2026-11-24T12:00:00", "time zone", 422, "invalid_request"),
    ("/v1/jobs?cursor=elsewhere", "start again", 400, "invalid_cursor"),
    ("/v1/events?job=x", "known here", 400, "unknown_parameter"),
    ("/v1/events?after=here", "id:", 400, "invalid_cursor"),
    ("/v1/whoami?verbose=1", "none is known", 400, "unknown_parameter"),
    ("/v1/nothing", "no such thing", 404, "not_found"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "words", "status", "code"), PARAMETERS, ids=[row[0] for row in PARAMETERS])
async def test_wrong_parameters_are_told(world: World, path: str, words: str, status: int, code: str) -> None:
    answer = await world.http.get(path, headers=world.as_("alice"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]


async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(world: World) -> None:
    answer = await world.http.patch("/v1/jobs", headers=world.as_("alice"))
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_every_problem_has_a_page(world: World) -> None:
    for code, problem in PROBLEMS.items():
        page = await world.http.get(f"/problems/{code}")
        assert page.status_code == 200
        assert problem.title in page.text.replace("&#x27;", "'")
    assert (await world.http.get("/problems/<script>")).status_code == 404
