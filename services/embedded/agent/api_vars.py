"""Variables over HTTP: write with check-and-set, read, list, delete. As Nomad does it, sizes and texts included."""

from typing import TYPE_CHECKING, Any

import orjson

from . import api_reads
from .jobspec import Row
from .web import Answer, HttpError, Request, json_answer

if TYPE_CHECKING:
    from .server import EmbeddedAgent

MOST_BYTES = 65_536
"""Of keys and values together."""
_RPC = "RPC Error:: 400,"


async def variables(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer | None:
    """List (`prefix`, `namespace`, `*` for all), without items."""
    request.only("GET")
    namespace, prefix = request.get("namespace") or "default", request.get("prefix")
    state = agent.region.state
    rows = [
        _without_items(row) for (where, path), row in sorted(state.variables.items())
        if namespace in ("*", where) and path.startswith(prefix)
    ]  # fmt: skip
    return json_answer(rows, **api_reads.index_headers(state.index))


async def variable(agent: "EmbeddedAgent", request: Request, path: str) -> Answer | None:
    """One variable by its path."""
    key = (request.get("namespace") or "default", path)
    if request.method == "GET":
        return _read(agent, key)
    if request.method == "DELETE":
        return await _delete(agent, request, key)
    request.only("GET", "DELETE", "PUT", "POST")
    return await _write(agent, request, key)


def _read(agent: "EmbeddedAgent", key: tuple[str, str]) -> Answer:
    row = agent.region.state.variables.get(key)
    if row is None:
        raise HttpError(404, "variable not found")
    return json_answer(_opened(agent, row), **api_reads.index_headers(row["ModifyIndex"]))


async def _write(agent: "EmbeddedAgent", request: Request, key: tuple[str, str]) -> Answer:
    items = _items(await request.json())
    _check(key[1], items)
    state, cas = agent.region.state, _cas(request)
    row = state.variables.get(key)
    if cas is not None and cas != (row["ModifyIndex"] if row else 0):
        return _conflict(agent, key, row)
    txn = state.begin("VarApplyStateRequestType", agent.now())
    written = txn.put_variable(key, {"Data": agent.keyring.seal(key[1], items)})
    txn.commit()
    await agent.durable()
    return json_answer(_opened(agent, written), X_Nomad_Index=str(written["ModifyIndex"]))


async def _delete(agent: "EmbeddedAgent", request: Request, key: tuple[str, str]) -> Answer:
    """204 also where there is none: it is gone either way."""
    state, cas = agent.region.state, _cas(request)
    row = state.variables.get(key)
    if cas is not None and cas != (row["ModifyIndex"] if row else 0):
        return _conflict(agent, key, row)
    if row is not None:
        txn = state.begin("VarApplyStateRequestType", agent.now())
        txn.drop_variable(key)
        txn.commit()
        await agent.durable()
    return Answer(204, b"", "", {"X-Nomad-Index": str(state.index)})


def _conflict(agent: "EmbeddedAgent", key: tuple[str, str], row: Row | None) -> Answer:
    """409 with what is there; an empty one of that path where nothing is."""
    nothing = {
        "Namespace": key[0], "Path": key[1], "CreateIndex": 0, "ModifyIndex": 0, "CreateTime": 0, "ModifyTime": 0,
        "Items": None,
    }  # fmt: skip
    told = nothing if row is None else _opened(agent, row)
    return Answer(409, orjson.dumps(told), "text/plain; charset=utf-8", {"X-Nomad-Index": str(told["ModifyIndex"])})


def _cas(request: Request) -> int | None:
    text = request.get("cas")
    if not text:
        return None
    if not text.isdigit():
        raise HttpError(400, f'can not parse cas: strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _items(body: dict[str, Any]) -> dict[str, str]:
    items = body.get("Items")
    if not items:
        raise HttpError(400, "variable missing required Items object")
    if not isinstance(items, dict) or not all(isinstance(value, str) for value in items.values()):
        kind = "json: cannot unmarshal object into Go struct field VariableDecrypted.Items of type string"
        raise HttpError(400, kind)
    return items


def _check(path: str, items: dict[str, str]) -> None:
    top, _, below = path.partition("/")
    if top == "nomad" and below.split("/")[0] not in ("jobs", "job-templates"):
        allowed = 'only paths at "nomad/jobs" or "nomad/job-templates" and below are valid paths'
        raise HttpError(400, f'{_RPC}{allowed} under the top-level "nomad" directory')
    if sum(len(key.encode()) + len(value.encode()) for key, value in items.items()) > MOST_BYTES:
        raise HttpError(400, f"{_RPC}variables are limited to 64KiB in total size")


def _without_items(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "Data"}


def _opened(agent: "EmbeddedAgent", row: Row) -> Row:
    return {**_without_items(row), "Items": agent.keyring.open(row["Path"], row["Data"])}
