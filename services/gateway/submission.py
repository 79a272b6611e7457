"""Taking jobs in: grant, then job, idempotency key and outgoing command in one transaction, then 202.

Called by the routes that take jobs. Whatever fails before the commit leaves nothing behind.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from services.gateway import granting, job_view, keeping, store
from services.gateway.access import Caller
from services.gateway.backlog import Backlog
from services.gateway.granting import Granting
from services.gateway.job_view import JobView
from services.gateway.keeping import Keeping, Key, Outgoing, Wanted
from services.gateway.pacing import Pace
from services.gateway.store import HotRow, NewJob
from shared import ids
from shared.contracts import codec
from shared.contracts.commands import SubmitJob
from shared.contracts.envelope import Message
from shared.contracts.policies import demand_of
from shared.contracts.questions import GrantAnswer
from shared.errors import Conflict
from shared.job import JobSpec
from shared.ports import Clock
from shared.runtime.preconditions import ALWAYS, Condition, etag
from shared.runtime.transactions import Transactions, Unit

SOURCE: Final = "gateway"
_BREATH: Final = 32
"""Jobs of a batch made ready without a break for other requests."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that is in. `new` is false when it was in already: the same request came again."""

    job_id: UUID
    version: int
    body: bytes
    new: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """A job that only needs its grant: command, the exact bytes to be granted, and what is stored."""

    command: SubmitJob
    body: bytes
    view: JobView
    spec: bytes

    def row(self) -> NewJob:
        """What `store.add_jobs` takes."""
        return store.new_job(self.view, self.spec)

    def message(self, grant: str) -> Message:
        """The command to send; its id follows from the job's, so that it has one effect."""
        job_id = self.command.job_id
        return codec.command_message(
            SubmitJob, self.body, id=str(ids.command_id(SubmitJob.kind, str(job_id))), source=SOURCE,
            time=self.command.submitted_at, subject=str(job_id), grant=grant, traceparent=ids.traceparent(job_id),
        )  # fmt: skip


