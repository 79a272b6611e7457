"""The gateway answers as its description says. Not in the fast set: making up the requests takes a while."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, given, settings

from services.gateway.api import openapi_document
from tests.unit.gateway.world import World, a_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One gateway for all made-up requests."""
    async with a_world(tmp_path_factory.mktemp("gateway")) as made:
        yield made


SCHEMA = schemathesis.openapi.from_dict(openapi_document())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", [found.ok() for found in SCHEMA.get_all_operations()], ids=lambda one: one.label)
async def test_nothing_that_the_description_allows_breaks_the_gateway(world: World, operation: Any) -> None:
    """A few made-up requests for each operation: never a 500, and every error a problem."""
    for request in _requests(operation):
        async with asyncio.timeout(20), world.http.stream(**request) as answer:
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
