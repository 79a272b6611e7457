"""Finding one job for one caller. What is hidden and what is absent get the same answer, to the byte."""

from uuid import UUID

from services.gateway import store
from services.gateway.access import Caller
from services.gateway.job_view import JobView
from services.gateway.store import HotRow
from shared.errors import NotFound
from shared.ports import Store


def absent() -> NotFound:
    return NotFound(
        "there is no job with this id that you may see; `GET /v1/jobs` lists those that there are", code="not_found"
    )


def job_id_of(text: str) -> UUID:
    """The id in a path. Raises NotFound: what is no UUID names no job."""
    try:
        id = UUID(text)
    except ValueError:
        raise absent() from None
    if str(id) != text.lower():
        raise absent()
    return id


def _sees(caller: Caller, job_id: UUID, row: HotRow) -> bool:
    """A running job sees itself; that it is that job, and lives, was asked before (`reporting.py`)."""
    if caller.workload is not None:
        return caller.workload.job.startswith(f"{job_id}-")
    return caller.sight.sees(row.vo, row.owner_issuer, row.owner_subject)


class Lookup:
    """Point reads of jobs, seen with the caller's eyes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def row(self, caller: Caller, job_id: UUID) -> HotRow:
        """The ready-made document with what it hangs on. Raises NotFound."""
        key = str(job_id)
        row = await self._store.read(lambda connection: store.hot_row(connection, key))
        if row is None or not _sees(caller, job_id, row):
            raise absent()
        return row

    async def view(self, caller: Caller, job_id: UUID) -> JobView:
        """The view of a job. Raises NotFound."""
        return JobView.model_validate_json((await self.row(caller, job_id)).body)

    async def spec(self, caller: Caller, job_id: UUID) -> bytes:
        """The full spec of a job of one's own, as JSON. Raises NotFound."""
        row = await self.row(caller, job_id)
        found = await self._store.read(lambda connection: store.spec_of(connection, str(job_id)))
        if found is None or not caller.sight.owns(row.owner_issuer, row.owner_subject):
            raise absent()
        return found[0]