Granted = tuple[Ready, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """A job that is there already, and the digest of its content."""

    row: HotRow
    digest: str


def request_hash(method: str, path: str, body: bytes) -> str:
    """SHA-256 (hex) of what makes two requests the same."""
    return hashlib.sha256(f"{method} {path}\n".encode() + body).hexdigest()


def ready(job_id: UUID, caller: Caller, spec: JobSpec, now: datetime) -> Ready:
    """A job made ready to be granted and stored."""
    command = SubmitJob(job_id=job_id, owner=caller.context.principal, spec=spec, submitted_at=now)
    return Ready(command, codec.command_body(command), job_view.accepted(command), job_view.spec_document(spec))


class Submission:
    """Takes jobs in, one or many at a time."""

    def __init__(
        self, transactions: Transactions, granting: Granting, backlog: Backlog, pace: Pace, clock: Clock,
        new_id: Callable[[], UUID],
    ) -> None:  # fmt: skip
        self._transactions = transactions
        self._keeping = Keeping(transactions)
        self._granting = granting
        self._backlog = backlog
        self._pace = pace
        self._clock = clock
        self._new_id = new_id

    async def answered(self, caller: Caller, key: Key | None) -> bytes | None:
        """What was answered to this very request before. Raises Conflict when the key was used for another one."""
        if key is None:
            return None
        return await self._transactions.store.read(lambda connection: keeping.earlier_answer(connection, caller, key))

    async def submit(self, caller: Caller, spec: JobSpec, key: Key | None) -> Taken:
        """Take in one job under an id of ours. The same request with the same key gives the first job again."""
        before = await self.answered(caller, key)
        if before is not None:
            return await self._as_it_is(before)
        caller.must_belong_to(spec.vo)
        await self._backlog.check()
        self._pace.jobs(caller.bucket, {spec.vo: 1})
        job = ready(self._new_id(), caller, spec, self._clock())
        grant = granting.granted((await self._grants(caller, [job]))[0])
        new, answer = job.row(), str(job.command.job_id).encode()
        raced = await self._keeping.keep(Wanted(caller, key, answer, [(new, job.message(grant))]))
        return _taken(job, new) if raced is None else await self._as_it_is(raced)

    async def put(self, caller: Caller, job_id: UUID, spec: JobSpec, condition: Condition = ALWAYS) -> Taken:
        """Take in one job under the caller's id. The same content again changes nothing; another is a Conflict, and so
        is a job that is not as `condition` says. That an id stands for somebody else's job is told only to who could
        have handed in one under it.
        """
        known = await self._transactions.store.read(lambda connection: _known(connection, job_id))
        if known is not None and caller.sight.owns(known.row.owner_issuer, known.row.owner_subject):
            return _same_content(known, caller, job_id, spec, condition)
        condition.check(None)
        caller.must_belong_to(spec.vo)
        await self._backlog.check()
        self._pace.jobs(caller.bucket, {spec.vo: 1})
        job = ready(job_id, caller, spec, self._clock())
        grant = granting.granted((await self._grants(caller, [job]))[0])
        new, message = job.row(), job.message(grant)
        raced = await self._transactions.run(lambda unit: _put(unit, job_id, (new, message)))
        return _taken(job, new) if raced is None else _same_content(raced, caller, job_id, spec, condition)

    async def submit_all(self, caller: Caller, specs: Sequence[JobSpec]) -> list[tuple[Ready, GrantAnswer]]:
        """Make many jobs ready and ask for all their grants in one question."""
        await self._backlog.check()
        self._pace.jobs(caller.bucket, Counter(spec.vo for spec in specs))
        jobs = []
        for index, spec in enumerate(specs):
            if index % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            jobs.append(ready(self._new_id(), caller, spec, self._clock()))
        return list(zip(jobs, await self._grants(caller, jobs), strict=True)) if jobs else []

    async def keep_all(self, caller: Caller, key: Key | None, answer: bytes, jobs: Sequence[Granted]) -> bytes | None:
        """Store granted jobs with the batch's answer; the earlier answer when another request was faster."""
        outgoing: list[Outgoing] = []
        for index, (job, grant) in enumerate(jobs):
            if index % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            outgoing.append((job.row(), job.message(grant)))
        return await self._keeping.keep(Wanted(caller, key, answer, outgoing))

    async def _grants(self, caller: Caller, jobs: Sequence[Ready]) -> Sequence[GrantAnswer]:
        items = [
            granting.item_for(SubmitJob, job.body, job.command.spec.vo, demand=demand_of(job.command.spec))
            for job in jobs
        ]
        return await self._granting.ask(caller.token, items)

    async def _as_it_is(self, job_id: bytes) -> Taken:
        """The job that an earlier request with the same key made, as it is now."""
        key = job_id.decode()
        row = await self._transactions.store.read(lambda connection: store.hot_row(connection, key))
        if row is None:
            raise Conflict(
                f"the Idempotency-Key belongs to job {key}, which is not kept any more; use a new key",
                code="idempotency_key_reused",
            )
        return Taken(UUID(key), row.version, bytes(row.body), new=False)


def _put(unit: Unit, job_id: UUID, outgoing: Outgoing) -> _Known | None:
    known = _known(unit.connection, job_id)
    if known is None:
        new, message = outgoing
        store.add_jobs(unit.connection, [new])
        unit.send(message)
    return known


def _known(connection: Connection, job_id: UUID) -> _Known | None:
    row = store.hot_row(connection, str(job_id))
    spec = store.spec_of(connection, str(job_id))
    return None if row is None or spec is None else _Known(row, spec[1])


def _same_content(known: _Known, caller: Caller, job_id: UUID, spec: JobSpec, condition: Condition) -> Taken:
    row = known.row
    owned = caller.sight.owns(row.owner_issuer, row.owner_subject)
    if owned:
        condition.check(etag(row.version))
    if not owned or known.digest != job_view.digest_of(job_view.spec_document(spec)):
        raise Conflict(
            f"the id {job_id} stands for another job already; use a fresh UUID for a new job", code="job_id_taken"
        )
    return Taken(job_id, row.version, bytes(row.body), new=False)


def _taken(job: Ready, new: NewJob) -> Taken:
    return Taken(job.command.job_id, job.view.version, new.body, new=True)
