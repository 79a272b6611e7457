"""Reading a cluster's stream without silent gaps: the resume test, and what to believe when attempts are missing. Pure.

Nomad's stream is a hint, its listings are the truth (reference: nomad.md, 1.2 and 2). The watcher asks here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.monitor.attempts import AttemptRecord
from shared.engine import AllocationSeen, EvaluationSeen, JobSeen, Line, Listing, Seen
from shared.ids import AttemptId, attempt_of

Sights = dict[AttemptId, list[Seen]]


class Resumed(StrEnum):
    """What the first line after a reconnect says about the time in between."""

    SAME = "same"
    """The last line came again: nothing was missed."""
    GAP = "gap"
    """Lines were pruned, or there is none: list."""
    BEHIND = "behind"
    """The server is behind us or its state was reset: list, and believe the listing's index."""


def resumed(checkpoint: int, first: int | None) -> Resumed:
    """The gap test after a reconnect at `checkpoint` (inclusive, as Nomad does it); None = no line came in time."""
    if first is None or first > checkpoint:
        return Resumed.GAP
    return Resumed.SAME if first == checkpoint else Resumed.BEHIND


def position_after(checkpoint: int, indexes: Iterable[int]) -> int:
    """The checkpoint after lines of these indexes; a server that is behind never moves it back."""
    return max(checkpoint, *indexes)


def began_anew(checkpoint: int, verdict: Resumed, listing: Listing) -> bool:
    """Whether the cluster's indexes began anew, so that the checkpoint means nothing: neither stream nor listing
    reach it. (A listing alone proves nothing: its own index is that of its quietest table.)"""
    rows: tuple[Seen, ...] = (*listing.jobs, *listing.allocations, *listing.evaluations, *listing.nodes)
    highest = max((listing.index, *(row.modify_index for row in rows)))
    return listing.known_leader and verdict is not Resumed.SAME and highest < checkpoint


def by_attempt(seen: Iterable[Seen], id_of: Callable[[str], AttemptId | None] = attempt_of) -> Sights:
    """The sights of attempts, by attempt; whatever has a job id that is not in our form is somebody else's."""
    found: Sights = {}
    for one in seen:
        if isinstance(one, AllocationSeen | EvaluationSeen):
            attempt = id_of(one.job_id)
        elif isinstance(one, JobSeen):
            attempt = id_of(one.id)
        else:
            continue
        if attempt is not None:
            found.setdefault(attempt, []).append(one)
    return found


def is_urgent(line: Line) -> bool:
    """Whether somebody waits for what a line tells: how an allocation is, or that a job is gone."""
    return any(isinstance(one, AllocationSeen) or (isinstance(one, JobSeen) and one.deleted) for one in line.seen)


def changed_since(listing: Listing, index: int) -> Sights:
    """The sights of a listing, by attempt, where anything changed after `index`: the rest was folded before."""
    everything = by_attempt((*listing.jobs, *listing.evaluations, *listing.allocations))
    return {attempt: seen for attempt, seen in everything.items() if any(one.modify_index > index for one in seen)}


# -- what is missing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VanishRule:
    """How many attempts of a site, and of all of its cluster, may vanish together and be believed: few, or a part."""

    few: int = 5
    share: float = 0.2


def missing(before: Iterable[AttemptRecord], listing: Listing) -> list[AttemptRecord]:
    """Attempts that lived before the listing was asked for, and that it does not show."""
    shown = {job.id for job in listing.jobs}
    return [record for record in before if record.live and record.identity.attempt.nomad_id not in shown]


def believable(
    gone: Sequence[AttemptRecord], living: Mapping[str, int], rule: VanishRule, lately: Mapping[str, int] | None = None
) -> dict[str, bool]:
    """By site, whether its vanished attempts are believed.

    `living` counts the live ones by site of one cluster, those included; `lately` what vanished just before. A narrowed
    token or a wiped cluster must not look like a mass death; both take from all of a cluster's sites together.
    """
    counts = Counter(record.identity.site for record in gone)
    before = Counter(lately or {})
    few_in_all = _few(counts.total(), before.total(), sum(living.values()), rule)
    return {site: few_in_all and _few(count, before[site], living.get(site, 0), rule) for site, count in counts.items()}


def _few(gone: int, lately: int, living: int, rule: VanishRule) -> bool:
    return gone + lately <= max(rule.few, rule.share * (living + lately))


def running_ids(listing: Listing) -> list[str]:
    """Ids of attempts that run at the cluster, or may yet, and that nobody has told to stop."""
    active = {a.job_id for a in listing.allocations if a.desired_status == "run" and a.client_status in _ALIVE}
    alive = (job.id for job in listing.jobs if not job.stop and (job.id in active or job.status != "dead"))
    return sorted(id for id in alive if attempt_of(id) is not None)


_ALIVE = frozenset({"pending", "running", "unknown"})
