"""A circuit breaker: after several failures in a row, none is asked for a while; then one may try for all.

State only; it never waits. Called by `claims_source.py` around each question to an issuer.
"""

from datetime import datetime, timedelta

from shared.errors import Unavailable
from shared.ports import Clock


class Breaker:
    """Closed (asks), open (refuses), half open (one asks)."""

    def __init__(self, clock: Clock, failures: int, pause: timedelta) -> None:
        self._clock = clock
        self._most = failures
        self._pause = pause
        self._failures = 0
        self._closed_until: datetime | None = None

    def check(self, whom: str) -> None:
        """Return when a question may be asked now. Raises Unavailable while it is open."""
        if self._closed_until is None:
            return
        now = self._clock()
        if now < self._closed_until:
            left = (self._closed_until - now).total_seconds()
            raise Unavailable(f"{whom} failed several times just now and is left alone", retry_after_s=max(1.0, left))
        self._closed_until = now + self._pause

    def failed(self) -> None:
        """The question that was let through has failed."""
        self._failures += 1
        if self._failures >= self._most:
            self._closed_until = self._clock() + self._pause

    def worked(self) -> None:
        """The question that was let through was answered."""
        self._failures, self._closed_until = 0, None
