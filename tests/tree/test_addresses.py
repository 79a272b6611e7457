"""Who opens connections, and on whose word: no address that a user gave is ever connected to (attack rows S).

There are no webhooks, no inputs by address and no artifacts: nothing that a user sends may name a place to go to, and
nothing that answers users opens connections by itself. Whoever adds something of the kind has to change this page, and
needs the guards of S1 to S5 first: addresses checked when connecting, no redirects, bounded answers.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.auth.suspending import NewSuspension
from services.gateway.api import openapi_document
from shared.contracts.policies import Policy

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]

LIBRARIES = {
    "httpx", "httpx2", "urllib3", "requests", "aiohttp", "aio_pika", "aiormq", "nomad", "consul", "psycopg", "ftplib",
    "smtplib", "websockets", "grpc", "urllib.request", "http.client", "opentelemetry.exporter",
}  # fmt: skip
CALLS = {"open_connection", "create_connection", "open_unix_connection"}
CONNECTING = {
    "shared/adapters/": "settings: sites, Consul, broker, database; where a known site is, Consul says",
    "shared/processes/": "settings: the other services, the collector of traces",
    "shared/runtime/questions.py": "nobody's: it takes a transport of somebody's",
    "shared/runtime/ways.py": "settings: the other services",
    "shared/runtime/in_process.py": "nobody's: it calls an app in the same process",
    "services/auth/issuer_http.py": "settings: trusted issuers, and what their own documents name on their own hosts",
    "services/auth/wiring.py": "settings: it makes the clients of issuer_http.py",
    "services/auth/checking.py": "an operator at a terminal: `issuers check URL`",
    "services/auth/operator_client.py": "an operator at a terminal: auth itself",
    "services/auth/dev_issuer.py": "this machine: a demo user's token",
    "services/embedded/": "this machine: the embedded platform and its sites",
    "services/local/": "this machine: parts started for a newcomer",
}
"""Modules that may open connections, and who says where to."""


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{each.name}" for each in node.names))


def connects(file: Path) -> bool:
    tree = ast.parse(file.read_text())
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & CALLS
    return bool(called) or any(
        name == library or name.startswith(f"{library}.") for name in imported(tree) for library in LIBRARIES
    )


@functools.cache
def modules() -> list[str]:
    found = [file for part in ("services", "shared") for file in (ROOT / part).rglob("*.py") if connects(file)]
    return sorted(str(file.relative_to(ROOT)) for file in found)


def test_s1_s2_only_these_open_connections_and_none_of_them_to_where_a_user_says() -> None:
    unknown = [name for name in modules() if not any(name.startswith(place) for place in CONNECTING)]
    assert unknown == []
    assert [place for place in CONNECTING if not any(name.startswith(place) for name in modules())] == []
    assert not [name for name in modules() if name.startswith(("services/gateway", "services/scheduler"))]


def test_s3_nobody_follows_redirects() -> None:
    following = re.compile(r"follow_redirects\s*=\s*True|(?<!_)redirect\s*=\s*True|max_redirects")
    found = [
        str(file.relative_to(ROOT)) for part in ("services", "shared") for file in (ROOT / part).rglob("*.py")
        if following.search(file.read_text())
    ]  # fmt: skip
    assert found == []


def fields(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object that a schema describes."""
    if isinstance(schema, dict):
        yield from (schema.get("properties") or {}).items()
        for each in schema.values():
            yield from fields(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from fields(each)


def sent() -> dict[str, Any]:
    """What users send, by name: bodies of the public API, and of those who administer trust."""
    schemas = openapi_document()["components"]["schemas"]
    bodies = {
        name: schemas[name]
        for name in schemas
        if name.endswith(("Input", "File", "Batch"))
    }  # fmt: skip
    return {**bodies, "NewSuspension": NewSuspension.model_json_schema(), "Policy": Policy.model_json_schema()}


PLACE = re.compile(r"ur[il]|href|callback|hook|address|host|link|source|remote|mirror|proxy", re.IGNORECASE)


def test_s1_s4_nothing_that_users_send_names_a_place_to_go_to() -> None:
    described = openapi_document()["paths"]
    named = {
        body["schema"]["$ref"].rpartition("/")[2]
        for path in described.values()
        for operation in path.values()
        for body in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert named and named <= sent().keys(), "a body of the API that this test does not look at"
    suspicious = [
        f"{model}.{name}" for model, schema in sent().items() for name, member in fields(schema)
        if name != "resources" and (PLACE.search(name) or str(member.get("format", "")).startswith("uri"))
    ]  # fmt: skip
    assert suspicious == []
