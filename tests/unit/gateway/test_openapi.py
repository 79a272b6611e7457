"""The API's description: what is checked in is what the code says, and valid. See test_made_up_requests.py."""

import re
from pathlib import Path

import openapi_spec_validator
import orjson
import pytest

from services.gateway.api import openapi_document

GOLDEN = Path(__file__).parents[3] / "docs" / "openapi.json"

pytestmark = pytest.mark.fast


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


def test_generated_clients_get_a_plain_name_for_every_operation() -> None:
    operations = [operation for item in openapi_document()["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]

    assert len(set(names)) == len(names)
    assert {name for name in names if not re.fullmatch("[a-z]+(_[a-z]+)*", name)} == set()
