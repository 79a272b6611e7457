"""What was seen of one attempt at its site, folded small: the newest state of each thing, whatever the order of sight.

Pure. Folding is idempotent and takes the higher ModifyIndex, so late, doubled and re-sent lines change nothing.
`verdicts.py` judges one allocation, `attempts.py` the whole; nobody else reads this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from shared.contracts.reasons import Reason, ReasonCode, because
from shared.engine import AllocationSeen, EvaluationSeen, JobSeen, PlacementFailure, Seen, TaskEventSeen, TaskSeen

CLIENT_TERMINAL: Final = frozenset({"complete", "failed", "lost"})
"""Client statuses from which nothing runs any more (only a node that comes back may take a `lost` back)."""

TOMBSTONE_KEY: Final = "serai_tombstone"

FETCH_TROUBLE: Final = frozenset({"Failed Artifact Download"})
START_TROUBLE: Final = frozenset(
    {"Driver Failure", "Setup Failure", "Failed Validation", "Template", "Task hook failed"}
)
_DRIVER_WORDS: Final = ("driver_error", "download_error", "setup_error", "validation_error", "failed_reason")


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """How the last life of a task went; the ring of ten events that Nomad keeps shows no more for sure.

    `exit_code` is None while it lives, or where Nomad lost track of it (-1: `unseen`). `killed` = somebody ended this
    life.
    """

    name: str
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    signal: int = 0
    out_of_memory: bool = False
    killed: bool = False
    unseen: bool = False
    trouble: str = ""
    """Type of the event that tells why it could not start."""
    words: str = ""


@dataclass(frozen=True, slots=True)
class AllocationEvidence:
    """The newest state of an allocation. `ended_index` is where it was first seen client-terminal; times in ns."""

    id: str
    index: int
    created: int
    node: str = ""
    desired: str = "run"
    desired_words: str = ""
    client: str = "pending"
    client_words: str = ""
    previous: str = ""
    next: str = ""
    followup: str = ""
    timeout: bool = False
    migrating: bool = False
    preempted: bool = False
    modified_at: int = 0
    ended_index: int | None = None
    ports: tuple[tuple[str, str, int], ...] = ()
    tasks: tuple[TaskEvidence, ...] = ()

    @property
    def ended(self) -> bool:
        return self.client in CLIENT_TERMINAL


@dataclass(frozen=True, slots=True)
class JobEvidence:
    """The newest state of the Nomad job. `deleted` is only a hint: whether it is gone must be proven."""

    index: int = -1
    status: str = ""
    stop: bool = False
    deleted: bool = False
    service: bool | None = None
    closed: bool = False
    """Its id is held by a tombstone of the scheduler: what was under it is gone, and nothing will come."""

    @property
    def dead(self) -> bool:
        return self.status == "dead"


@dataclass(frozen=True, slots=True)
class Blocking:
    """Why Nomad cannot place it now, after the newest evaluation that said so or that ended such a one."""

    key: str = ""
    index: int = -1
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one attempt at its site."""

    allocations: Mapping[str, AllocationEvidence] = field(default_factory=dict)
    job: JobEvidence = JobEvidence()
    blocking: Blocking = Blocking()

    @property
    def current(self) -> list[AllocationEvidence]:
        """The allocations that no other has replaced, oldest first."""
        replaced = {allocation.previous for allocation in self.allocations.values()}
        open_ones = (one for one in self.allocations.values() if not one.next and one.id not in replaced)
        return sorted(open_ones, key=lambda one: (one.created, one.id))

    @property
    def newest(self) -> AllocationEvidence | None:
        """The allocation that was made last."""
        return max(self.allocations.values(), key=lambda one: (one.created, one.id), default=None)


def fold(evidence: Evidence, seen: Seen) -> Evidence:
    """The evidence with one more sight; the same object when that told nothing new. Nodes tell nothing here."""
    match seen:
        case AllocationSeen():
            return _fold_allocation(evidence, seen)
        case JobSeen():
            job = _fold_job(evidence.job, seen)
            return evidence if job == evidence.job else replace(evidence, job=job)
        case EvaluationSeen():
            blocking = _fold_evaluation(evidence.blocking, seen)
            return evidence if blocking is evidence.blocking else replace(evidence, blocking=blocking)
    return evidence


def present_after_all(evidence: Evidence) -> Evidence:
    """The job was proven to be there: a hint that it is deleted was old or wrong."""
    return replace(evidence, job=replace(evidence.job, deleted=False))


# -- allocations --------------------------------------------------------------------------------------------------


def _fold_allocation(evidence: Evidence, seen: AllocationSeen) -> Evidence:
    known = evidence.allocations.get(seen.id)
    folded = allocation_evidence(seen) if known is None else _merged(known, seen)
    if folded == known:
        return evidence
    return replace(evidence, allocations={**evidence.allocations, seen.id: folded})


def _merged(known: AllocationEvidence, seen: AllocationSeen) -> AllocationEvidence:
    """Rows of listings lack marks that stream lines have, and Nomad forgets some after a restart: marks stay."""
    fresh = allocation_evidence(seen)
    newer, older = (fresh, known) if fresh.index > known.index else (known, fresh)
    return replace(
        newer,
        previous=newer.previous or older.previous,
        next=newer.next or older.next,
        timeout=newer.timeout or older.timeout,
        migrating=newer.migrating or older.migrating,
        preempted=newer.preempted or older.preempted,
        ports=newer.ports or older.ports,
        tasks=newer.tasks or older.tasks,
        ended_index=min((i for i in (newer.ended_index, older.ended_index) if i is not None), default=None),
    )


