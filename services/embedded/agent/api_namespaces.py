"""Namespaces: listed, and made by a site's operator while the agent runs; kept over restarts in a file of their own."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from . import views
from .api_reads import index_headers
from .web import Answer, HttpError, Request, json_answer

if TYPE_CHECKING:
    from .server import EmbeddedAgent

_NAME: Final = re.compile(r"^[a-zA-Z0-9-]{1,128}$")


async def namespaces(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """All of them."""
    request.only("GET")
    return json_answer([views.namespace_row(name) for name in sorted(agent.region.namespaces)], **index_headers(1))


async def namespace(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """One namespace; or make one. Streams that are open have the older ones only, as with Nomad."""
    if request.method != "GET":
        return await _make(agent, request, rest)
    if rest not in agent.region.namespaces:
        raise HttpError(404, "Namespace not found")
    return json_answer(views.namespace_row(rest), **index_headers(1))


async def _make(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    request.only("GET", "POST", "PUT")
    name = str((await request.json()).get("Name") or "")
    if rest and rest != name:
        raise HttpError(400, "Namespace name does not match request path")
    if not _NAME.match(name):
        raise HttpError(500, f'invalid name "{name}". Must match regex {_NAME.pattern}')
    keep(agent.settings.data_dir, agent.region.namespaces | {name})
    agent.region.namespaces.add(name)
    return Answer(200, b"", "", {"X-Nomad-Index": "1"})


def kept(folder: Path) -> set[str]:
    """The namespaces that were made here before."""
    file = folder / "namespaces.json"
    return set(orjson.loads(file.read_bytes())) if file.exists() else set()


def keep(folder: Path, names: Iterable[str]) -> None:
    """Write them down, whole or not at all."""
    new = folder / "namespaces.new"
    with new.open("wb") as file:
        file.write(orjson.dumps(sorted(names)))
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / "namespaces.json")
