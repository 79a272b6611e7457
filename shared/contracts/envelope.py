"""What every message carries beside its content. Names are CloudEvents' where CloudEvents has one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it travels: the bus moves it, only the codec looks inside.

    Commands: `body` is the command itself, the exact bytes its grant covers; everything else is in `headers`.
    Events: `body` is a CloudEvent in structured mode; the headers mirror it for tooling only.
    """

    id: str
    type: str
    exchange: str
    routing_key: str
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The decoded attributes. `cause` is the id of the message (or request) that led to this one."""

    id: str
    type: str
    source: str
    time: datetime
    subject: str = ""
    cause: str = ""
    traceparent: str = ""
    grant: str = ""
