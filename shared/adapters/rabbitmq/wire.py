"""Our messages as AMQP messages and back. Pure.

What the bus itself must know travels in headers with the prefix `serai-`; the prefix `x-` would not survive every way
through streams. The AMQP message id is `<id>:<count>`: two publishes in flight must not share one, else a broker's
return is credited to the wrong publish (reference: aiormq matches returns by message id), and one event may travel to
two exchanges at a time.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import aio_pika
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shared.contracts.envelope import Message

EXCHANGE: Final = "serai-exchange"
KEY: Final = "serai-key"
ATTEMPT: Final = "serai-attempt"
REASON: Final = "serai-reason"
DEAD_AT: Final = "serai-dead-at"
MARK: Final = "serai-mark"
REPLAYED: Final = "serai-replayed"

_BROKERS: Final = (
    "serai-", "x-stream-", "x-delivery-", "x-acquired-", "x-death", "x-first-death", "x-last-death", "x-opt-",
    "x-exchange", "x-routing-key", "x-basic-",
)  # fmt: skip
"""Headers that are the bus's or the broker's, and no part of the message."""


class Packed(NamedTuple):
    """An AMQP message that is ready to be published."""

    body: bytes
    properties: Basic.Properties


class Came(NamedTuple):
    """An AMQP message that the broker pushed."""

    tag: int
    exchange: str
    key: str
    headers: Mapping[str, Any]
    properties: Basic.Properties
    body: bytes


def came(delivered: DeliveredMessage) -> Came:
    """What the library hands over, by the names that are used here."""
    properties = delivered.header.properties
    return Came(
        delivered.delivery_tag or 0, delivered.exchange or "", delivered.routing_key or "", properties.headers or {},
        properties, delivered.body,
    )  # fmt: skip


def packed(message: Message, count: int, **bus: str) -> Packed:
    """A persistent AMQP message; `bus` are headers by their Python names, e.g. `serai_attempt="2"`."""
    headers: dict[str, Any] = {**message.headers, EXCHANGE: message.exchange, KEY: message.routing_key}
    headers.update((name.replace("_", "-"), value) for name, value in bus.items())
    return persistent(message.body, headers, message.content_type, f"{message.id}:{count}", message.type)


def persistent(body: bytes, headers: dict[str, Any], content_type: str, message_id: str, kind: str) -> Packed:
    """A message that outlives the broker's restart, where its queue does."""
    properties = Basic.Properties(
        content_type=content_type, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT.value,
        message_id=message_id, message_type=kind,
    )  # fmt: skip
    return Packed(body, properties)


def unpacked(came: Came) -> Message:
    """The message inside, wherever it has been meanwhile."""
    headers = texts(came.headers)
    return Message(
        id=(came.properties.message_id or "").rpartition(":")[0],
        type=came.properties.message_type or "",
        exchange=headers.get(EXCHANGE, came.exchange),
        routing_key=headers.get(KEY, came.key),
        body=came.body,
        content_type=came.properties.content_type or "",
        headers={name: value for name, value in headers.items() if not name.startswith(_BROKERS)},
    )


def attempt(came: Came) -> int:
    """Our own count, plus what the broker counted when consumers died with it."""
    return int(text(came.headers.get(ATTEMPT)) or "1") + _number(came.headers.get("x-delivery-count"))


def offset(came: Came) -> int:
    """The offset that a stream gave it."""
    return _number(came.headers.get("x-stream-offset"))


def reason(came: Came) -> str:
    """Why it is dead: our words, or those of the broker (`delivery_limit`, `maxlen`, `rejected`)."""
    headers = texts(came.headers)
    return headers.get(REASON) or f"broker: {headers.get('x-first-death-reason', 'unknown')}"


def dead_at(came: Came) -> datetime | None:
    """When it was set aside, if it was by us."""
    text = texts(came.headers).get(DEAD_AT)
    return datetime.fromisoformat(text) if text else None


def texts(headers: Mapping[str, object]) -> dict[str, str]:
    """The headers that are words; streams give some of them back as bytes."""
    return {name: word for name, value in headers.items() if (word := text(value)) is not None}


def text(value: object) -> str | None:
    """The word that a header is, if it is one."""
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
