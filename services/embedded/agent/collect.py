"""Garbage collection of finished jobs: by age, by number, or at once when asked.

Acts on a `Region`. One line `JobBatchDeregistered` tells all jobs that went (versions before 1.11.3 tell nothing).
"""

from itertools import islice
from typing import TYPE_CHECKING

from .entities import JobKey
from .rows import EVAL_TERMINAL, is_client_terminal

if TYPE_CHECKING:
    from .region import Region

BATCH = 500
"""Jobs collected in one transaction: keeps the loop free."""


def schedule(region: "Region", now: int) -> None:
    """Collect again and again."""
    region.at(now + int(region.settings.gc_interval_s * 1e9), lambda at: _periodic(region, at))


def _periodic(region: "Region", now: int) -> None:
    collect(region, now, force=False)
    schedule(region, now)


def collect(region: "Region", now: int, *, force: bool) -> int:
    """Remove what is old enough (everything finished, when forced); the number of jobs."""
    oldest = now - int(region.settings.gc_after_s * 1e9)
    surplus = len(region.state.finished) - region.settings.max_finished_jobs
    keys = []
    for place, key in enumerate(islice(region.state.finished, None)):
        job = region.state.jobs[key]
        if not (force or place < surplus or job.finished_at <= oldest):
            break
        if _is_over(region, key):
            keys.append(key)
    for start in range(0, len(keys), BATCH):
        _remove(region, keys[start : start + BATCH], now)
    _drop_orphan_evals(region, now, 0 if force else oldest)
    return len(keys)


def trim(region: "Region", now: int) -> None:
    """Keep the number of finished jobs in bounds between two periodic rounds."""
    if len(region.state.finished) > region.settings.max_finished_jobs + BATCH:
        collect(region, now, force=False)


def _is_over(region: "Region", key: JobKey) -> bool:
    """Dead, and neither an allocation nor an evaluation is left open."""
    job = region.state.jobs[key]
    return not job.open and all(is_client_terminal(region.state.allocs[i].row) for i in job.allocs)


def _remove(region: "Region", keys: list[JobKey], now: int) -> None:
    txn = region.state.begin("JobBatchDeregistered", now)
    for key in keys:
        txn.drop_job(key, evals=True)
        region.blocked.pop(key, None)
    txn.commit()


def _drop_orphan_evals(region: "Region", now: int, oldest: int) -> None:
    """Evaluations of purged jobs, which no job row leads to."""
    state = region.state
    gone = [
        i for i, e in state.evals.items()
        if e["Status"] in EVAL_TERMINAL and state.job_of(e) is None and (not oldest or e["ModifyTime"] <= oldest)
    ]  # fmt: skip
    if gone:
        txn = state.begin("EvaluationDelete", now)
        for eval_id in gone:
            txn.drop_eval(eval_id)
        txn.commit()


def forget(region: "Region", key: JobKey, now: int) -> bool:
    """A fault: the row is gone and nobody was told, as with servers before 1.11.3."""
    if key not in region.state.jobs:
        return False
    txn = region.state.begin("JobBatchDeregistered", now)
    txn.drop_job(key, evals=True, silent=True)
    txn.commit()
    region.blocked.pop(key, None)
    return True
