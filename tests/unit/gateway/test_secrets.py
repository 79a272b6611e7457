"""Secrets at the gateway: they pass to auth and are never told back, whatever is wrong with them."""

import base64
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

from shared.contracts.questions import SecretDelete, SecretList, SecretsTold, SecretTold, SecretWrite
from shared.errors import NotFound, Refused
from tests.builders import NOON, VO
from tests.doubles.answering import add
from tests.unit.gateway.world import World, a_file

pytestmark = pytest.mark.fast
CANARY = "canary-0b77de"
ALICE = {"Authorization": "Bearer alice"}


class Kept:
    """Auth's side of secrets, joined to the double that the world has."""

    def __init__(self, app: Starlette) -> None:
        self.written: list[SecretWrite] = []
        self.deleted: list[SecretDelete] = []
        add(
            app, ("PUT", "/internal/secrets", self.put), ("POST", "/internal/secrets:list", self.list),
            ("POST", "/internal/secrets:delete", self.delete),
        )  # fmt: skip

    async def put(self, request: Request) -> SecretTold:
        asked = SecretWrite.model_validate_json(await request.body())
        self.written.append(asked)
        if asked.name == "full":
            raise Refused("you have 100 secrets", code="too_many_secrets")
        return SecretTold(vo=asked.vo, name=asked.name, created_at=NOON, updated_at=NOON)

    async def list(self, request: Request) -> SecretsTold:
        SecretList.model_validate_json(await request.body())
        return SecretsTold(secrets=(SecretTold(vo=VO, name="key", created_at=NOON, updated_at=NOON),))

    async def delete(self, request: Request) -> JSONResponse:
        asked = SecretDelete.model_validate_json(await request.body())
        if asked.name == "nothing":
            raise NotFound("you have no such secret", code="not_found")
        self.deleted.append(asked)
        return JSONResponse({})


@pytest.fixture
def kept(world: World) -> Kept:
    return Kept(world.auth.app)


@pytest.mark.parametrize(("body", "value"), [
    ({"value": CANARY}, CANARY.encode()),
    ({"value": "\u00e9\n\u0000", "encoding": "text"}, "\u00e9\n\x00".encode()),
    ({"value": "AP8=", "encoding": "base64"}, b"\x00\xff"),
])  # fmt: skip
async def test_a_value_goes_to_auth_with_the_callers_token(
    world: World, kept: Kept, body: dict[str, Any], value: bytes
) -> None:
    answer = await world.http.put("/v1/secrets/key", json={"vo": VO, **body}, headers=ALICE)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert sorted(answer.json()) == ["created_at", "name", "updated_at", "used_at", "vo"]
    (asked,) = kept.written
    assert (asked.token, asked.vo, asked.name, base64.b64decode(asked.value)) == ("alice", VO, "key", value)


WRONG: list[Any] = [
    {}, {"vo": VO}, {"value": CANARY}, {"vo": VO, "value": [CANARY]}, {"vo": VO, "value": {CANARY: 1}},
    {"vo": VO, "value": CANARY, "encoding": "base64"}, {"vo": VO, "value": CANARY, "encoding": CANARY},
    {"vo": [CANARY], "value": CANARY}, {"vo": VO, "value": CANARY, "x": CANARY}, [CANARY], CANARY,
    {"vo": VO, "value": CANARY * 10_000},
]  # fmt: skip


async def test_a_bad_body_is_refused_without_repeating_the_value(world: World, kept: Kept) -> None:
    for body in WRONG:
        answer = await world.http.put("/v1/secrets/key", json=body, headers=ALICE)
        assert answer.status_code in (413, 422), (body, answer.text)
        assert CANARY not in answer.text, body
        assert kept.written == [], body


async def test_a_body_that_is_no_json_is_not_repeated_either(world: World, kept: Kept) -> None:
    headers = ALICE | {"Content-Type": "application/json"}
    answer = await world.http.put("/v1/secrets/key", content=f'{{"value": "{CANARY}', headers=headers)
    assert (answer.status_code, CANARY in answer.text, kept.written) == (400, False, [])


async def test_what_auth_refuses_is_told_as_it_says(world: World, kept: Kept) -> None:
    full = await world.http.put("/v1/secrets/full", json={"vo": VO, "value": CANARY}, headers=ALICE)
    assert (full.status_code, full.json()["code"]) == (422, "too_many_secrets")
    gone = await world.http.delete("/v1/secrets/nothing", params={"vo": VO}, headers=ALICE)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_names_are_listed_and_deleted(world: World, kept: Kept) -> None:
    listed = await world.http.get("/v1/secrets", headers=ALICE)
    assert [each["name"] for each in listed.json()["secrets"]] == ["key"]
    assert (await world.http.delete("/v1/secrets/key", params={"vo": VO}, headers=ALICE)).status_code == 204
    assert [(each.token, each.vo, each.name) for each in kept.deleted] == [("alice", VO, "key")]
    without = await world.http.delete("/v1/secrets/key", headers=ALICE)
    assert (without.status_code, without.json()["errors"][0]["pointer"]) == (422, "/vo")


async def test_no_route_reads_a_value(world: World, kept: Kept) -> None:
    assert (await world.http.get("/v1/secrets/key", headers=ALICE)).status_code == 405


NOT_NAMES: list[tuple[Any, str]] = [
    ([{"name": "a", "value": CANARY}], "/secrets/0/value"), ([{"file": "x"}], "/secrets/0/name"),
    ([{"name": "a", "file": "../x"}], "/secrets/0/file"),
    ([{"name": "a", "file": "nomad_serai.jwt"}], "/secrets/0/file"),
    ([{"name": "a", "file": "api.sock"}], "/secrets/0/file"), ([{"name": "nomad_token"}], "/secrets/0/file"),
    ([{"name": "a"}, {"name": "b", "file": "a"}], "/secrets/1/file"), ([{"name": "a"}] * 17, "/secrets"),
    ([{"name": "a/b"}], "/secrets/0/name"), ({"a": CANARY}, "/secrets"),
]  # fmt: skip


async def test_a_job_names_secrets_and_nothing_else(world: World) -> None:
    for secrets, pointer in NOT_NAMES:
        answer = await world.http.post("/v1/jobs", json=a_file(secrets=secrets), headers=ALICE)
        assert answer.status_code == 422, secrets
        assert pointer in [error["pointer"] for error in answer.json()["errors"]], secrets
        assert CANARY not in answer.text, secrets


async def test_a_job_shows_the_names_that_it_was_given(world: World) -> None:
    answer = await world.http.post("/v1/jobs", json=a_file(secrets=[{"name": "s3.key"}]), headers=ALICE)
    assert answer.json()["spec"]["secrets"] == [{"name": "s3.key", "file": "s3.key"}]
