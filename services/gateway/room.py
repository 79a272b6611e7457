"""Room for answers that go on for long, event streams and followed logs: so many at a time, more are told to wait."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Unavailable


class Room:
    """One per process; a stream takes its place when its first byte is asked for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    def check(self) -> None:
        """Raises Unavailable when all places are taken."""
        if self._open >= self._limit:
            raise Unavailable("too many open streams at this gateway; try again later", retry_after_s=10)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A place, for as long as the stream is open."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
