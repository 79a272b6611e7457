"""Injected faults: what can be made to go wrong at an embedded agent, and what is wrong just now.

The table `KINDS` is shown by `GET /serai/fault` and to operators by `serai-platform fault`. The effects on HTTP are
asked for by the API; `injection.py` carries the others out.
"""

import time
from dataclasses import dataclass

KINDS: dict[str, str] = {
    "drop-stream": "Every open event stream is closed at once (EOF), as when the agent's process dies.",
    "silence-stream": "Every open event stream goes silent: no line, no heartbeat, no EOF before the collector runs.",
    "prune-buffer": "The event buffer forgets all but `keep` items (default 0): a resume finds a gap.",
    "refuse-connections": "For `seconds` (default 10) nothing listens and open connections are reset.",
    "lose-node": (
        "The client of `node` (default: the first) is not heard any more; after the heartbeat TTL, or `after` seconds, "
        "it is lost."
    ),
    "return-node": "The lost client is back: it tells what became of its tasks and learns what is wanted.",
    "error-500": "The next `count` requests, or all for `seconds`, are answered 500 `No cluster leader`.",
    "error-429": "The same with 429 and Nomad's text about too many connections.",
    "forget-job": "The row of job `job` (of `namespace`, else any) is deleted without any event; it then answers 404.",
    "narrow-token": "For `seconds` (or until `clear`) lists are empty (`deny` true: 403) and event streams are silent.",
    "drain": "Drain `node` with a deadline of `seconds` (default 0: at once).",
    "undrain": "End the drain and take new work again.",
    "gc": "Collect all finished jobs now, as `nomad system gc` does.",
    "slow": "Every answer waits `seconds` first, for `duration` seconds (default: until `clear`).",
    "clear": "End slow, error, narrow-token and silence.",
}


@dataclass(slots=True)
class Failure:
    """An answer given instead of the real one."""

    status: int
    text: str


@dataclass(slots=True)
class Faults:
    """What is wrong with HTTP now. Times are of the monotonic clock."""

    delay_s: float = 0.0
    delay_until: float = 0.0
    error: Failure | None = None
    errors_left: int = 0
    error_until: float = 0.0
    narrow_until: float = 0.0
    narrow_denies: bool = False

    def slow(self, seconds: float, duration: float | None) -> None:
        """Delay answers."""
        self.delay_s = seconds
        self.delay_until = time.monotonic() + duration if duration else float("inf")

    def fail(self, status: int, text: str, count: int | None, seconds: float | None) -> None:
        """Fail the next `count` requests, or all for `seconds`; one when neither is given."""
        self.error = Failure(status, text)
        self.errors_left = count or (0 if seconds else 1)
        self.error_until = time.monotonic() + seconds if seconds else 0.0

    def narrow(self, seconds: float | None, denies: bool) -> None:
        """Let the token see nothing."""
        self.narrow_until = time.monotonic() + seconds if seconds else float("inf")
        self.narrow_denies = denies

    def clear(self) -> None:
        """All well again."""
        self.delay_s = self.delay_until = self.error_until = self.narrow_until = 0.0
        self.error, self.errors_left = None, 0

    @property
    def is_narrow(self) -> bool:
        """The token sees nothing."""
        return time.monotonic() < self.narrow_until

    def delay(self) -> float:
        """Seconds that the next answer waits."""
        return self.delay_s if self.delay_s and time.monotonic() < self.delay_until else 0.0

    def take_error(self) -> Failure | None:
        """The failure for the next request, if it is to fail."""
        if self.error is None:
            return None
        if self.errors_left > 0:
            self.errors_left -= 1
            return self.error
        return self.error if time.monotonic() < self.error_until else None
