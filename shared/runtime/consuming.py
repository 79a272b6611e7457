"""The one place that takes messages from a queue, and the only one that settles them.

Each message is decoded, checked, and handled in one transaction together with its inbox row; it is acknowledged only
when that is durable. What comes in twice is recognised by its id and changes nothing. Messages that come while others
are being handled share the next transaction: each of them alone would wait for the store several times.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
from shared.runtime.sql import insert_new
from shared.runtime.transactions import Transactions, Unit

Handler = Callable[[Unit, Envelope, Any], None]
"""Decides with pure code, writes through `unit.connection`, tells the world with `unit.emit`. Never waits."""

Authorise = Callable[[Message, codec.Decoded], Awaitable[None]]
"""Of a message and what it says. Raises Refused where it must not be executed, Unavailable when that cannot be told."""

OnDeadLetter = Callable[[Unit, Message, str], None]
"""What a service does about a message that is set aside (e.g. end its job)."""

TOGETHER: Final = 16
"""Messages handled in one transaction at most: its body holds up whatever else the process does."""
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
        self._prefetch = prefetch
        self._together = _Together(queue.name, transactions, handlers)
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
                    await self._authorise(message, decoded)
                await self._together.handle(decoded)
                return
            except Unavailable as away:
                pause = backoff.next_s()
                log.warning("held_back", queue=self._queue.name, id=message.id, culprit=away.what, again_in_s=pause)
                await asyncio.sleep(pause)

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        message = delivery.message
        log.error("dead_lettered", queue=self._queue.name, type=message.type, id=message.id, reason=reason)
        told = self._on_dead_letter
        if told is not None:
            await self._transactions.run(lambda unit: told(unit, message, reason), cause=message.id)
        await delivery.dead_letter(reason)


# -- many in one transaction --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message that waits to be handled, and what came of it."""

    decoded: codec.Decoded
    handled: bool = False
    error: Exception | None = None


class _Together:
    """The transactions of one queue's messages, one after another: the message whose turn it is takes others along."""

    def __init__(self, queue: str, transactions: Transactions, handlers: Mapping[type, Handler]) -> None:
        self._queue = queue
        self._transactions = transactions
        self._handlers = handlers
        self._inbox = transactions.tables.inbox
        self._waiting: list[_Waiting] = []
        self._turn = asyncio.Lock()

    async def handle(self, decoded: codec.Decoded) -> None:
        """Return when it is durable. Raises what its own handler raised, or Unavailable with the store."""
        mine = _Waiting(decoded)
        self._waiting.append(mine)
        try:
            async with self._turn:
                if not mine.handled:
                    await self._handle([mine, *self._others(mine)])
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error

    def _others(self, mine: _Waiting) -> list[_Waiting]:
        return [one for one in self._waiting if one is not mine][: TOGETHER - 1]

    async def _handle(self, batch: list[_Waiting]) -> None:
        """In one transaction; where that fails, each in one of its own, so that a message harms only itself."""
        try:
            await self._in_one(batch)
        except Exception as error:
            if len(batch) > 1:
                await asyncio.gather(*(self._alone(one) for one in batch))
            else:
                batch[0].error = error
        for one in batch:
            one.handled = True
            if one in self._waiting:
                self._waiting.remove(one)

    async def _alone(self, one: _Waiting) -> None:
        try:
            await self._in_one([one])
        except Exception as error:
            one.error = error

    async def _in_one(self, batch: list[_Waiting]) -> None:
        new: set[str] = set()
        bodies = [(partial(self._once, one.decoded, new), one.decoded.envelope.id) for one in batch]
        await self._transactions.run_all([(partial(self._note, batch, new), ""), *bodies])

    def _note(self, batch: list[_Waiting], new: set[str], unit: Unit) -> None:
        """Which of them are new; they are not any more."""
        ids = [one.decoded.envelope.id for one in batch]
        new.clear()
        same = {"consumer": self._queue, "received_at": micros(unit.now)}
        new.update(insert_new(unit.connection, self._inbox, "id", ids, **same))

    def _once(self, decoded: codec.Decoded, new: set[str], unit: Unit) -> None:
        if decoded.envelope.id in new:
            new.discard(decoded.envelope.id)
            self._handlers[type(decoded.content)](unit, decoded.envelope, decoded.content)
