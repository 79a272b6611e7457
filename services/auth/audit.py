"""The audit log as a chain: each record carries the hash of the one before it, so that none can be changed, left out
or put in between without every later hash telling. Pure; `audit_store.py` keeps it.

`hash = SHA-256(previous hash, newline, canonical JSON of the record)`. A record is checked from itself and its
forerunner alone, also in an export, far from the database.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from shared.contracts.commands import Principal

GENESIS: Final = "0" * 64
"""What the first record of all names as the hash before it."""
_TOLD: Final = (
    "position", "kind", "question", "at", "issuer", "subject", "verb", "vo", "allowed", "code", "items", "detail",
)  # fmt: skip

Kind = Literal["grant", "dispatch", "admin", "secret"]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """`items` decisions of one question with the same outcome; `question` is the first part of their grants' `jti`."""

    question: str
    at: datetime
    principal: Principal
    verb: str
    vo: str | None
    allowed: bool
    code: str
    items: int
    kind: Kind = "grant"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """A place in the chain: the position of a record and its hash."""

    position: int
    hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold, and how."""

    position: int
    what: str


def chained(record: Mapping[str, Any], before: End) -> dict[str, Any]:
    """The record with its position, the hash before it and its own."""
    placed = {**record, "position": before.position + 1}
    return {**placed, "previous": before.hash, "hash": hash_of(placed, before.hash)}


def hash_of(record: Mapping[str, Any], previous: str) -> str:
    """The hash that a record must have behind another."""
    told = orjson.dumps({name: record[name] for name in _TOLD}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(previous.encode() + b"\n" + told).hexdigest()


def verify(records: Iterable[Mapping[str, Any]], before: End) -> End | Break:
    """Where the chain ends when every record follows from the one before it, else where it first does not."""
    for record in records:
        position = before.position + 1
        try:
            if record["position"] != position:
                return Break(position, f"record {position} is missing: {record['position']} comes next")
            if record["previous"] != before.hash:
                return Break(position, f"record {position} does not follow the one before it")
            if record["hash"] != hash_of(record, before.hash):
                return Break(position, f"record {position} was changed after it was written")
        except (KeyError, TypeError) as error:
            return Break(position, f"record {position} is not one of this log: {error!r}")
        before = End(position, record["hash"])
    return before
