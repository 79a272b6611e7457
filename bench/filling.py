"""Puts many finished jobs into a gateway's database, by the gateway's own statements, while no platform uses it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from services.gateway import job_view, store
from services.gateway.store import NewJob
from shared.adapters.sqlite import open_store
from shared.contracts.commands import Principal, SubmitJob
from shared.ids import new_job_id
from shared.job import JobSpec, JobState

VO: Final = "vo.climate.example"
_PAGE: Final = 1000


def fill(file: Path, owner: Principal, count: int) -> None:
    """Add `count` jobs of one owner: 1 in 50 failed, 1 in 50 has the label `kind:rare`, the others succeeded."""
    asyncio.run(_fill(file, owner, count))


async def _fill(file: Path, owner: Principal, count: int) -> None:
    opened = await open_store(file, "services.gateway.migrations")
    try:
        for first in range(0, count, _PAGE):
            rows = [_job(owner, number) for number in range(first, min(count, first + _PAGE))]
            await opened.transact(lambda connection, rows=rows: store.add_jobs(connection, rows))  # type: ignore[misc]
    finally:
        await opened.close()


def _job(owner: Principal, number: int) -> NewJob:
    labels = {"batch": "bench", "kind": "rare" if number % 50 == 7 else "usual"}
    spec = JobSpec(name=f"stored-{number}", vo=VO, command=("/bin/true",), labels=labels)
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    command = SubmitJob(job_id=new_job_id(), owner=owner, spec=spec, submitted_at=at)
    state = JobState.FAILED if number % 50 == 11 else JobState.SUCCEEDED
    view = job_view.accepted(command).model_copy(update={"state": state, "finished_at": at, "version": 5})
    return store.new_job(view, job_view.spec_document(spec))
