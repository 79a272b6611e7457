"""The AsyncAPI document is one that tools understand: no reference leads nowhere, and real messages fit it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from services import documents

pytestmark = pytest.mark.fast

EXAMPLES = sorted((Path(__file__).parents[2] / "contract_examples").glob("*.json"))
DOCUMENT: dict[str, Any] = yaml.load(documents.asyncapi(), yaml.CSafeLoader)
BY_TYPE = {message["name"]: name for name, message in DOCUMENT["components"]["messages"].items()}


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from references(inner)


def test_every_reference_leads_to_something() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_stored_message_is_what_its_payload_says(example: Path) -> None:
    stored = json.loads(example.read_text())
    where = f"#/components/messages/{BY_TYPE[stored['type']]}/payload"
    jsonschema.Draft7Validator({"components": DOCUMENT["components"], "$ref": where}).validate(stored["body"])
