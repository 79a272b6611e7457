"""Where a job would go if it were handed in now: as a round of placing would decide, site by site. Pure.

A round (`rounds.py`) stops at the first site that takes the job; here every site gets its verdict. Called by `api.py`.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from services.scheduler import explaining, placement, rounds
from services.scheduler.ceilings import InUse
from services.scheduler.placement import Hindrance, Snapshot
from services.scheduler.records import Job
from services.scheduler.rounds import Answer, Objection, Question
from shared.contracts.commands import Principal
from shared.contracts.questions import Explanation
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.job import JobSpec, JobState


def imagined(spec: JobSpec, owner: Principal, id: UUID, now: datetime) -> Job:
    """The job as it would be."""
    return Job(
        id=id, owner=owner, spec=spec, state=JobState.ACCEPTED, submitted_at=now, waiting_since=now, phase_since=now
    )  # fmt: skip


def questions(job: Job, snapshot: Snapshot, namespace: str) -> set[Question]:
    """What to ask of auth: of the sites that have room for it, else of the one that may have some first."""
    verdicts = placement.decide(job.spec, snapshot, namespace=namespace, salt=str(job.id))
    able = [verdict.site for verdict in verdicts if verdict.fits]
    able = able or [verdict.site for verdict in verdicts if verdict.can_change][:1]
    return {Question(job.owner, job.spec.vo, site) for site in able}


def explanation(
    job: Job, snapshot: Snapshot, answers: Mapping[Question, Answer], in_use: InUse, namespace: str
) -> Explanation:  # fmt: skip
    """Every site's verdict, with what policies and ceilings have against it; what holds everywhere is the reason."""
    found = {
        question.site: rounds.objection(
            job, answer, in_use, snapshot.sites[question.site].site, handed_in=True
        )
        for question, answer in answers.items()
    }  # fmt: skip
    everywhere = next((each for each in found.values() if each is not None and each.what != "closed"), None)
    closed: dict[str, Hindrance] = {
        site: (each.code, each.reason.message) for site, each in found.items() if each is not None
    }
    verdicts = placement.decide(job.spec, snapshot, namespace=namespace, forbidden=closed, salt=str(job.id))
    if everywhere is not None:
        reason: Reason | None = _told(everywhere)
    else:
        reason = None if any(verdict.fits for verdict in verdicts) else explaining.waiting_reason(verdicts)
    summary = reason.message if reason is not None else explaining.summary(verdicts)
    return Explanation(state="not_submitted", summary=summary, reason=reason, verdicts=verdicts)


def _told(against: Objection) -> Reason:
    if against.what != "forbidden":
        return against.reason
    return because(ReasonCode.NOT_AUTHORISED, f"The job would be refused: {against.reason.message}")
