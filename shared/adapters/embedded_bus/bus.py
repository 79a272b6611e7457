"""The MessageBus of one process. Nothing to install, and nothing is lost with the process.

Opened by `services/embedded`: `bus = await EmbeddedBus.open(folder / "bus.sqlite")`; one process per file. Every
message is a row of one append-only log (docs/decisions/002-the-embedded-bus-keeps-a-log-of-its-own.md); `publish`
returns when its commit is durable, and commits are shared (`sqlite_writer.py`). Consumers are woken in memory and read
the file in the event loop. An `ack` is written with the next commit and not waited for, as with a broker: a crash in
between repeats the message.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from shared.adapters.embedded_bus import file, ownership
from shared.adapters.embedded_bus.bindings import Bindings, Targets
from shared.adapters.embedded_bus.delivering import Consumer, QueueState
from shared.adapters.embedded_bus.file import Waiting
from shared.adapters.embedded_bus.looking import letters
from shared.adapters.sqlite_writer import Writer, translated
from shared.contracts import routes
from shared.contracts.envelope import Message
from shared.contracts.routes import Queue, Stream, key_matches
from shared.errors import Misconfigured, NotFound, OutcomeUnknown, Unavailable
from shared.ports import Clock, DeadLetter, Delivery
from shared.runtime.clock import micros, system_clock

COMMIT_DEADLINE_S: Final = 30.0
WRITES_LIMIT: Final = 20_000
OWED_S: Final = 0.02
"""How long an acknowledgement may wait for a commit to go along with."""
STREAM_PAGE: Final = 128
TRIM_EVERY: Final = 256
"""After so many published messages, up to 512 old ones of each exchange are looked at: trimming keeps pace."""

T = TypeVar("T")


class EmbeddedBus:
    """See `shared.ports.MessageBus`. Belongs to the event loop it was opened in."""

    @classmethod
    async def open(
        cls, path: Path, *, queues: Sequence[Queue] = routes.QUEUES, streams: Sequence[Stream] = routes.STREAMS,
        clock: Clock = system_clock,
    ) -> "EmbeddedBus":  # fmt: skip
        """Open or make the file. Raises Misconfigured when somebody else has it open, Unavailable when it fails."""
        lock = ownership.take(path)
        try:
            raw = await asyncio.to_thread(file.connect, path)
            return cls(path, lock, raw, Bindings(queues, streams), clock)
        except BaseException:  # cancelled, too: the file must not stay taken
            lock.close()
            raise

    def __init__(self, path: Path, lock: IO[str], raw: sqlite3.Connection, bindings: Bindings, clock: Clock) -> None:
        self._name = path.name
        self._lock = lock
        self._clock = clock
        self._bindings = bindings
        self._raw = raw
        file.spend_held(raw)
        self._reader = file.connect(path, read_only=True)
        self._writer = Writer(raw, raw, limit=WRITES_LIMIT, name=path.name)
        self._position = self._opened_at = file.last_position(raw)
        self._queues = {
            name: QueueState(queue, self, file.depth(raw, name), file.retries(raw, name))
            for name, queue in bindings.queues.items()
        }
        self._stream_readers: dict[str, set[asyncio.Event]] = {name: set() for name in bindings.streams}
        self._acks: list[tuple[str, int]] = []
        self._untrimmed = 0
        self._trimmed_to: dict[str, int] = {}
        self._failure: Exception | None = None

    async def close(self) -> None:
        """Write what is owed, then close; consumers and readers end with Unavailable."""
        if self._failure is not None and getattr(self._failure, "code", "") == "bus_closed":
            return
        self._failure = Unavailable(f"the bus {self._name} is closed", code="bus_closed")
        self._wake(self._queues, self._stream_readers)
        await self._writer.close()
        self._raw.close()
        self._reader.close()
        self._lock.close()

    async def ready(self) -> None:
        self.check()

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        self.check()
        if not messages:
            return
        targets = [self._bindings.targets(message.exchange, message.routing_key) for message in messages]
        arriving = self._reserve(targets)

        def published(error: BaseException | None) -> None:
            if error is None:
                self._wake(arriving, {name for target in targets for name in target.streams})
            else:
                self._unreserve(arriving)

        await self._written(lambda raw: self._append(raw, messages, targets), published)

    def _reserve(self, targets: list[Targets]) -> dict[str, int]:
        """Count what arrives at each queue; raises Unavailable when one would become too long."""
        arriving: dict[str, int] = {}
        for target in targets:
            for name in target.queues:
                arriving[name] = arriving.get(name, 0) + 1
        for name, count in arriving.items():
            state = self._queues[name]
            if state.depth + count > state.queue.max_length:
                raise Unavailable(f"the queue {name} is full ({state.depth} messages)", code="queue_full")
        for name, count in arriving.items():
            self._queues[name].depth += count
        return arriving

    def _unreserve(self, arriving: dict[str, int]) -> None:
        for name, count in arriving.items():
            self._queues[name].depth -= count

    def _append(self, raw: sqlite3.Connection, messages: Sequence[Message], targets: list[Targets]) -> None:
        first = self._position + 1
        self._position += len(messages)
        file.append(raw, enumerate(messages, first), self.now())
        file.enqueue(
            raw, [(name, position) for position, target in enumerate(targets, first) for name in target.queues]
        )
        self._untrimmed += len(messages)
        if self._untrimmed >= TRIM_EVERY:
            self._untrimmed = 0
            self._trim(raw)

    def _trim(self, raw: sqlite3.Connection) -> None:
        for exchange, kept_s in self._bindings.kept_s().items():
            queues = [name for name, queue in self._bindings.queues.items() if queue.exchange == exchange]
            before = self.now() - int(kept_s * 1_000_000)
            seen = file.trim(raw, exchange, before, queues, self._trimmed_to.get(exchange, 0))
            self._trimmed_to[exchange] = 0 if seen is None else seen

    # -- queues ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        self.check()
        consumer = Consumer(self._state(queue), self, prefetch)
        self._state(queue).join(consumer)
        try:
            yield consumer
        finally:
            consumer.close()

    async def depth(self, queue: Queue) -> int:
        self.check()
        return self._state(queue).depth

    async def dead_letters(self, queue: Queue, *, limit: int = 100) -> Sequence[DeadLetter]:
        self.check()
        return letters(self._reader, self._state(queue).queue, limit)

    async def replay_dead_letter(self, queue: Queue, position: int) -> None:
        self.check()
        state = self._state(queue)
        back = await self._written(lambda raw: file.unbury(raw, queue.name, position))
        if back is None:
            raise NotFound(f"{queue.name} has no dead letter {position}", code="no_dead_letter")
        state.return_replayed(back)

    def _state(self, queue: Queue) -> QueueState:
        try:
            return self._queues[queue.name]
        except KeyError:
            raise Misconfigured(f"there is no queue {queue.name!r}: see shared/contracts/routes.py") from None

    # -- streams --------------------------------------------------------------------------------------------------

    async def read(self, stream: Stream, *, after: int | None) -> AsyncIterator[tuple[int, Message]]:
        if stream.name not in self._stream_readers:
            raise Misconfigured(f"there is no stream {stream.name!r}: see shared/contracts/routes.py")
        position = after or 0
        if position > self._position:
            raise Unavailable(
                f"the bus {self._name} ends before {position}, where {stream.name} was read before; if its file was "
                "made anew, the services' databases beside it must be, too",
                code="stream_too_short",
            )
        arrived = asyncio.Event()
        self._stream_readers[stream.name].add(arrived)
        try:
            while True:
                self.check()
                arrived.clear()
                page = file.page(self._reader, stream.exchange, position, STREAM_PAGE)
                for position, message in page:
                    if any(key_matches(pattern, message.routing_key) for pattern in stream.keys):
                        yield position, message
                if not page:
                    await arrived.wait()
        finally:
            self._stream_readers[stream.name].discard(arrived)

    def _wake(self, queues: Sequence[str] | dict[str, Any], streams: set[str] | dict[str, Any]) -> None:
        for name in queues:
            self._queues[name].wake()
        for name in streams:
            for arrived in self._stream_readers[name]:
                arrived.set()

    # -- what queues ask (delivering.Ledger) ----------------------------------------------------------------------

    def now(self) -> int:
        return micros(self._clock())

    def check(self) -> None:
        """Raise Unavailable when the bus is closed or something owed to the file could not be written."""
        if self._failure is not None:
            raise self._failure

    def find(self, queue: str, behind: int, limit: int) -> list[Waiting]:
        return file.fresh(self._reader, queue, behind, limit)

    def pick(self, queue: str, positions: list[int]) -> list[Waiting]:
        return file.chosen(self._reader, queue, positions)

    async def hold(self, queue: str, positions: list[int]) -> None:
        """Note that a consumer has these, so that a crash counts as an attempt.

        Waited for only when one of them was there before the process began: a message that kills us at once is
        then counted from its second death on, and everybody else pays no commit before delivery.
        """
        if min(positions) <= self._opened_at:
            await self._written(lambda raw: file.hold(raw, queue, positions, True))
        else:
            self._owe(lambda raw: file.hold(raw, queue, positions, True))

    def let_go(self, queue: str, positions: list[int]) -> None:
        if self._failure is None:
            self._owe(lambda raw: file.hold(raw, queue, positions, False))

    def ack(self, queue: str, position: int) -> None:
        self.check()
        self._acks.append((queue, position))
        if len(self._acks) == 1:
            self._owe(self._write_acks)

    def _write_acks(self, raw: sqlite3.Connection) -> None:
        acks, self._acks = self._acks, []
        file.settle(raw, acks)

    async def postpone(self, queue: str, position: int, due_at: int) -> None:
        await self._written(lambda raw: file.postpone(raw, queue, position, due_at))

    async def bury(self, queue: str, position: int, reason: str) -> None:
        await self._written(lambda raw: file.bury(raw, queue, position, reason, self.now()))

    # -- writing --------------------------------------------------------------------------------------------------

    async def _written(
        self, body: Callable[[sqlite3.Connection], T], then: Callable[[BaseException | None], None] | None = None
    ) -> T:
        """Run `body` in a transaction and wait for its commit; `then` is called even if the caller gives up."""
        try:
            future: asyncio.Future[T] = self._writer.submit(body)
        except Unavailable as error:
            if then is not None:
                then(error)
            raise
        if then is not None:
            future.add_done_callback(lambda done: then(done.exception()))
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise OutcomeUnknown(f"the bus {self._name} did not commit in time", code="bus_failed") from error
        except sqlite3.Error as error:
            raise translated(error) from error

    def _owe(self, body: Callable[[sqlite3.Connection], None]) -> None:
        """Write with the next commit; a failure ends every consumer, so that nothing is settled in memory only."""
        self._writer.submit(body, patience_s=OWED_S).add_done_callback(self._note_failure)

    def _note_failure(self, done: asyncio.Future[None]) -> None:
        if (error := done.exception()) is not None and self._failure is None:
            self._failure = Unavailable(f"the bus {self._name} cannot write: {error}", code="bus_failed")
            self._wake(self._queues, self._stream_readers)
