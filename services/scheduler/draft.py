"""A decision while it is being made: the job so far and the effects so far. Pure; used by `jobs.py` and its parts."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from services.scheduler import lifecycle
from services.scheduler.decisions import Call, Decision, Drop, Effect, Finished, Owe, Phase, Tell
from services.scheduler.lifecycle import JobStep
from services.scheduler.records import Attempt, GivingUp, Job, Standing
from shared.contracts.events import JobEnded, JobEvent
from shared.contracts.reasons import Reason
from shared.job import JobState

PHASES = {
    JobState.QUEUED: "queued",
    JobState.PLACED: "placing",
    JobState.STARTING: "starting",
    JobState.RUNNING: "running",
    JobState.CANCELLING: "cancelling",
}
"""Names of the spans, by the state that has ended."""


class Draft:
    """Changes are made through these methods only, so that every event is numbered and every phase is closed."""

    def __init__(self, job: Job, now: datetime) -> None:
        self.job = job
        self.now = now
        self.effects: list[Effect] = []

    @property
    def attempt(self) -> Attempt:
        """The latest attempt; only asked where there is one."""
        assert self.job.attempt is not None
        return self.job.attempt

    def decision(self) -> Decision:
        return Decision(self.job, tuple(self.effects))

    def set(self, **fields: Any) -> None:
        self.job = replace(self.job, **fields)

    def set_attempt(self, **fields: Any) -> None:
        self.job = replace(self.job, attempt=replace(self.attempt, **fields))

    def step(self, what: JobStep) -> bool:
        """Move along the table; False when the step is to be ignored."""
        target = lifecycle.step(self.job.state, what)
        if target is None:
            return False
        if target is not self.job.state:
            self._close_phase()
            self.set(state=target, phase_since=self.now)
        return True

    def tell(self, kind: type[JobEvent], reason: Reason | None = None, **fields: Any) -> None:
        """Publish the job's next event; `reason` becomes the job's own."""
        job = self.job
        self.set(sequence=job.sequence + 1, reason=reason, told_at=self.now)
        event = kind(
            job_id=job.id, vo=job.spec.vo, owner=job.owner, name=job.spec.name, sequence=job.sequence + 1,
            attempt=job.number, site=self._site(), reason=reason, **fields,
        )  # fmt: skip
        self.effects.append(Tell(event))

    def end(self, what: JobStep, kind: type[JobEnded], reason: Reason, **fields: Any) -> None:
        """The job's last step and event; nothing happens when the table ignores the step."""
        if not self.step(what):
            return
        outcome = self.job.attempt.outcome if self.job.attempt else None
        exit_code = outcome.exit_code if outcome else None
        self.set(ended_at=self.now, exit_code=exit_code, not_before=None)
        self.tell(kind, reason, exit_code=exit_code, **fields)
        self.effects.append(Finished(self.job.submitted_at, self.now))

    def owe(self, call: Call) -> None:
        self.effects.append(Owe(call, self.attempt.number))

    def drop(self, call: Call) -> None:
        self.effects.append(Drop(call, self.attempt.number))

    def close_attempt(self, why: GivingUp) -> None:
        """Begin to give the attempt up: never register it again, and close its id."""
        self.set_attempt(standing=Standing.CLOSING, giving_up=why, closing_at=self.now)
        self.drop(Call.SUBMIT)
        self.owe(Call.CLOSE)

    def leave_attempt(self, *, ended: bool) -> None:
        """The job goes on without the attempt: it is over, or (not `ended`) its stop stays owed."""
        self.drop(Call.SUBMIT)
        if ended:
            self.set_attempt(standing=Standing.ENDED, ended_at=self.attempt.ended_at or self.now)
            self.drop(Call.CLOSE)
            if self.job.spec.secrets:
                self.owe(Call.FORGET)
        else:
            self.set_attempt(standing=Standing.ABANDONED)
            self.owe(Call.CLOSE)

    def _site(self) -> str | None:
        return self.job.attempt.site if self.job.attempt and self.job.state is not JobState.QUEUED else None

    def _close_phase(self) -> None:
        name = PHASES.get(self.job.state)
        if name is not None:
            self.effects.append(Phase(name, self.job.phase_since, self.now, self.job.number, self._site()))
