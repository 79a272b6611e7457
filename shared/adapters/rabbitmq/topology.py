"""What has to be there on the broker: made once by `declare`, from `shared/contracts/routes.py`; services only look.

Per queue Q: a quorum queue Q; `Q.retry.<n>s`, one per rung of the retry ladder, whose messages go back to Q when
their time is up; and a stream `Q.dead` of what was set aside. Works on 3.10 to 4.x without plugins or policies: every
limit is an argument. Nothing goes through the default exchange: who may write there may write into every queue.
"""

from collections.abc import Sequence
from typing import Any, Final

from aio_pika.abc import AbstractChannel

from shared.adapters.rabbitmq.connections import Link
from shared.contracts import routes
from shared.contracts.routes import DEAD_LETTERS_EXCHANGE, RETRY_EXCHANGE, Access, Queue, Stream

LADDER_S: Final[tuple[float, ...]] = (5.0, 30.0, 300.0)
"""Waits of the retry ladder in seconds. One queue each: a message waits behind those before it in its queue."""
DELIVERY_LIMIT: Final = 20
"""The broker's own last resort against a message that kills its consumers; `Queue.attempts` comes first."""
DEAD_MAX_AGE_S: Final = 90 * 86_400
SEGMENT_BYTES: Final = 50_000_000
"""Streams age by whole segments."""


async def declare(
    url: str, *, queues: Sequence[Queue] = routes.QUEUES, streams: Sequence[Stream] = routes.STREAMS,
    ladder_s: Sequence[float] = LADDER_S, delivery_limit: int = DELIVERY_LIMIT,
) -> None:  # fmt: skip
    """Make exchanges, queues and streams; changes nothing where they are as they should be.

    Raises Misconfigured when one exists with other arguments (remove it once it is drained, then declare again) or
    the user may not configure, Unavailable when the broker does not answer.
    """
    link = Link(url, "serai declare")
    try:
        async with link.channel("declare the topology") as channel:
            await _declare_exchanges(channel, queues, streams)
            for queue in queues:
                await _declare_queue(channel, queue, ladder_s, delivery_limit)
            for stream in streams:
                made = await channel.declare_queue(stream.name, durable=True, arguments=_stream(stream.max_age_s))
                for key in stream.keys:
                    await made.bind(stream.exchange, key)
    finally:
        await link.close()


def rung_of(queue: Queue, wait_s: float) -> str:
    """The name of the retry queue that waits this long."""
    return f"{queue.name}.retry.{wait_s:g}s"


def rung_for(ladder_s: Sequence[float], after_s: float) -> float:
    """The shortest wait that is long enough; the longest where none is."""
    return min((wait for wait in ladder_s if wait >= after_s), default=max(ladder_s))


def dead_of(queue: Queue) -> str:
    """The name of the stream with what was set aside."""
    return f"{queue.name}.dead"


def exchanges_of(access: Access) -> tuple[str, ...]:
    """The exchanges that this access writes to."""
    beside = (RETRY_EXCHANGE, DEAD_LETTERS_EXCHANGE) if access.consumes or access.keeps_dead else ()
    return (*dict.fromkeys(exchange for exchange, _ in access.publishes), *beside)


def queues_of(access: Access) -> tuple[str, ...]:
    """The queues and streams that this access reads."""
    return (
        *(queue.name for queue in access.consumes),
        *(stream.name for stream in access.reads),
        *(dead_of(queue) for queue in access.keeps_dead),
    )


def fed_by(access: Access) -> tuple[str, ...]:
    """The streams that something published by this access ends in."""
    dead = (dead_of(queue) for queue in (*access.consumes, *access.keeps_dead))
    return tuple(dict.fromkeys((*(stream.name for stream in access.feeds), *dead)))


async def _declare_exchanges(channel: AbstractChannel, queues: Sequence[Queue], streams: Sequence[Stream]) -> None:
    for name in sorted({queue.exchange for queue in queues} | {stream.exchange for stream in streams}):
        await channel.declare_exchange(name, "topic", durable=True)
    for name in (DEAD_LETTERS_EXCHANGE, RETRY_EXCHANGE):
        await channel.declare_exchange(name, "direct", durable=True)


async def _declare_queue(
    channel: AbstractChannel, queue: Queue, ladder_s: Sequence[float], delivery_limit: int
) -> None:
    dead = await channel.declare_queue(dead_of(queue), durable=True, arguments=_stream(DEAD_MAX_AGE_S))
    await dead.bind(DEAD_LETTERS_EXCHANGE, queue.name)
    made = await channel.declare_queue(
        queue.name,
        durable=True,
        arguments=_quorum(queue, DEAD_LETTERS_EXCHANGE)
        | {"x-delivery-limit": delivery_limit}
        | ({"x-single-active-consumer": True} if queue.single_active else {}),
    )
    for key in queue.keys:
        await made.bind(queue.exchange, key)
    await made.bind(RETRY_EXCHANGE, queue.name)
    for wait_s in ladder_s:
        rung = await channel.declare_queue(
            rung_of(queue, wait_s),
            durable=True,
            arguments=_quorum(queue, RETRY_EXCHANGE) | {"x-message-ttl": int(wait_s * 1000)},
        )
        await rung.bind(RETRY_EXCHANGE, rung.name)


def _quorum(queue: Queue, dead_letters_to: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-max-length": queue.max_length,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": dead_letters_to,
        "x-dead-letter-routing-key": queue.name,
        "x-dead-letter-strategy": "at-least-once",
    }


def _stream(max_age_s: int) -> dict[str, Any]:
    return {"x-queue-type": "stream", "x-max-age": f"{max_age_s}s", "x-stream-max-segment-size-bytes": SEGMENT_BYTES}
