"""What is suspended, as auth says it, at most two seconds old: how a suspension reaches every service within five.

Asked when somebody needs it, one question at a time; nothing runs in the background. While auth is away the last
answer stands: what may go on without auth is bounded elsewhere (read grants, contexts), changes need auth anyway.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from shared.contracts.suspensions import Suspended, TrustState
from shared.errors import SeraiError
from shared.ports import Clock
from shared.runtime import logs
from shared.runtime.questions import Questions

PATH: Final = "/internal/trust"
_EARLY: Final = 0.75
"""The share of its greatest age at which an answer that many go by is asked for anew."""

Version = tuple[int, int]

log = logs.get("runtime.trust_watch")


class TrustWatch:
    """The newest known suspensions. `every_s`: their greatest age; `patience_s`: how long all wait for news."""

    def __init__(self, auth: Questions, clock: Clock, *, every_s: float = 2.0, patience_s: float = 1.0) -> None:
        self._auth = auth
        self._clock = clock
        self._every = timedelta(seconds=every_s)
        self._early = self._every * _EARLY
        self._patience_s = patience_s
        self._state = TrustState(version=0)
        self._suspended = Suspended()
        self._asked_at: datetime | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asking_until = 0.0
        self._away = False

    @property
    def version(self) -> Version:
        """Another one with every suspension and every new policy, and as soon as a suspension has ended by its time."""
        return self._state.version, self._suspended.ended(self._clock())

    @property
    def state(self) -> TrustState:
        """The last answer."""
        return self._state

    @property
    def fresh(self) -> bool:
        """Whether the last answer is young enough to go by without asking."""
        return self._asked_at is not None and timedelta() <= self._clock() - self._asked_at < self._every

    def glance(self) -> bool:
        """`fresh`, for those who cannot wait; asks for news before they are needed, so that hardly anybody has to."""
        if self._asked_at is None:
            return False
        age = self._clock() - self._asked_at
        if not timedelta() <= age < self._early and self._asking is None:
            self._ask_once(self._clock())
        return timedelta() <= age < self._every

    async def current(self) -> Suspended:
        """What is suspended, asked anew when the last answer is too old; nobody waits for an auth that is away."""
        if not self.fresh:
            asking = self._ask_once(self._clock())
            left = self._asking_until - asyncio.get_running_loop().time()
            if not self._away and left > 0:
                await asyncio.wait([asking], timeout=left)
        return self._suspended

    @property
    def known(self) -> Suspended:
        """What was suspended when somebody asked last."""
        return self._suspended

    def _ask_once(self, now: datetime) -> "asyncio.Task[None]":
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(now), name="trust")
            self._asking_until = asyncio.get_running_loop().time() + self._patience_s
            self._asking.add_done_callback(self._asked)
        return self._asking

    def _asked(self, asking: "asyncio.Task[None]") -> None:
        self._asking = None
        if not asking.cancelled() and asking.exception() is not None:
            log.error("trust_unreadable", error=repr(asking.exception()))

    async def _ask(self, now: datetime) -> None:
        try:
            state = await self._auth.ask("GET", PATH, TrustState)
        except SeraiError as error:
            if not self._away:
                log.warning("trust_unknown", culprit=error.what)
            self._away = True
        else:
            self._away = False
            if state.version < self._state.version:
                log.critical("trust_went_back", was=self._state.version, now=state.version, mend="docs/postgresql.md")
            if state != self._state:
                self._state, self._suspended = state, Suspended(state.suspensions)
        self._asked_at = now
