"""Carrying out decisions: saves the job, publishes its events, keeps the owed calls, records the spans.

The one shell around `jobs.decide`, used by message handlers and the leader's loops inside their transactions. Decides
nothing itself.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from services.scheduler import jobs, queueing, store
from services.scheduler.deadlines import Graces
from services.scheduler.decisions import (
    Call,
    Decision,
    Drop,
    Effect,
    Finished,
    Input,
    Owe,
    Phase,
    StopStray,
    StrayEnded,
    Tell,
)
from services.scheduler.jobs import Rules
from services.scheduler.records import Job, Standing
from services.scheduler.stuck import Stuck
from services.scheduler.wakes import Wakes
from shared.contracts.commands import SubmitJob
from shared.contracts.reasons import Reason
from shared.ids import JobId
from shared.job import FINAL_JOB_STATES, JobState
from shared.runtime import logs
from shared.runtime.telemetry import Tracer
from shared.runtime.transactions import Unit

log = logs.get("scheduler.keeping")


class Keeper:
    """Turns decisions into rows and messages."""

    def __init__(self, rules: Rules, graces: Graces, tracer: Tracer, wakes: Wakes, rng: random.Random) -> None:
        self.graces = graces
        self.wakes = wakes
        self.stuck = Stuck()
        self._rules = rules
        self._tracer = tracer
        self._rng = rng

    def accept(self, unit: Unit, command: SubmitJob, turn: int, *, client: str = "", token_id: str = "") -> Job:
        """A new job enters the queue; `client` and `token_id` as its grant names them."""
        shape = queueing.shape_of(command.spec)
        why = self.stuck.last_heard(command.owner, shape)
        job = self._insert(
            unit, jobs.submitted(command, turn, unit.now, client=client, token_id=token_id, why=why)
        )  # fmt: skip
        unit.after_commit(lambda: self._queued(job, shape))
        return job

    def _queued(self, job: Job, shape: str) -> None:
        if self.stuck.why(job.owner, shape) is None:
            self.wakes.queued()

    def reject(self, unit: Unit, command: SubmitJob, reason: Reason) -> Job:
        """A new job that may not run, kept with its end."""
        return self._insert(unit, jobs.rejected(command, reason, unit.now))

    def tell(self, unit: Unit, job: Job, told: Input) -> Job:
        """Decide what follows from `told` and carry it out. The job was read in this transaction, or is `unchanged`."""
        decision = jobs.decide(job, told, unit.now, self._rules, self._rng.random())
        if decision.job != job:
            unit.at_end(store.save(unit.connection, job, decision.job, self.graces))
        for effect in decision.effects:
            self._carry_out(unit, decision.job, effect)
        self._wake(unit, job, decision.job)
        return decision.job

    def unchanged(self, unit: Unit, read: Sequence[Job]) -> list[Job]:
        """Those of the jobs, read before this transaction, that nobody has changed meanwhile."""
        same = store.unchanged(unit.connection, read)
        for job in read:
            if job.id not in same:
                log.info("overtaken", job_id=str(job.id))
        return [job for job in read if job.id in same]

    def _insert(self, unit: Unit, decision: Decision) -> Job:
        store.insert_job(unit.connection, decision.job, self.graces)
        for effect in decision.effects:
            self._carry_out(unit, decision.job, effect)
        return replace(decision.job, revision=store.FIRST_REVISION)

    def _carry_out(self, unit: Unit, job: Job, effect: Effect) -> None:
        match effect:
            case Tell(event):
                unit.emit(event)
            case Owe(call, number):
                assert job.attempt is not None
                store.owe(
                    unit.connection, job.id, number, call, cluster=job.attempt.cluster,
                    namespace=job.attempt.namespace, now=unit.now,
                )  # fmt: skip
                unit.after_commit(partial(self.wakes.owed, job.attempt.cluster))
            case Drop(call, number):
                store.drop_owed(unit.connection, job.id, number, call)
            case StopStray():
                self.stop_stray(unit, job.id, effect)
            case StrayEnded(number):
                self._stray_ended(unit, job, number)
            case Phase() | Finished():
                unit.after_commit(lambda: self._span(job, effect))

    def stop_stray(self, unit: Unit, job_id: JobId, stray: StopStray) -> None:
        """Owe the stop of an attempt that is not current, unless it ended after the sight of it."""
        found = store.attempt(unit.connection, job_id, stray.number)
        if found is None or (found.standing is Standing.ENDED and stray.sequence <= found.seen):
            return
        log.warning("stray", job_id=str(job_id), attempt=stray.number, site=found.site, cause=unit.cause)
        store.set_standing(unit.connection, job_id, stray.number, Standing.ABANDONED, unit.now)
        store.owe(
            unit.connection, job_id, stray.number, Call.CLOSE, cluster=found.cluster, namespace=found.namespace,
            now=unit.now,
        )  # fmt: skip
        unit.after_commit(partial(self.wakes.owed, found.cluster))

    def _stray_ended(self, unit: Unit, job: Job, number: int) -> None:
        found = store.attempt(unit.connection, job.id, number) if job.spec.secrets else None
        if found is not None:
            store.owe(
                unit.connection, job.id, number, Call.FORGET, cluster=found.cluster, namespace=found.namespace,
                now=unit.now,
            )  # fmt: skip
            unit.after_commit(partial(self.wakes.owed, found.cluster))
        store.drop_owed(unit.connection, job.id, number, Call.CLOSE)
        store.set_standing(unit.connection, job.id, number, Standing.ENDED, unit.now)
        unit.after_commit(self.wakes.room)

    def _wake(self, unit: Unit, before: Job, after: Job) -> None:
        if after.state is JobState.QUEUED and before.state is not JobState.QUEUED:
            unit.after_commit(self.wakes.queued)
        if before.attempt is not None and before.attempt.standing is not Standing.ENDED:
            freed = after.attempt is not None and after.attempt.standing is Standing.ENDED
            if freed or after.state in FINAL_JOB_STATES:
                unit.after_commit(self.wakes.room)

    def _span(self, job: Job, ended: Phase | Finished) -> None:
        if isinstance(ended, Finished):
            attributes = {"serai.vo": job.spec.vo, "serai.state": job.state.value, "serai.attempts": job.number}
            error = job.reason.message if job.reason and job.state is JobState.FAILED else ""
            self._tracer.record_root(
                "job", job_id=job.id, start=ended.start, end=ended.end, attributes=attributes, error=error
            )
            return
        site = {"serai.site": ended.site} if ended.site else {}
        self._tracer.record(
            f"job.{ended.name}", job_id=job.id, start=ended.start, end=ended.end,
            attributes={"serai.attempt": ended.attempt, **site},
        )  # fmt: skip
