"""Whose job comes next where a VO's ceiling is shared: of jobs of one priority the owner's who has least of it. Pure.

Turns in the queue (`queueing.py`) share out what comes free; long jobs of one owner would still hold all that a VO may
have. Least is by the scarcest thing, as a share of the ceiling (dominant resource fairness, Ghodsi et al. 2011). Jobs
of other VOs keep their places, and an owner's own jobs their order. Nothing that runs is taken away.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from services.scheduler import ceilings
from services.scheduler.ceilings import InUse
from services.scheduler.records import Job
from shared.contracts.commands import Principal
from shared.contracts.policies import Ceiling

Waiting = tuple[Job, str]
"""A job and its shape."""


def in_turn(queue: Iterable[Waiting], shared: Mapping[str, Ceiling], use: Callable[[], InUse]) -> Iterator[Waiting]:
    """The queue in the order in which to place. `shared`: the ceilings of VOs that have one; `use` is asked for each
    job, so that what was placed a moment ago counts.
    """
    if not shared:
        yield from queue
        return
    jobs = list(queue)
    owners: dict[tuple[str, int], dict[tuple[str, str], deque[Waiting]]] = {}
    for job, shape in jobs:
        group = owners.setdefault((job.spec.vo, job.spec.priority), {})
        group.setdefault((job.owner.issuer, job.owner.subject), deque()).append((job, shape))
    for job, shape in jobs:
        vo, group = job.spec.vo, owners[job.spec.vo, job.spec.priority]
        if vo not in shared:
            yield job, shape
            continue
        now, ceiling = use(), shared[vo]
        who = min(group, key=lambda who: _share(now, vo, group[who][0][0].owner, ceiling))
        yield group[who].popleft()
        if not group[who]:
            del group[who]


def _share(use: InUse, vo: str, owner: Principal, ceiling: Ceiling) -> float:
    """The largest share that an owner has of anything that the ceiling bounds."""
    return max(ceilings.shares(use.of(vo, owner), ceiling), default=0.0)