def allocation_evidence(seen: AllocationSeen) -> AllocationEvidence:
    """What one sight of an allocation says by itself."""
    return AllocationEvidence(
        id=seen.id, index=seen.modify_index, created=seen.create_index, node=seen.node_name,
        desired=seen.desired_status, desired_words=seen.desired_description,
        client=seen.client_status, client_words=seen.client_description,
        previous=seen.previous_allocation, next=seen.next_allocation, followup=seen.followup_eval_id,
        timeout=_out_of_time(seen), migrating=seen.migrating, preempted=seen.preempted,
        modified_at=seen.modify_time, ports=seen.ports,
        ended_index=seen.modify_index if seen.client_status in CLIENT_TERMINAL else None,
        tasks=tuple(task_evidence(task) for task in seen.tasks),
    )  # fmt: skip


def _out_of_time(seen: AllocationSeen) -> bool:
    """After an agent's restart only the `Killing` event still says so (reference: nomad-verified, h)."""
    said = (seen.client_description, seen.timeout_reason, *(e.message for t in seen.tasks for e in t.events))
    details = (value for t in seen.tasks for e in t.events if e.type == "Killing" for value in e.details.values())
    return seen.timeout or any("max_run_duration" in words for words in (*said, *details))


def task_evidence(task: TaskSeen) -> TaskEvidence:
    """The last life of a task: what happened since it last started, or since it last tried to."""
    life = _last_life(task.events)
    ending = next((event for event in reversed(life) if event.type == "Terminated"), None)
    details = ending.details if ending else {}
    exit_code = _number(details.get("exit_code"))
    trouble = next((e for e in reversed(life) if e.type in FETCH_TROUBLE or e.type in START_TROUBLE), None)
    return TaskEvidence(
        name=task.name,
        started_at=task.started_at,
        finished_at=task.finished_at,
        exit_code=None if exit_code == -1 else exit_code,
        signal=_number(details.get("signal")) or 0,
        out_of_memory=details.get("oom_killed") == "true",
        killed=any(event.type in ("Killing", "Killed") for event in life),
        unseen=exit_code == -1,
        trouble=trouble.type if trouble else "",
        words=_words(trouble, ending),
    )


def _last_life(events: Sequence[TaskEventSeen]) -> Sequence[TaskEventSeen]:
    restarts = [place for place, event in enumerate(events) if event.type == "Restarting"]
    return events[restarts[-1] + 1 :] if restarts and restarts[-1] + 1 < len(events) else events


def _words(*events: TaskEventSeen | None) -> str:
    for event in events:
        if event is not None:
            said = next((event.details[name] for name in _DRIVER_WORDS if event.details.get(name)), event.message)
            return (said or event.type)[:1000]
    return ""


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


# -- job and evaluations ------------------------------------------------------------------------------------------


def _fold_job(known: JobEvidence, seen: JobSeen) -> JobEvidence:
    """Two lines may share an index: then the one that is not dead came later (an evaluation opened it again)."""
    deleted, service = known.deleted or seen.deleted, seen.type != "batch"
    newer = seen.modify_index > known.index or (seen.modify_index == known.index and known.dead)
    if not newer:
        return replace(known, deleted=deleted)
    closed = known.closed or TOMBSTONE_KEY in seen.meta
    return JobEvidence(seen.modify_index, seen.status, seen.stop, deleted, service, closed)


def _fold_evaluation(known: Blocking, seen: EvaluationSeen) -> Blocking:
    if seen.modify_index <= known.index:
        return known
    key = seen.blocked_eval or seen.id
    if seen.failures and seen.status != "canceled":
        return Blocking(key, seen.modify_index, blocked_because(seen.failures))
    if key == known.key and seen.status != "blocked":
        return Blocking(key, seen.modify_index, None)
    return known


def blocked_because(failures: Mapping[str, PlacementFailure]) -> Reason:
    """Nomad's FailedTGAllocs in words: full at the moment, or nothing there that fits at all."""
    exhausted = {
        f"exhausted_{name}": count
        for failure in failures.values()
        for name, count in failure.dimension_exhausted.items()
    }
    quotas = sorted({name for failure in failures.values() for name in failure.quota_exhausted})
    filtered = {
        name: count for failure in failures.values()
        for name, count in {**failure.constraint_filtered, **failure.class_filtered}.items()
    }  # fmt: skip
    if exhausted or quotas or any(failure.nodes_exhausted for failure in failures.values()):
        what = ", ".join([*sorted(name.removeprefix("exhausted_") for name in exhausted), *quotas]) or "room"
        return because(ReasonCode.WAITING_FOR_ROOM, f"The site has no node with enough {what} free now.", **exhausted)
    if filtered:
        why = "; ".join(f"{name} ({count})" for name, count in sorted(filtered.items()))
        return because(ReasonCode.NO_SITE_FITS, f"Every node of the site is ruled out: {why}.")
    return because(ReasonCode.NO_SITE_FITS, "The site has no usable node in the datacenters of the job.")


# -- as JSON ------------------------------------------------------------------------------------------------------


def from_json(data: Mapping[str, Any]) -> Evidence:
    """The inverse of `orjson.dumps(evidence)`; reasons are pydantic values and come as their own dump."""
    blocking = data["blocking"]
    reason = blocking["reason"]
    return Evidence(
        allocations={id: _allocation_from(row) for id, row in data["allocations"].items()},
        job=JobEvidence(**data["job"]),
        blocking=Blocking(blocking["key"], blocking["index"], None if reason is None else Reason(**reason)),
    )


def _allocation_from(row: Mapping[str, Any]) -> AllocationEvidence:
    ports = tuple((label, host, port) for label, host, port in row["ports"])
    return AllocationEvidence(**{**row, "ports": ports, "tasks": tuple(TaskEvidence(**task) for task in row["tasks"])})
