"""The API's description: what is checked in is what the code says, and the code answers as it says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import orjson
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, given, settings

from services.gateway.api import openapi_document
from tests.unit.gateway.world import World, a_world

GOLDEN = Path(__file__).parents[3] / "docs" / "openapi.json"

pytestmark = pytest.mark.fast


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One gateway for all made-up requests."""
    async with a_world(tmp_path_factory.mktemp("gateway")) as made:
        yield made


SCHEMA = schemathesis.openapi.from_dict(openapi_document())


def test_the_document_that_is_checked_in_is_the_codes() -> None:
    assert orjson.loads(GOLDEN.read_bytes()) == openapi_document(), (
        "run: python -m services openapi > docs/openapi.json"
    )


def test_it_is_valid_by_the_specifications_own_schema() -> None:
    openapi_spec_validator.validate(openapi_document())


def test_every_operation_says_what_it_is_and_what_it_needs() -> None:
    document = openapi_document()
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            assert operation["x-permission"], (method, path)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", [found.ok() for found in SCHEMA.get_all_operations()], ids=lambda one: one.label)
async def test_nothing_that_the_description_allows_breaks_the_gateway(world: World, operation: Any) -> None:
    """A few made-up requests for each operation: never a 500, and every error a problem."""
    for request in _requests(operation):
        async with asyncio.timeout(5), world.http.stream(**request) as answer:
            assert answer.status_code < 500, (request, await answer.aread())
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"


def _requests(operation: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    @settings(max_examples=6, database=None, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(operation.as_strategy())
    def collect(case: Any) -> None:
        made.append(_as_alice(case.as_transport_kwargs(base_url="http://gateway")))

    collect()
    return made


def _as_alice(given_request: dict[str, Any]) -> dict[str, Any]:
    request = {name: given_request[name] for name in ("method", "url", "params", "json") if given_request.get(name)}
    headers = {name: value for name, value in given_request["headers"].items() if name in ("Content-Type", "Prefer")}
    if given_request.get("data"):
        request["content"] = given_request["data"]
    return {**request, "headers": {**headers, "Authorization": "Bearer alice"}}
