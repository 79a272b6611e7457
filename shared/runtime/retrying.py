"""How long to wait before trying again, as data. Who uses one of these is the only layer that retries its failure."""

import random
from dataclasses import dataclass
from typing import Final

_RNG: Final = random.Random()
"""One for all: to seed one costs as much as a database's answer."""


@dataclass(slots=True)
class Backoff:
    """Doubling waits with full jitter between `first_s` and `most_s` (seconds); `reset` after a success."""

    first_s: float
    most_s: float
    rng: random.Random = _RNG
    tries: int = 0

    def next_s(self) -> float:
        """The next wait in seconds."""
        ceiling = min(self.first_s * 2.0**self.tries, self.most_s)
        self.tries = min(self.tries + 1, 32)
        return ceiling / 2 + self.rng.random() * ceiling / 2

    def reset(self) -> None:
        self.tries = 0
