"""Where a message goes: exchanges bound to queues and streams by topic keys. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from shared.contracts.routes import Queue, Stream, key_matches
from shared.errors import Misconfigured


class Targets(NamedTuple):
    """Names of what is bound to one (exchange, routing key)."""

    queues: tuple[str, ...]
    streams: tuple[str, ...]


class Bindings:
    """The routes of one bus. An exchange that only queues are bound to keeps nothing once they have settled."""

    def __init__(self, queues: Sequence[Queue], streams: Sequence[Stream]) -> None:
        self.queues = {queue.name: queue for queue in queues}
        self.streams = {stream.name: stream for stream in streams}
        self.targets = lru_cache(maxsize=8192)(self._targets)

    def _targets(self, exchange: str, key: str) -> Targets:
        """What receives a message with this key. Raises Misconfigured when nothing does."""
        found = Targets(
            tuple(name for name, queue in self.queues.items() if _bound(queue, exchange, key)),
            tuple(name for name, stream in self.streams.items() if _bound(stream, exchange, key)),
        )
        if not any(found):
            raise Misconfigured(
                f"nothing is bound to exchange {exchange!r} with key {key!r}: see shared/contracts/routes.py",
                code="unroutable",
            )
        return found

    def kept_s(self) -> dict[str, float]:
        """How long each exchange's messages are kept after all queues have settled them, in seconds."""
        kept = dict.fromkeys((queue.exchange for queue in self.queues.values()), 0.0)
        for stream in self.streams.values():
            kept[stream.exchange] = max(kept.get(stream.exchange, 0.0), float(stream.max_age_s))
        return kept


def _bound(target: Queue | Stream, exchange: str, key: str) -> bool:
    return target.exchange == exchange and any(key_matches(pattern, key) for pattern in target.keys)
