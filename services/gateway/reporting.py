"""Running jobs that call with their own tokens: each is heard for exactly itself, while it runs, and not too often.

The scheduler knows which attempt lives, where and in which namespace; it is asked for every call. A report then goes
the way of every change: granted, and a command to the scheduler, which tells it as an event of the job.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from services.gateway import granting
from services.gateway.access import Caller
from services.gateway.granting import Granting
from shared import ids
from shared.contracts import codec
from shared.contracts.commands import ReportProgress
from shared.contracts.questions import SpeakAnswer, SpeakRequest, WorkloadIdentity
from shared.errors import Refused, TooMany
from shared.ports import Clock
from shared.runtime.questions import Questions
from shared.runtime.transactions import Transactions

SOURCE: Final = "gateway"
_SPARE: Final = 500
"""Reports of an attempt grow with its age no faster than one for each this part of it: a year gives some 5,000."""
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Progress:
    """What a task says of itself."""

    fraction: float | None
    message: str
    results: dict[str, float | int | bool | str]


def pause_s(age_s: float, every_s: float) -> float:
    """Seconds between two reports of an attempt that has run for so long. Pure."""
    return max(every_s, age_s / _SPARE)


class Reporting:
    """Answers jobs. `every_s`: see the setting `progress_every_s`."""

    def __init__(
        self, transactions: Transactions, granting: Granting, scheduler: Questions, clock: Clock, every_s: float
    ) -> None:
        self._transactions = transactions
        self._granting = granting
        self._scheduler = scheduler
        self._clock = clock
        self._every_s = every_s
        self._heard: OrderedDict[str, tuple[datetime, datetime]] = OrderedDict()
        """First and last report of an attempt."""

    async def speaking(self, workload: WorkloadIdentity, job_id: UUID) -> SpeakAnswer:
        """The attempt that a job's own token is of. Raises Refused (code `forbidden`) for any other job, and once it
        is over.
        """
        if workload.job[: -len("-001")] != str(job_id):
            raise _not_yours("it is another job's")
        question = SpeakRequest(job_id=job_id, workload=workload)
        answer = await self._scheduler.ask("POST", "/internal/attempts:speak", SpeakAnswer, body=question)
        if not answer.attempt:
            raise _not_yours(answer.why)
        return answer

    async def report(self, caller: Caller, job_id: UUID, progress: Progress) -> ReportProgress:
        """Take a report in: kept from now on, told as `job.progress` soon."""
        if caller.workload is None:
            raise Refused("progress is told by the job itself, with its own token (SERAI_TOKEN_FILE)", code="forbidden")
        speaking, now = await self.speaking(caller.workload, job_id), self._clock()
        self._pace(caller.workload.job, now)
        command = ReportProgress(
            job_id=job_id, attempt=speaking.attempt, vo=speaking.vo, reported_by=caller.context.principal,
            reported_at=now, fraction=progress.fraction, message=progress.message, results=progress.results,
        )  # fmt: skip
        body = codec.command_body(command)
        item = granting.item_for(ReportProgress, body, speaking.vo, attempt=caller.workload.job)
        answers = await self._granting.ask(caller.token, [item])
        message = codec.command_message(
            ReportProgress, body, id=str(ids.command_id(command.kind, caller.workload.job, now.isoformat())),
            source=SOURCE, time=now, subject=str(job_id), grant=granting.granted(answers[0]),
            traceparent=ids.traceparent(job_id),
        )  # fmt: skip
        await self._transactions.run(lambda unit: unit.send(message))
        return command

    def _pace(self, attempt: str, now: datetime) -> None:
        """Raises TooMany for a report that comes too soon behind the last one that this copy has heard."""
        first, last = self._heard.get(attempt, (now, now))
        if attempt in self._heard:
            wait = pause_s((now - first).total_seconds(), self._every_s)
            left = wait - (now - last).total_seconds()
            if left > 0:
                raise TooMany(
                    f"one report in {wait:g} seconds is heard", name="progress", amount=1, window_s=round(wait) or 1,
                    remaining=0, retry_after_s=left,
                )  # fmt: skip
        self._heard[attempt] = (first, now)
        self._heard.move_to_end(attempt)
        if len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)


def _not_yours(why: str) -> Refused:
    return Refused(f"this token does not speak for the job: {why}", code="forbidden")
