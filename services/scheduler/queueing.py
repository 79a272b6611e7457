"""The order of the queue: priority, then turn, then age. Pure.

Turns are start-time fair queueing (Goyal, Vin, Cheng 1996) with jobs of equal weight: who hands in ten thousand at once
gets ten thousand successive turns, and the next owner's first job gets a turn beside their first one still waiting.
Nothing is remembered of owners who have nothing in the queue.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from services.scheduler.placement import MOCK_KEY
from shared.job import JobSpec


class QueueKey(NamedTuple):
    """Sorts the queue. `precedence` is 100 - priority; ids are UUIDv7, hence by age."""

    precedence: int
    turn: int
    job_id: str


def precedence(priority: int) -> int:
    """0 for the highest priority, 100."""
    return 100 - priority


def turn_of(first_waiting: int | None, last_own: int | None) -> int:
    """The turn of a new job: one behind its owner's last one in the queue, never before the first one waiting."""
    served = 0 if first_waiting is None else first_waiting
    return served if last_own is None else max(served, last_own + 1)


def shape_of(spec: JobSpec, avoided: Iterable[str] = ()) -> str:
    """A digest of everything in a job that placement looks at: jobs of one shape get the same verdicts."""
    parts = (
        spec.vo, str(spec.image is not None), str(MOCK_KEY in spec.metadata), spec.resources.model_dump_json(),
        spec.placement.model_dump_json(), ",".join(sorted(avoided)),
    )  # fmt: skip
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
