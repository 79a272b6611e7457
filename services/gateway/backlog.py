"""Refuses new work when what was accepted before cannot be handed on: better a 503 than a promise nobody keeps."""

from datetime import datetime, timedelta

from shared.errors import Unavailable
from shared.ports import Clock
from shared.runtime.relay import Relay

_LOOK_AGAIN = timedelta(seconds=1)


class Backlog:
    """Watches the age of the oldest command that is not published yet; looks once a second at most. Whoever comes while
    it looks goes by what it saw before."""

    def __init__(self, relay: Relay, clock: Clock, limit_s: float) -> None:
        self._relay = relay
        self._clock = clock
        self._limit_s = limit_s
        self._looked_at: datetime | None = None
        self._lag_s = 0.0

    async def check(self) -> None:
        """Raises Unavailable while the limit is passed."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _LOOK_AGAIN:
            self._looked_at = now  # before the look: all that come meanwhile would look as well
            self._lag_s = await self._relay.lag_s()
        if self._lag_s > self._limit_s:
            raise Unavailable(
                f"the bus has taken nothing for {self._lag_s:.0f} s, so no new work is accepted; what was accepted is "
                "kept. Try again later",
                code="unavailable",
                retry_after_s=30,
            )
