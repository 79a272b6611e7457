"""What others than us hold of a cluster's nodes, kept up with the event stream between two listings. Pure.

Without a question to the cluster: an allocation on the stream says what it holds, and where.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from shared.engine import AllocationSeen, JobSeen, Line
from shared.ids import attempt_of

MOST: Final = 50_000
"""Allocations of others remembered one by one, at some 900 bytes each; a cluster may have more."""
NODES_A_SECOND: Final = 50
"""A site's telling names all of its nodes: so large ones tell of others' room less often."""
OFTEN: Final = 10
"""After so many tellings in a row, the next ones wait ten times as long: others are never still there."""
SOON_S: Final = 0.5

Use = tuple[int, int, int]
"""(MHz, MiB of memory, MiB of disk)."""
NOTHING: Final[Use] = (0, 0, 0)
Room = Mapping[str, Use]
"""By node id what others hold of it."""
Job = tuple[str, str]
"""(Namespace, id)."""


class _Held(NamedTuple):
    """What one allocation of others held of its node when it was seen last; nothing once it has ended."""

    seen_at: int
    node_id: str
    use: Use
    job: Job


class Others:
    """What allocations of others than us hold of each node: as they were listed last, and as the stream told since.

    Each is remembered, also one that has ended, until the next listing: a sight may come again, or be older than the
    listing. Of a cluster with more than `most` of them only those are followed; the rest is counted when it is listed.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: dict[str, _Held] = {}
        self._of_job: dict[Job, list[str]] = {}
        """The ids of `_held` by job."""
        self._room: dict[str, Use] = {}
        self._all_known = True
        self._newest = 0
        self._asked_at = 0

    @property
    def room(self) -> Room:
        """By node, as of now."""
        return dict(self._room)

    def asked(self) -> None:
        """A listing is about to be asked for: it will show everything that was seen so far."""
        self._asked_at = self._newest

    def listed(self, allocations: Iterable[AllocationSeen]) -> None:
        """The listing, the truth; what the stream told after it was asked for stays."""
        later = {id: held for id, held in self._held.items() if held.seen_at > self._asked_at}
        self._held, self._of_job, self._room, self._all_known = {}, {}, {}, True
        for id, held in _others(allocations):
            self._add(id, max(held, later.pop(id, held), key=lambda one: one.seen_at))
        for id, held in later.items():
            self._add(id, held)

    def forget(self) -> None:
        """The cluster's indexes began anew."""
        self._held, self._of_job, self._newest, self._asked_at = {}, {}, 0, 0

    def saw(self, allocations: Iterable[AllocationSeen]) -> bool:
        """Sights on the stream; whether somebody holds more or less than before."""
        changed = False
        for id, held in _others(allocations):
            known = self._held.get(id)
            if held.seen_at <= (known.seen_at if known else 0) or (known is None and not self._all_known):
                continue
            before = known.use if known else NOTHING
            if self._remember(id, held):
                if known is not None:
                    self._count(known, -1)
                self._count(held, 1)
                changed = changed or before != held.use
        return changed

    def purged(self, jobs: Mapping[Job, int]) -> bool:
        """Jobs that were purged, with the index of that; whether somebody holds less than before.

        Their allocations are deleted with them, and no line of the stream tells of those any more.
        """
        changed = False
        for job, index in jobs.items():
            for id in self._of_job.get(job, ()):
                held = self._held[id]
                if held.use != NOTHING and held.seen_at < index:
                    self._count(held, -1)
                    self._remember(id, held._replace(seen_at=index, use=NOTHING))
                    changed = True
        return changed

    def _add(self, id: str, held: _Held) -> None:
        """One of a listing: counted also when there is no room to remember it."""
        self._count(held, 1)
        self._remember(id, held)

    def _remember(self, id: str, held: _Held) -> bool:
        """False when there is no room for one more: it cannot be told whether it was counted until the next listing."""
        if id not in self._held:
            if len(self._held) >= self._most:
                self._all_known = False
                return False
            self._of_job.setdefault(held.job, []).append(id)
        self._held[id] = held
        self._newest = max(self._newest, held.seen_at)
        return True

    def _count(self, held: _Held, sign: int) -> None:
        if held.use != NOTHING:
            cpu, memory, disk = self._room.get(held.node_id, NOTHING)
            more_cpu, more_memory, more_disk = held.use
            self._room[held.node_id] = cpu + sign * more_cpu, memory + sign * more_memory, disk + sign * more_disk


def _others(allocations: Iterable[AllocationSeen]) -> Iterable[tuple[str, _Held]]:
    return (
        (one.id, _Held(one.modify_index, one.node_id, one.uses, (one.namespace, one.job_id)))
        for one in allocations
        if attempt_of(one.job_id) is None
    )


def purges(lines: Iterable[Line]) -> dict[Job, int]:
    """Jobs of others that were purged, with the index of that."""
    return {
        (one.namespace, one.id): line.index
        for line in lines
        for one in line.seen
        if isinstance(one, JobSeen) and one.deleted and attempt_of(one.id) is None
    }


def patience_s(told: Sequence[float], nodes: int, now: float) -> float:
    """Seconds until others' room is told again, after it was told at these moments (the last ones) of so many nodes."""
    gap_s = max(1.0, nodes / NODES_A_SECOND)
    if len(told) >= OFTEN and now - told[-OFTEN] < 10 * OFTEN * gap_s:
        gap_s *= 10
    return max(SOON_S, told[-1] + gap_s - now) if told else SOON_S
