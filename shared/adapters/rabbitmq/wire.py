"""Our messages as AMQP messages and back. Pure.

What the bus itself must know travels in headers with the prefix `serai-`; the prefix `x-` would not survive every way
through streams. The AMQP message id is `<id>:<count>`: two publishes in flight must not share one, else a broker's
return is credited to the wrong publish (reference: aiormq matches returns by message id), and one event may travel to
two exchanges at a time.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

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


def packed(message: Message, count: int, **bus: str) -> aio_pika.Message:
    """A persistent AMQP message; `bus` are headers by their Python names, e.g. `serai_attempt="2"`."""
    headers: dict[str, Any] = {**message.headers, EXCHANGE: message.exchange, KEY: message.routing_key}
    headers.update((name.replace("_", "-"), value) for name, value in bus.items())
    return aio_pika.Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=f"{message.id}:{count}",
        type=message.type,
    )


def unpacked(came: AbstractIncomingMessage) -> Message:
    """The message inside, wherever it has been meanwhile."""
    headers = texts(came.headers)
    return Message(
        id=(came.message_id or "").rpartition(":")[0],
        type=came.type or "",
        exchange=headers.get(EXCHANGE, came.exchange or ""),
        routing_key=headers.get(KEY, came.routing_key or ""),
        body=came.body,
        content_type=came.content_type or "",
        headers={name: value for name, value in headers.items() if not name.startswith(_BROKERS)},
    )


def attempt(came: AbstractIncomingMessage) -> int:
    """Our own count, plus what the broker counted when consumers died with it."""
    return int(texts(came.headers).get(ATTEMPT, "1")) + _number(came.headers.get("x-delivery-count"))


def offset(came: AbstractIncomingMessage) -> int:
    """The offset that a stream gave it."""
    return _number(came.headers.get("x-stream-offset"))


def reason(came: AbstractIncomingMessage) -> str:
    """Why it is dead: our words, or those of the broker (`delivery_limit`, `maxlen`, `rejected`)."""
    headers = texts(came.headers)
    return headers.get(REASON) or f"broker: {headers.get('x-first-death-reason', 'unknown')}"


def dead_at(came: AbstractIncomingMessage) -> datetime | None:
    """When it was set aside, if it was by us."""
    text = texts(came.headers).get(DEAD_AT)
    return datetime.fromisoformat(text) if text else None


def texts(headers: Mapping[str, object]) -> dict[str, str]:
    """The headers that are words; streams give some of them back as bytes."""
    words = {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
    return {name: value for name, value in words.items() if isinstance(value, str)}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
