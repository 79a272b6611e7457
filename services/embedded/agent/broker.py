"""The event broker: a ring of the last lines and the readers' places in it.

Pure: it neither waits nor writes. `stream.py` drives subscriptions, `server.py` publishes.
Semantics as measured (reference/nomad-verified.md, a): the ring counts transactions and holds one more than its size;
an index starts at the first item that has it, else the next higher, else the oldest or the newest; readers whose item
has fallen out are dropped without a word.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from .rows import Event, Line

ALL_TOPICS = "*"


@dataclass(slots=True, eq=False)
class Subscription:
    """A reader: what it wants and the sequence number of the next item it has not seen. Told apart by identity."""

    topics: dict[str, frozenset[str]]
    namespaces: frozenset[str] | None
    position: int
    dropped: bool = False
    wake: Callable[[], None] = field(default=lambda: None)

    def wants(self, event: Event) -> bool:
        """By namespace and topic; an empty key set or `*` takes the whole topic."""
        if self.namespaces is not None and event.namespace and event.namespace not in self.namespaces:
            return False
        keys = self.topics.get(event.topic)
        if keys is None:
            keys = self.topics.get(ALL_TOPICS)
        if keys is None:
            return False
        return not keys or "*" in keys or event.key in keys or any(k in keys for k in event.filter_keys or ())


class Broker:
    """Ring buffer and subscriptions of one region."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: deque[Line] = deque()
        self.first = 0
        """Sequence number of the oldest item kept."""
        self.subscriptions: set[Subscription] = set()

    def publish(self, line: Line) -> None:
        """Append a line, forget the oldest, wake the readers."""
        self.items.append(line)
        while len(self.items) > self.size + 1:
            self.items.popleft()
            self.first += 1
        for subscription in tuple(self.subscriptions):
            subscription.wake()

    def subscribe(
        self, topics: dict[str, frozenset[str]], namespaces: Collection[str] | None, index: int
    ) -> Subscription:
        """A reader placed as Nomad places it for `index`."""
        names = None if namespaces is None else frozenset(namespaces)
        subscription = Subscription(topics, names, self.first + self._start(index))
        self.subscriptions.add(subscription)
        return subscription

    def _start(self, index: int) -> int:
        if index <= 0 or not self.items:
            return 0
        for offset, item in enumerate(self.items):
            if item.index >= index:
                return offset
        return len(self.items) - 1

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a reader that has gone."""
        self.subscriptions.discard(subscription)

    def drop(self, subscription: Subscription) -> None:
        """End a subscription as Nomad does: nothing more comes, and nothing is said."""
        subscription.dropped = True
        self.subscriptions.discard(subscription)
        subscription.wake()

    def drop_all(self) -> None:
        """What a change of tokens or a restored state does to all readers."""
        for subscription in tuple(self.subscriptions):
            self.drop(subscription)

    def prune(self, keep: int = 0) -> None:
        """Forget all but the newest `keep` items, as a burst of transactions would."""
        while len(self.items) > keep:
            self.items.popleft()
            self.first += 1

    def next_bytes(self, subscription: Subscription, limit: int = 256 * 1024) -> bytes:
        """All lines the reader has not seen, up to about `limit` bytes; drops it when it was too slow."""
        if subscription.position < self.first:
            self.drop(subscription)
            return b""
        return self._collect(subscription, limit)

    def _collect(self, subscription: Subscription, limit: int) -> bytes:
        out: list[bytes] = []
        size = 0
        offset = subscription.position - self.first
        while offset < len(self.items) and size < limit:
            line = self.items[offset]
            offset += 1
            chosen = tuple(i for i, event in enumerate(line.events) if subscription.wants(event))
            if chosen:
                out.append(line.encode(chosen))
                size += len(out[-1])
        subscription.position = self.first + offset
        return b"".join(out)
