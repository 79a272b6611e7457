"""Bytes to message and back. Old versions are upgraded here, step by step, before anyone sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import ValidationError

from shared import ids
from shared.contracts import commands, events, routes
from shared.contracts.commands import Command
from shared.contracts.envelope import Envelope, Message
from shared.contracts.events import AttemptEvent, Event, JobEvent, SiteEvent
from shared.errors import Refused

TYPE_PREFIX: Final = "eu.serai."
COMMAND_CONTENT_TYPE: Final = "application/json"
EVENT_CONTENT_TYPE: Final = "application/cloudevents+json"

Kind = type[Command] | type[Event]
_KINDS: Final[dict[str, Kind]] = {
    **{command.kind: command for command in commands.COMMANDS},
    **{event.kind: event for event in events.EVENTS},
}

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
UPGRADES: Final[dict[tuple[str, int], Upgrade]] = {}
"""(kind, version) -> how its data becomes that of version + 1. Empty as long as every contract is at version 1."""


class Undecodable(Refused):
    """The message cannot be understood, and never will be."""


@dataclass(frozen=True, slots=True)
class Decoded:
    envelope: Envelope
    content: Command | Event


def type_of(content: Kind | Command | Event) -> str:
    """The wire type, e.g. `eu.serai.job.submit.v1`."""
    return f"{TYPE_PREFIX}{content.kind}.v{content.version}"


# -- writing ------------------------------------------------------------------------------------------------------


def command_body(command: Command) -> bytes:
    """The bytes that are granted, sent and stored; nothing else of a command is ever signed."""
    return command.model_dump_json().encode()


def command_message(
    kind: type[Command], body: bytes, *, id: str, source: str, time: datetime, subject: str, grant: str,
    cause: str = "", traceparent: str = "",
) -> Message:  # fmt: skip
    """A command ready to send, around a body made by `command_body` and a grant over that body."""
    exchange, key = routes.command_route(kind)
    headers = {
        "ce-id": id, "ce-type": type_of(kind), "ce-source": source, "ce-time": time.isoformat(),
        "ce-subject": subject, "ce-cause": cause, "traceparent": traceparent, "x-grant": grant,
    }  # fmt: skip
    return Message(id, type_of(kind), exchange, key, body, COMMAND_CONTENT_TYPE, headers)


def event_id(event: Event) -> UUID:
    """The same fact always has the same id (architecture, section 3)."""
    match event:
        case JobEvent():
            return ids.fact_id(event.job_id, 0, event.sequence)
        case AttemptEvent():
            return ids.fact_id(event.job_id, event.attempt, event.sequence)
        case SiteEvent():
            return ids.site_fact_id(event.site, event.what, f"{event.occurrence}/{event.vo or ''}")
    raise TypeError(f"no id rule for {type(event).__name__}")


def event_messages(event: Event, *, source: str, time: datetime, cause: str = "") -> tuple[Message, ...]:
    """The event as messages, one for each route; all share id and bytes."""
    id, subject = str(event_id(event)), _subject(event)
    traceparent = ids.traceparent(event.job_id) if isinstance(event, JobEvent | AttemptEvent) else ""
    attributes = {
        "specversion": "1.0", "id": id, "source": source, "type": type_of(event), "subject": subject,
        "time": time.isoformat(), "datacontenttype": "application/json", **_extensions(event),
    }  # fmt: skip
    if cause:
        attributes["cause"] = cause
    if traceparent:
        attributes["traceparent"] = traceparent
    body = orjson.dumps({**attributes, "data": orjson.Fragment(event.model_dump_json())})
    headers = {"ce-id": id, "ce-type": type_of(event), "ce-source": source, "ce-subject": subject}
    if traceparent:
        headers["traceparent"] = traceparent
    return tuple(
        Message(id, type_of(event), exchange, key, body, EVENT_CONTENT_TYPE, headers)
        for exchange, key in routes.event_routes(event)
    )


def _subject(event: Event) -> str:
    return str(event.job_id) if isinstance(event, JobEvent | AttemptEvent) else event.site  # type: ignore[attr-defined]


def _extensions(event: Event) -> dict[str, str]:
    match event:
        case JobEvent():
            return {"sequence": f"{event.sequence:010d}", "vo": event.vo, "attempt": str(event.attempt)}
        case AttemptEvent():
            return {"sequence": f"{event.sequence:010d}", "vo": event.vo, "attempt": str(event.attempt)}
    return {}


# -- reading ------------------------------------------------------------------------------------------------------


def decode(message: Message) -> Decoded:
    """Envelope and content of a message, upgraded to the current version. Raises Undecodable with the reason."""
    kind, version = _kind_of(message.type)
    try:
        if issubclass(kind, Command):
            return _decode_command(kind, version, message)
        return _decode_event(kind, version, message.body)
    except (ValidationError, orjson.JSONDecodeError, KeyError, ValueError, TypeError) as error:
        raise Undecodable(f"{message.type} {message.id}: {error}", code="undecodable") from error


def decode_event(body: bytes) -> Decoded:
    """A structured CloudEvent as stored in a log. Raises Undecodable."""
    try:
        type = orjson.loads(body)["type"]
        kind, version = _kind_of(type)
        if not issubclass(kind, Event):
            raise ValueError(f"{type} is not an event")
        return _decode_event(kind, version, body)
    except (ValidationError, orjson.JSONDecodeError, KeyError, ValueError, TypeError) as error:
        raise Undecodable(f"stored event: {error}", code="undecodable") from error


def _kind_of(type: str) -> tuple[Kind, int]:
    name, _, version = type.removeprefix(TYPE_PREFIX).rpartition(".v")
    kind = _KINDS.get(name)
    if not type.startswith(TYPE_PREFIX) or kind is None or not version.isdigit():
        raise Undecodable(f"unknown message type {type[:200]!r}", code="unknown_type")
    if not 1 <= int(version) <= kind.version:
        raise Undecodable(f"{type} is version {version}; this release knows 1 to {kind.version}", code="unknown_type")
    return kind, int(version)


def _upgraded(kind: str, version: int, current: int, data: dict[str, Any]) -> dict[str, Any]:
    for step in range(version, current):
        data = UPGRADES[kind, step](data)
    return data


def _decode_command(kind: type[Command], version: int, message: Message) -> Decoded:
    headers = message.headers
    content = (
        kind.model_validate_json(message.body)
        if version == kind.version
        else kind.model_validate(_upgraded(kind.kind, version, kind.version, orjson.loads(message.body)))
    )
    envelope = Envelope(
        id=headers["ce-id"], type=message.type, source=headers["ce-source"],
        time=datetime.fromisoformat(headers["ce-time"]), subject=headers.get("ce-subject", ""),
        cause=headers.get("ce-cause", ""), traceparent=headers.get("traceparent", ""),
        grant=headers.get("x-grant", ""),
    )  # fmt: skip
    return Decoded(envelope, content)


def _decode_event(kind: type[Event], version: int, body: bytes) -> Decoded:
    outer = orjson.loads(body)
    content = kind.model_validate(_upgraded(kind.kind, version, kind.version, outer["data"]))
    envelope = Envelope(
        id=outer["id"], type=outer["type"], source=outer["source"], time=datetime.fromisoformat(outer["time"]),
        subject=outer.get("subject", ""), cause=outer.get("cause", ""), traceparent=outer.get("traceparent", ""),
    )  # fmt: skip
    return Decoded(envelope, content)
