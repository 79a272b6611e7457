"""The one place that takes messages from a queue, and the only one that settles them.

Each message is decoded, checked, and handled in one transaction together with its inbox row; it is acknowledged only
when that is durable. What comes in twice is recognised by its id and changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from shared.contracts import codec
from shared.contracts.envelope import Envelope, Message
from shared.contracts.routes import Queue
from shared.errors import Refused, Unavailable
from shared.ports import Delivery, MessageBus
from shared.runtime import logs
from shared.runtime.clock import micros
from shared.runtime.retrying import Backoff
from shared.runtime.sql import insert_or_ignore
from shared.runtime.transactions import Transactions, Unit

Handler = Callable[[Unit, Envelope, Any], None]
"""Decides with pure code, writes through `unit.connection`, tells the world with `unit.emit`. Never waits."""

Authorise = Callable[[Message], Awaitable[None]]
"""Raises Refused for a message that must not be executed, Unavailable when that cannot be told now."""

OnDeadLetter = Callable[[Unit, Message, str], None]
"""What a service does about a message that is set aside (e.g. end its job)."""

DEATHS: Final = 10
"""How many deaths beyond its attempts a message may cause, or look like causing, before it is set aside unhandled."""

log = logs.get("runtime.consuming")


class Consumer:
    """One queue of one service. Order is kept as far as the bus keeps it and nothing fails."""

    def __init__(
        self,
        bus: MessageBus,
        queue: Queue,
        transactions: Transactions,
        handlers: Mapping[type, Handler],
        *,
        prefetch: int = 64,
        authorise: Authorise | None = None,
        on_dead_letter: OnDeadLetter | None = None,
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._transactions = transactions
        self._handlers = handlers
        self._prefetch = prefetch
        self._authorise = authorise
        self._on_dead_letter = on_dead_letter

    async def run(self) -> None:
        """Consume for ever; raises Unavailable when the bus is gone (the supervisor tries again)."""
        while True:
            await self._consume_many()
            await self._consume_one_by_one()

    async def _consume_many(self) -> None:
        """Handle many at a time; return when one comes that may have killed its consumers."""
        handled: set[asyncio.Task[None]] = set()
        async with (
            self._bus.consume(self._queue, prefetch=self._prefetch) as deliveries,
            asyncio.TaskGroup() as handling,
        ):
            async for delivery in deliveries:
                if self._suspected(delivery):
                    for task in handled:
                        task.cancel()
                    return
                task = handling.create_task(self._settle(delivery), name=f"{self._queue.name}:{delivery.message.id}")
                handled.add(task)
                task.add_done_callback(handled.discard)

    async def _consume_one_by_one(self) -> None:
        """Handle one at a time, so that one that kills us is charged alone; return when the suspected are past."""
        async with self._bus.consume(self._queue, prefetch=1) as deliveries:
            async for delivery in deliveries:
                if delivery.attempt > self._queue.attempts + DEATHS:
                    words = f"delivered {delivery.attempt} times: whoever held it died or was cut off"
                    await self._set_aside(delivery, words)
                else:
                    await self._settle(delivery)
                if not self._suspected(delivery):
                    return

    def _suspected(self, delivery: Delivery) -> bool:
        """Only consumers that died, or gave it back unsettled, bring a message beyond its attempts."""
        return delivery.attempt > self._queue.attempts

    async def _settle(self, delivery: Delivery) -> None:
        message = delivery.message
        try:
            await self._handle(message)
        except Refused as refusal:
            await self._set_aside(delivery, f"{refusal.code or 'refused'}: {refusal.what}")
        except Exception as error:
            log.exception("handler_failed", queue=self._queue.name, type=message.type, id=message.id)
            if delivery.attempt >= self._queue.attempts:
                await self._set_aside(delivery, f"failed {delivery.attempt} times: {error!r}")
            else:
                await delivery.retry(after_s=min(5.0 * 6 ** (delivery.attempt - 1), 300.0))
        else:
            await delivery.ack()

    async def _handle(self, message: Message) -> None:
        """Handle once the outside answers: an absent store or auth holds the message, and is no failure of it."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while True:
            try:
                decoded = codec.decode(message)
                if self._authorise is not None:
                    await self._authorise(message)
                await self._transactions.run(partial(self._once, decoded), cause=decoded.envelope.id)
                return
            except Unavailable as away:
                pause = backoff.next_s()
                log.warning("held_back", queue=self._queue.name, id=message.id, culprit=away.what, again_in_s=pause)
                await asyncio.sleep(pause)

    def _once(self, decoded: codec.Decoded, unit: Unit) -> None:
        row = {"consumer": self._queue.name, "id": decoded.envelope.id, "received_at": micros(unit.now)}
        if insert_or_ignore(unit.connection, self._transactions.tables.inbox, row):
            self._handlers[type(decoded.content)](unit, decoded.envelope, decoded.content)

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        message = delivery.message
        log.error("dead_lettered", queue=self._queue.name, type=message.type, id=message.id, reason=reason)
        told = self._on_dead_letter
        if told is not None:
            await self._transactions.run(lambda unit: told(unit, message, reason), cause=message.id)
        await delivery.dead_letter(reason)
