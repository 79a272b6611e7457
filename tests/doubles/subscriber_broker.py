"""A SubscriberBroker in memory: it keeps the port's promises (tests/ports/subscribers), and shows what it holds."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.contracts.subscriptions import Letter
from shared.errors import NotFound, Unavailable
from shared.ports import QueueSeen


@dataclass
class MemoryQueue:
    """`password` None = nobody is let in; `readers` are connections, closed when their login goes."""

    letters: list[Letter] = field(default_factory=list)
    password: str | None = None
    readers: int = 0
    dropped: int = 0


class MemorySubscribers:
    """See `shared.ports.SubscriberBroker`. `away`: it answers nothing; `refuses`: names whose queue takes nothing.

    `hold`: opening a queue waits for it, `opening` are those that do.
    """

    def __init__(self, length: int = 1_000) -> None:
        self.queues: dict[str, MemoryQueue] = {}
        self.away = False
        self.refuses: set[str] = set()
        self.hold: asyncio.Event | None = None
        self.opening: list[str] = []
        self.closed: list[str] = []
        self.published = asyncio.Event()
        self._length = length

    @property
    def address(self) -> str:
        return "amqp://broker.example:5672/public"

    @property
    def lag_s(self) -> float:
        return 0.0

    async def open(self, name: str, password: str) -> None:
        self._present()
        self.opening.append(name)
        if self.hold is not None:
            await self.hold.wait()
        self.opening.remove(name)
        self.queues.setdefault(name, MemoryQueue()).password = password

    async def shut_out(self, name: str) -> None:
        self._present()
        if name in self.queues:
            self.queues[name].password, self.queues[name].readers = None, 0
            self.closed.append(name)

    async def remove(self, name: str) -> None:
        await self.shut_out(name)
        self.queues.pop(name, None)

    async def publish(self, name: str, letters: Sequence[Letter]) -> None:
        self._present()
        if name in self.refuses:
            raise Unavailable(f"{name} refused a message: a queue is full", code="queue_full")
        if name not in self.queues:
            raise NotFound(f"there is no queue {name}")
        queue = self.queues[name]
        queue.letters += letters
        queue.dropped += max(0, len(queue.letters) - self._length)
        del queue.letters[: -self._length]
        self.published.set()

    async def seen(self) -> Mapping[str, QueueSeen]:
        self._present()
        return {name: QueueSeen(len(queue.letters), queue.readers) for name, queue in self.queues.items()}

    async def close(self) -> None:
        self.queues.clear()

    def read(self, name: str, count: int = 1_000_000) -> list[Letter]:
        """Take letters out, as a reader does that acknowledges each."""
        letters = self.queues[name].letters
        taken, letters[:count] = letters[:count], []
        return taken

    def _present(self) -> None:
        if self.away:
            raise Unavailable("the subscribers' broker is away")
