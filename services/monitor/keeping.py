"""What is kept of an attempt when it has ended, and when to try again. Pure; `collecting.py` fetches and stores."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.monitor.attempts import AttemptRecord
from services.monitor.evidence import AllocationEvidence

STREAMS: Final = ("stdout", "stderr")
TASK: Final = "main"
"""The adapter's one task (shared/adapters/nomad/specification.py)."""
WORKING_FOLDER: Final = f"{TASK}/local"


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """Bytes of a log's tail and of one output; seconds to go on trying."""

    log_bytes: int = 256 * 1024
    output_bytes: int = 1024 * 1024
    first_retry_s: float = 1.0
    most_retry_s: float = 300.0
    give_up_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Owed:
    """What is to be fetched of one ended attempt, from which allocation; outputs as (name, path in the allocation)."""

    job_id: str
    attempt: int
    cluster: str
    allocation: str
    task: str
    outputs: tuple[tuple[str, str], ...]
    since: datetime
    tries: int = 0


def owed_of(record: AttemptRecord, now: datetime) -> Owed | None:
    """What to keep of an attempt that has ended; None where nothing ever ran."""
    allocation = last_allocation(record)
    if allocation is None:
        return None
    identity = record.identity
    outputs = tuple((name, f"{WORKING_FOLDER}/{path}") for name, path in identity.outputs)
    return Owed(
        str(identity.attempt.job_id), identity.attempt.number, identity.cluster, allocation.id, task_of(allocation),
        outputs, now,
    )  # fmt: skip


def last_allocation(record: AttemptRecord) -> AllocationEvidence | None:
    """The allocation whose logs and outputs are the attempt's."""
    current = record.evidence.current
    return current[-1] if current else record.evidence.newest


def task_of(allocation: AllocationEvidence) -> str:
    return allocation.tasks[0].name if allocation.tasks else TASK


def next_try(owed: Owed, now: datetime, rules: KeepingRules) -> datetime | None:
    """When to try again after one more failure; None = give up, and say so."""
    pause = min(rules.first_retry_s * 2.0 ** min(owed.tries, 30), rules.most_retry_s)
    at = now + timedelta(seconds=pause)
    return at if at <= owed.since + timedelta(seconds=rules.give_up_s) else None


def tail(data: bytes, size: int, limit: int) -> tuple[int, bytes]:
    """(offset of its first byte, bytes) of the last `limit` bytes of a log that has `size` bytes in all."""
    kept = data[-limit:] if limit else b""
    return max(0, size - len(kept)), kept


def cut(start: int, data: bytes, *, offset: int = 0, last: int | None = None) -> bytes:
    """What a reader gets of a kept tail that begins at `start`: from byte `offset` of the whole, or its last bytes."""
    if last is not None:
        return data[-last:] if last else b""
    return data[max(0, offset - start) :]
